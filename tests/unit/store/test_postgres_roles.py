"""One role migrates the database, and another one, which may make no tables, serves it."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runglass.errors import StoreError
from runglass.store.postgres.store import PostgresStore
from tests.conformance.test_store import batch, make_run
from tests.postgres_server import postgres_server

MAKE_ROLE = (
    "DROP ROLE IF EXISTS serving",
    "CREATE ROLE serving LOGIN",
)
GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO serving",
    "GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO serving",
)


async def test_a_role_that_may_make_no_tables_serves_what_another_one_has_migrated(tmp_path: Path) -> None:
    server = await asyncio.to_thread(postgres_server)
    address = await server.database_of(tmp_path)
    parts = urlsplit(address)
    database = parts.path.removeprefix("/")
    by_serving = parts._replace(netloc=parts.netloc.replace("postgres", "serving", 1)).geturl()
    await server.execute(*MAKE_ROLE)
    try:
        with pytest.raises(StoreError, match="permission denied for table schema_migration"):
            await PostgresStore(by_serving, patience_s=1.0).__aenter__()
        await server.execute(*GRANTS, database=database)
        async with PostgresStore(by_serving) as store:
            run = await make_run(store)
            await store.append(batch(run, 0, b"1"))
            assert await store.events(run.no, after=0, limit_bytes=9) == [(1, b"1")]
    finally:
        await server.execute("DROP OWNED BY serving", database=database)
        await server.execute("DROP ROLE serving")
