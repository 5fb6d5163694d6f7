"""Migrations of PostgreSQL: two processes at once, a database from the future; partitions of months."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from runglass.errors import RunPurged, StoreError
from runglass.store.leases import ProcessFacts
from runglass.store.migration_files import Migration
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.migrations import migrate_postgres, migrations
from runglass.store.postgres.store import PostgresStore
from runglass.support.clock import iso
from tests.conformance.stores import batch, make_run, row
from tests.postgres_server import PostgresServer, connected, postgres_server
from tests.waiting import until_told

pytestmark = pytest.mark.slow

EMPTY = "runglass_empty"
HELD = "SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock(7)"
# Runs are made as they were then, in partitions of that time.
THREE_MONTHS_AGO = (
    "ALTER FUNCTION month_of RENAME TO true_month_of; CREATE FUNCTION month_of(at timestamptz)"
    " RETURNS bigint LANGUAGE sql AS 'SELECT true_month_of(at) - 3'"
)
NOW = "DROP FUNCTION month_of; ALTER FUNCTION true_month_of RENAME TO month_of"
WAITING = (
    "SELECT array_agg(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def server() -> PostgresServer:
    return await asyncio.to_thread(postgres_server)


@pytest.fixture
async def empty(server: PostgresServer) -> AsyncIterator[Connections]:
    """An empty database."""
    await server.execute(f"DROP DATABASE IF EXISTS {EMPTY}", f"CREATE DATABASE {EMPTY}")
    connections = Connections(server.address(EMPTY), patience_s=5)
    await connections.open()
    yield connections
    await connections.close()


@asynccontextmanager
async def holding(server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """Holds up migrations that are `HELD`, until the block ends."""
    async with connected(server.address(EMPTY)) as holder:
        await holder.execute("SELECT pg_advisory_lock(7)")
        yield holder


async def until_waiting(holder: asyncpg.Connection, sessions: int) -> set[int]:
    """The sessions that wait for locks, once there are so many."""
    found: set[int] = set()
    while len(found) < sessions:
        found = set(await holder.fetchval(WAITING) or ())
    return found


async def applied(connections: Connections) -> list[int]:
    sql = "SELECT number FROM schema_migration ORDER BY number"
    return [number for (number,) in await connections.read(lambda db: db.fetch(sql))]


async def test_programs_of_the_version_before_go_on_beside_a_migration_that_does_not_break_them(
    empty: Connections,
) -> None:
    known = migrations()
    last = known[-1].number
    newer = Migration(last + 1, "newer.sql", "CREATE TABLE newer ()", breaks=0)
    breaking = Migration(last + 2, "breaking.sql", "CREATE TABLE breaking ()", breaks=last)
    await migrate_postgres(empty, [*known, newer])
    await migrate_postgres(empty, known)
    await migrate_postgres(empty, [*known, newer, breaking])
    with pytest.raises(StoreError, match=f"has schema {last + 2}, which this version .* cannot work with"):
        await migrate_postgres(empty, known)
    await migrate_postgres(empty, [*known, newer])


async def test_a_migration_is_not_applied_while_a_process_lives_that_it_would_break(
    server: PostgresServer, empty: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    known = migrations()
    last = known[-1].number
    newer = Migration(last + 1, "newer.sql", "CREATE TABLE newer ()", breaks=0)
    breaking = Migration(last + 2, "breaking.sql", "CREATE TABLE breaking ()", breaks=last)
    async with PostgresStore(server.address(EMPTY)) as store:
        until = iso(datetime.now(UTC) + timedelta(hours=1))
        await store.hold_lease("old", until=until, renew=False, process=ProcessFacts("here", 7, "0.1", True))
        await store.hold_lease("oldest", until=until, renew=False)
        said = rf"cannot have schema {last + 2} yet.*: 7 on here, version 0\.1; an unnamed one"
        with pytest.raises(StoreError, match=said):
            await migrate_postgres(empty, [*known, newer, breaking])
        assert await applied(empty) == [migration.number for migration in [*known, newer]]
        assert caplog.text == ""
        await store.end_lease(None)
        await migrate_postgres(empty, [*known, newer, breaking])


async def test_a_process_that_opened_before_a_migration_that_breaks_it_gets_no_lease_after_it(
    server: PostgresServer, empty: Connections
) -> None:
    known = migrations()
    last = known[-1].number
    breaking = Migration(last + 1, "breaking.sql", HELD, breaks=last)
    async with PostgresStore(server.address(EMPTY)) as store:
        now = datetime.now(UTC)
        # One that stood still while its lease ran out.
        await store.hold_lease("slow", until=iso(now - timedelta(seconds=1)), renew=False)
        until = iso(now + timedelta(hours=1))
        async with holding(server) as holder:
            migrating = asyncio.create_task(migrate_postgres(empty, [*known, breaking]))
            await until_waiting(holder, 1)
            renewing = asyncio.create_task(store.hold_lease("slow", until=until, renew=True))
            late = asyncio.create_task(store.hold_lease("late", until=until, renew=False))
            await until_waiting(holder, 3)
        with pytest.raises(
            StoreError, match=f"has schema {last + 1}, which this version .* cannot work with"
        ):
            await late
        assert not await renewing
        await migrating
        assert await store.leases() == []


async def test_a_migration_that_fails_leaves_nothing_behind(empty: Connections) -> None:
    broken = Migration(1, "broken.sql", "CREATE TABLE half (); SELECT 1 / 0", breaks=0)
    with pytest.raises(StoreError, match="division by zero"):
        await migrate_postgres(empty, [broken])
    await migrate_postgres(empty, migrations())
    assert await empty.read(lambda db: db.fetchval("SELECT to_regclass('half')")) is None


@asynccontextmanager
async def reading_runs(server: PostgresServer) -> AsyncIterator[None]:
    """A long transaction that has read the table of runs, as that of a dump, until the block ends."""
    async with connected(server.address(EMPTY)) as reader:
        await reader.execute("BEGIN; SELECT FROM run")
        yield


def changing_runs() -> list[Migration]:
    known = migrations()
    sql = "ALTER TABLE run ADD COLUMN note text"
    return [*known, Migration(known[-1].number + 1, "note.sql", sql, breaks=0)]


async def test_nobody_waits_behind_a_migration_that_waits_for_a_table(
    server: PostgresServer, empty: Connections
) -> None:
    await migrate_postgres(empty, migrations())
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'run'::regclass"
    async with connected(server.address(EMPTY)) as other:
        async with reading_runs(server):
            changing = asyncio.create_task(migrate_postgres(empty, changing_runs(), lock_ms=100))
            await until_told(lambda: other.fetchval(waits))
            await other.execute("UPDATE run SET head = 0")
            assert not changing.done()
        await changing
    assert await empty.read(lambda db: db.fetch("SELECT note FROM run")) == []


async def partitions(address: str) -> list[str]:
    async with connected(address) as connection:
        rows = await connection.fetch("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
    return [name for (name,) in rows]


async def test_the_rows_of_a_month_go_as_a_whole_when_its_last_run_does(
    server: PostgresServer, tmp_path: Path
) -> None:
    address = await server.database_of(tmp_path)
    connection = await asyncpg.connect(address)
    await connection.execute(f"{THREE_MONTHS_AGO}; SELECT make_months(0)")
    async with PostgresStore(address) as store:
        runs = [await make_run(store, f"run-{number}") for number in range(2)]
        for run in runs:
            await store.append(batch(run, 0, b"1", status="completed", steps=[row(1)], ended_at="2026"))
        await connection.execute(f"{NOW}; SELECT make_months(0)")
        await connection.close()
        later = await make_run(store, "run-later")
        assert later.no >> 40 == (runs[0].no >> 40) + 3
        before = await partitions(address)
        assert await store.purge_runs([runs[0].no])
        while not await store.purge_rows([runs[0].no], limit_rows=9, limit_bytes=1 << 20):
            pass
        assert await partitions(address) == before, "there is a run left"
        assert await store.events(runs[1].no, after=0, limit_bytes=9) == [(1, b"1")]
        assert await store.purge_runs([runs[1].no])
        while not await store.purge_rows([runs[1].no], limit_rows=9, limit_bytes=1 << 20):
            pass
        assert len(await partitions(address)) == len(before) - 3
        with pytest.raises(RunPurged):
            await store.events(runs[1].no, after=0, limit_bytes=9)
        await store.append(batch(later, 0, b"1"))


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
