"""Connections go back to the pool without a transaction, whatever has become of the work on them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runglass.errors import CommitUncertain
from runglass.store.postgres.connections import Connections, Db
from tests.postgres_server import postgres_server


@pytest.fixture
async def connections(tmp_path: Path) -> AsyncIterator[Connections]:
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
    opened = Connections(address)
    await opened.open()
    yield opened
    await opened.close()


async def transactions(connections: Connections) -> tuple[int, int]:
    """How many sessions there are beside this one, and how many of them are in a transaction."""
    sql = (
        "SELECT count(*), count(xact_start) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    row = await connections.read(lambda db: db.fetchrow(sql))
    return row[0], row[1]


async def test_a_transaction_that_is_cut_off_is_rolled_back_and_no_error_is_logged(
    connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    inside = asyncio.Event()

    async def lasting(db: Db) -> None:
        await db.execute("CREATE TABLE half_done ()")
        inside.set()
        await asyncio.Event().wait()

    async def failing(db: Db) -> None:
        await db.execute("CREATE TABLE half_done ()")
        raise RuntimeError("the work is wrong")

    writing = asyncio.create_task(connections.write(lasting))
    await inside.wait()
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()
    with pytest.raises(RuntimeError):
        await connections.write(failing)
    assert await connections.read(lambda db: db.fetchval("SELECT to_regclass('half_done')")) is None
    assert await transactions(connections) == (0, 0), "one connection was enough, and is in no transaction"
    assert not caplog.records


async def test_a_connection_that_the_server_ends_in_a_transaction_is_told_as_the_server_did(
    connections: Connections,
) -> None:
    async def ended(db: Db) -> None:
        await db.execute("BEGIN")
        await db.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(CommitUncertain, match="terminating connection due to administrator command"):
        await connections.repeat(ended, patience_s=0.0)
    assert await connections.read(lambda db: db.fetchval("SELECT 1")) == 1


async def test_the_isolation_that_a_role_prefers_is_not_what_transactions_have(tmp_path: Path) -> None:
    address = await (await asyncio.to_thread(postgres_server)).database_of(tmp_path)
    opened = Connections(f"{address}&default_transaction_isolation=repeatable%20read")
    await opened.open()
    try:
        shown = "SHOW transaction_isolation"
        assert await opened.write(lambda db: db.fetchval(shown)) == "read committed"
        assert await opened.read(lambda db: db.fetchval(shown)) == "read committed"
        assert await opened.read_at_one_moment(lambda db: db.fetchval(shown)) == "repeatable read"
    finally:
        await opened.close()
