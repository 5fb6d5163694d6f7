"""One role migrates the database, and another one, which may make no tables, serves it."""

import logging
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from runglass.errors import StoreError
from runglass.store.postgres.store import PostgresStore
from tests.conformance.stores import batch, make_run
from tests.postgres_server import connected, postgres_server
from tests.unit.store.test_postgres_migrations import NOW, THREE_MONTHS_AGO

pytestmark = pytest.mark.slow

MAKE_ROLE = ("DROP ROLE IF EXISTS serving", "CREATE ROLE serving LOGIN")
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO serving",
    "GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO serving",
)
DEFAULTS = (
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO serving",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO serving",
)


class Served(NamedTuple):
    """A database that the role `serving` may serve, and the same address by that role."""

    by_serving: str
    database: str

    async def execute(self, *statements: str) -> None:
        """Runs statements as the owner of the tables."""
        await postgres_server().execute(*statements, database=self.database)


@pytest.fixture
async def refused(address: str) -> AsyncIterator[Served]:
    """One to which nothing is granted yet."""
    server, parts = postgres_server(), urlsplit(address)
    database = parts.path.removeprefix("/")
    await server.execute(*MAKE_ROLE)
    try:
        by_serving = parts._replace(netloc=parts.netloc.replace("postgres", "serving", 1)).geturl()
        yield Served(by_serving, database)
    finally:
        await server.execute("DROP OWNED BY serving", database=database)
        await server.execute("DROP ROLE serving")


@pytest.fixture
async def served(refused: Served) -> Served:
    await refused.execute(*GRANTS, *DEFAULTS)
    return refused


async def test_a_role_that_may_make_no_tables_is_told_what_it_lacks(refused: Served) -> None:
    with pytest.raises(StoreError, match="permission denied for table schema_migration; the user must"):
        await PostgresStore(refused.by_serving, patience_s=1.0).__aenter__()


async def test_such_a_role_deletes_the_rows_of_a_month_that_it_may_not_drop(served: Served) -> None:
    await served.execute(THREE_MONTHS_AGO, "SELECT make_months(2)")
    async with PostgresStore(served.by_serving) as store:
        run = await make_run(store)
        await store.append(batch(run, 0, b"secret", status="completed", ended_at="2026"))
        await served.execute(NOW)
        assert await store.purge_runs([run.no])
        while not await store.purge_rows([run.no], limit_rows=9, limit_bytes=1 << 20):
            pass
        async with connected(served.by_serving) as connection:
            assert await connection.fetchval("SELECT count(*) FROM event") == 0


async def test_such_a_role_goes_on_while_partitions_of_months_ahead_are_missing(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await served.execute(*await _drops(served, first=1))
    async with PostgresStore(served.by_serving) as store:
        run = await make_run(store)
        await store.append(batch(run, 0, b"1"))
        assert "let their owner run `runglass migrate`" in caplog.text
        caplog.clear()
        for _ in range(2):
            assert not await store.compact(limit_bytes=1 << 20)
        assert len(caplog.records) == 1, "it is told once"
    await served.execute(*await _drops(served, first=0))
    with pytest.raises(StoreError, match="this month has no partitions yet: the role may make no tables"):
        await PostgresStore(served.by_serving).__aenter__()


async def _drops(served: Served, *, first: int) -> list[str]:
    """Statements that drop the partitions of months from this one and so many later."""
    sql = (
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND right(relname, 7) >="
        f" to_char(now() AT TIME ZONE 'UTC' + interval '{first} months', 'YYYY_MM')"
    )
    async with connected(postgres_server().address(served.database)) as owner:
        return [f"DROP TABLE {name}" for (name,) in await owner.fetch(sql)]
