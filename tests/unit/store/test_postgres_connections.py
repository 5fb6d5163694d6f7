"""Connections go back to the pool without a transaction, whatever has become of the work on them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from runglass.errors import CommitUncertain, StoreUnreachable
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import batch, make_run
from tests.postgres_server import postgres_server
from tests.waiting import until_told

pytestmark = pytest.mark.slow


@pytest.fixture
async def connections(address: str) -> AsyncIterator[Connections]:
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
    [row] = await connections.read(lambda db: db.fetch(sql))
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


async def test_the_isolation_that_a_role_prefers_is_not_what_transactions_have(address: str) -> None:
    opened = Connections(f"{address}&default_transaction_isolation=repeatable%20read")
    await opened.open()
    try:
        shown = "SHOW transaction_isolation"
        assert await opened.write(lambda db: db.fetchval(shown)) == "read committed"
        assert await opened.read(lambda db: db.fetchval(shown)) == "read committed"
        assert await opened.read_at_one_moment(lambda db: db.fetchval(shown)) == "repeatable read"
    finally:
        await opened.close()


async def test_an_append_that_a_lock_timeout_of_the_role_ends_is_made_again(address: str) -> None:
    async with PostgresStore(f"{address}&lock_timeout=20", patience_s=60.0) as store:
        run = await make_run(store)
        other, watch = await asyncpg.connect(address), await asyncpg.connect(address)
        try:
            await other.execute("BEGIN; SELECT FROM run FOR UPDATE")
            appending = asyncio.create_task(store.append(batch(run, 0, b"1")))
            begun: set[datetime] = set()

            async def has_waited_twice() -> bool:
                rows = await watch.fetch(
                    "SELECT query_start FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                begun.update(row[0] for row in rows)
                return len(begun) > 1

            await until_told(has_waited_twice)
            assert not appending.done()
            await other.execute("COMMIT")
            await appending
        finally:
            await other.close()
            await watch.close()
        assert await store.events(run.no, after=0, limit_bytes=9) == [(1, b"1")]


@pytest.fixture
async def few(address: str) -> AsyncIterator[tuple[Connections, str]]:
    """Those of a role that may have one connection, and its address."""
    server, parts = postgres_server(), urlsplit(address)
    await server.execute("DROP ROLE IF EXISTS few", "CREATE ROLE few LOGIN CONNECTION LIMIT 1")
    by_few = parts._replace(netloc=parts.netloc.replace("postgres", "few", 1)).geturl()
    opened = Connections(by_few, patience_s=60.0)
    await opened.open()
    yield opened, by_few
    await opened.close()
    await server.execute("DROP ROLE few")


async def test_where_a_role_may_have_no_more_connections_those_that_it_has_are_waited_for(
    few: tuple[Connections, str],
) -> None:
    opened, by_few = few
    has_one, go_on = asyncio.Event(), asyncio.Event()

    async def hold(db: Db) -> int:
        has_one.set()
        await go_on.wait()
        return int(await db.fetchval("SELECT pg_backend_pid()"))

    reading = [asyncio.create_task(opened.read(hold)) for _ in range(3)]
    await has_one.wait()
    # So is whoever asked before.
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await asyncpg.connect(by_few)
    go_on.set()
    assert len(set(await asyncio.gather(*reading))) == 1, "it is kept"


async def test_who_had_no_connection_in_vain_does_not_keep_others_from_waiting_for_one(
    few: tuple[Connections, str],
) -> None:
    opened, by_few = few
    other = await asyncpg.connect(by_few)
    try:
        with pytest.raises(StoreUnreachable, match="too many connections for role"):
            await opened.repeat(lambda db: db.fetchval("SELECT 1"), patience_s=0.0)
        reading = asyncio.create_task(opened.read(lambda db: db.fetchval("SELECT 1")))
        # One more that is refused, while that one waits.
        with pytest.raises(StoreUnreachable):
            await opened.repeat(lambda db: db.fetchval("SELECT 1"), patience_s=0.0)
        assert not reading.done()
        await other.close()
        assert await reading == 1
    finally:
        await other.close()


async def test_a_call_that_is_cancelled_before_its_statement_leaves_no_transaction(
    connections: Connections,
) -> None:
    async def cancelled(db: Any) -> None:
        # The server has parsed the statement, and waits for what to do with it.
        await db.prepare("SELECT count(*) FROM pg_class")
        raise asyncio.CancelledError

    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await connections.repeat(cancelled)
        assert await connections.read_at_one_moment(lambda db: db.fetchval("SELECT 1")) == 1


async def test_a_server_that_takes_no_writes_is_called_so(address: str) -> None:
    opened = Connections(f"{address}&default_transaction_read_only=on", patience_s=3.0)
    await opened.open()
    try:
        with pytest.raises(StoreUnreachable, match="takes no writes, as a standby does; name the host"):
            await opened.read(lambda db: db.execute("CREATE TABLE t ()"))
    finally:
        await opened.close()
