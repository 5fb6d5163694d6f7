"""Migrations of PostgreSQL: beside programs of other versions; partitions of months; roles.

One role may migrate the database, and another one, which may make no tables, serve it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from runglass.errors import RunPurged, StoreError
from runglass.store.leases import ProcessFacts
from runglass.store.migration_files import Migration
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.migrations import migrate_postgres, migrations
from runglass.store.postgres.store import PostgresStore
from runglass.support.clock import iso
from tests.conformance.stores import batch, make_run, purge_all, row, run_with
from tests.postgres_server import PostgresServer, connected, pool_of, postgres_server, until_waiting

pytestmark = pytest.mark.slow

KNOWN = migrations()
LAST = KNOWN[-1].number
NEWER = Migration(LAST + 1, "newer.sql", "CREATE TABLE newer ()", breaks=0)
BREAKING = Migration(LAST + 2, "breaking.sql", "CREATE TABLE breaking ()", breaks=LAST)
EMPTY = "runglass_empty"
HELD = "SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock(7)"
# Runs are made as they were then, in partitions of that time.
THREE_MONTHS_AGO = (
    "ALTER FUNCTION month_of RENAME TO true_month_of; CREATE FUNCTION month_of(at timestamptz)"
    " RETURNS bigint LANGUAGE sql AS 'SELECT true_month_of(at) - 3'"
)
NOW = "DROP FUNCTION month_of; ALTER FUNCTION true_month_of RENAME TO month_of"


@pytest.fixture
async def server() -> PostgresServer:
    return await asyncio.to_thread(postgres_server)


@pytest.fixture
async def empty(server: PostgresServer) -> AsyncIterator[Connections]:
    await server.execute(f"DROP DATABASE IF EXISTS {EMPTY}", f"CREATE DATABASE {EMPTY}")
    async with pool_of(server.address(EMPTY), patience_s=5) as connections:
        yield connections


async def test_programs_of_the_version_before_go_on_beside_a_migration_that_does_not_break_them(
    empty: Connections,
) -> None:
    await migrate_postgres(empty, [*KNOWN, NEWER])
    await migrate_postgres(empty, KNOWN)
    await migrate_postgres(empty, [*KNOWN, NEWER, BREAKING])
    with pytest.raises(StoreError, match=f"has schema {LAST + 2}, which this version .* cannot work with"):
        await migrate_postgres(empty, KNOWN)
    await migrate_postgres(empty, [*KNOWN, NEWER])


async def test_a_migration_is_not_applied_while_a_process_lives_that_it_would_break(
    server: PostgresServer, empty: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresStore(server.address(EMPTY)) as store:
        until = iso(datetime.now(UTC) + timedelta(hours=1))
        await store.hold_lease("old", until=until, renew=False, process=ProcessFacts("here", 7, "0.1", True))
        await store.hold_lease("oldest", until=until, renew=False)
        said = rf"cannot have schema {LAST + 2} yet.*: 7 on here, version 0\.1; an unnamed one"
        with pytest.raises(StoreError, match=said):
            await migrate_postgres(empty, [*KNOWN, NEWER, BREAKING])
        applied = await empty.read(lambda db: db.fetch("SELECT number FROM schema_migration ORDER BY number"))
        assert [number for (number,) in applied] == [migration.number for migration in [*KNOWN, NEWER]]
        assert caplog.text == ""
        await store.end_lease(None)
        await migrate_postgres(empty, [*KNOWN, NEWER, BREAKING])


async def test_a_process_that_opened_before_a_migration_that_breaks_it_gets_no_lease_after_it(
    server: PostgresServer, empty: Connections
) -> None:
    breaking = BREAKING._replace(number=LAST + 1, sql=HELD)
    address = server.address(EMPTY)
    async with PostgresStore(address) as store:
        now = datetime.now(UTC)
        # One that stood still while its lease ran out.
        await store.hold_lease("slow", until=iso(now - timedelta(seconds=1)), renew=False)
        until = iso(now + timedelta(hours=1))
        async with connected(address) as holder:
            await holder.execute("SELECT pg_advisory_lock(7)")
            migrating = asyncio.create_task(migrate_postgres(empty, [*KNOWN, breaking]))
            await until_waiting(address)
            renewing = asyncio.create_task(store.hold_lease("slow", until=until, renew=True))
            late = asyncio.create_task(store.hold_lease("late", until=until, renew=False))
            await until_waiting(address, 3)
        with pytest.raises(
            StoreError, match=f"has schema {LAST + 1}, which this version .* cannot work with"
        ):
            await late
        assert not await renewing
        await migrating
        assert await store.leases() == []


async def test_a_migration_that_fails_leaves_nothing_behind(empty: Connections) -> None:
    broken = Migration(1, "broken.sql", "CREATE TABLE half (); SELECT 1 / 0", breaks=0)
    with pytest.raises(StoreError, match="division by zero"):
        await migrate_postgres(empty, [broken])
    await migrate_postgres(empty, KNOWN)
    assert await empty.read(lambda db: db.fetchval("SELECT to_regclass('half')")) is None


async def test_nobody_waits_behind_a_migration_that_waits_for_a_table(
    server: PostgresServer, empty: Connections
) -> None:
    note = Migration(LAST + 1, "note.sql", "ALTER TABLE run ADD COLUMN note text", breaks=0)
    await migrate_postgres(empty, KNOWN)
    async with connected(server.address(EMPTY)) as other:
        async with connected(server.address(EMPTY)) as reader:
            # A long transaction, as that of a dump.
            await reader.execute("BEGIN; SELECT FROM run")
            changing = asyncio.create_task(migrate_postgres(empty, [*KNOWN, note], lock_ms=100))
            await until_waiting(server.address(EMPTY))
            await other.execute("UPDATE run SET head = 0")
            assert not changing.done()
        await changing
    assert await empty.read(lambda db: db.fetch("SELECT note FROM run")) == []


async def test_a_database_that_cannot_hold_every_text_is_refused_and_left_as_it_is(
    server: PostgresServer,
) -> None:
    name = "runglass_latin"
    made = f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    await server.execute(f"DROP DATABASE IF EXISTS {name}", made)
    try:
        with pytest.raises(StoreError, match="has the encoding LATIN1, which lacks most characters"):
            await PostgresStore(server.address(name)).__aenter__()
        async with connected(server.address(name)) as connection:
            assert await connection.fetchval("SELECT to_regclass('schema_migration')") is None
    finally:
        await server.drop_database(name)


PARTITIONS = "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"


@pytest.mark.parametrize("sql", ["UPDATE audit SET name = 'nobody'", "DELETE FROM audit", "TRUNCATE audit"])
async def test_the_database_itself_refuses_changes_of_the_audit_log(
    store: PostgresStore, session: asyncpg.Connection, sql: str
) -> None:
    await store.ensure_project("acme", "demo")
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await session.execute(sql)
    assert len(await store.audit(None, limit=10)) == 1


async def test_the_rows_of_a_month_go_as_a_whole_when_its_last_run_does(
    store: PostgresStore, session: asyncpg.Connection
) -> None:
    await session.execute(f"{THREE_MONTHS_AGO}; SELECT make_months(0)")
    ended: dict[str, Any] = {"status": "completed", "steps": [row(1)], "ended_at": "2026"}
    runs = [await run_with(store, b"1", run_id=run_id, **ended) for run_id in ("run-0", "run-1")]
    await session.execute(f"{NOW}; SELECT make_months(0)")
    later = await make_run(store, "run-later")
    assert later.no >> 40 == (runs[0].no >> 40) + 3
    before = await session.fetch(PARTITIONS)
    assert await store.purge_runs([runs[0].no])
    await purge_all(store, limit_rows=9)
    assert await session.fetch(PARTITIONS) == before, "there is a run left"
    assert await store.events(runs[1].no, after=0, limit_bytes=9) == [(1, b"1")]
    assert await store.purge_runs([runs[1].no])
    await purge_all(store, limit_rows=9)
    assert len(await session.fetch(PARTITIONS)) == len(before) - 3
    with pytest.raises(RunPurged):
        await store.events(runs[1].no, after=0, limit_bytes=9)
    await store.append(batch(later, 0, b"1"))


GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO serving;
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO serving;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO serving;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO serving;
"""


@pytest.fixture
async def by_serving(address: str, session: asyncpg.Connection) -> AsyncIterator[str]:
    """The same database by a role to which nothing is granted yet."""
    await session.execute("DROP ROLE IF EXISTS serving; CREATE ROLE serving LOGIN")
    yield address.replace("//postgres", "//serving")
    await session.execute("DROP OWNED BY serving; DROP ROLE serving")


async def test_a_role_that_may_make_no_tables_is_told_what_it_lacks(by_serving: str) -> None:
    with pytest.raises(StoreError, match="permission denied for table schema_migration; the user must"):
        await PostgresStore(by_serving, patience_s=1.0).__aenter__()


async def test_such_a_role_deletes_the_rows_of_a_month_that_it_may_not_drop(
    by_serving: str, session: asyncpg.Connection
) -> None:
    await session.execute(f"{GRANTS}; {THREE_MONTHS_AGO}; SELECT make_months(2)")
    async with PostgresStore(by_serving) as store:
        run = await run_with(store, b"secret", status="completed", ended_at="2026")
        await session.execute(NOW)
        assert await store.purge_runs([run.no])
        await purge_all(store, limit_rows=9)
        assert await session.fetchval("SELECT count(*) FROM event") == 0


async def test_such_a_role_goes_on_while_partitions_of_months_ahead_are_missing(
    by_serving: str, session: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async def drop(first: int) -> None:
        """Drops the partitions of months from this one and so many later."""
        since = f"to_char(now() AT TIME ZONE 'UTC' + interval '{first} months', 'YYYY_MM')"
        for (name,) in await session.fetch(f"{PARTITIONS} AND right(relname, 7) >= {since}"):
            await session.execute(f"DROP TABLE {name}")

    caplog.set_level(logging.WARNING)
    await session.execute(GRANTS)
    await drop(first=1)
    async with PostgresStore(by_serving) as store:
        await run_with(store, b"1")
        assert "let their owner run `runglass migrate`" in caplog.text
        caplog.clear()
        for _ in range(2):
            assert not await store.compact(limit_bytes=1 << 20)
        assert len(caplog.records) == 1, "it is told once"
    await drop(first=0)
    with pytest.raises(StoreError, match="this month has no partitions yet: the role may make no tables"):
        await PostgresStore(by_serving).__aenter__()
