"""One role migrates the database, and another one, which may make no tables, serves it."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runglass.errors import StoreError
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.migrations import migrate_postgres, migrations
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
DEFAULTS = (
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO serving",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO serving",
)
NEW = "runglass_with_roles"


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


async def test_such_a_role_goes_on_beside_a_migration_where_it_has_rights_to_what_will_be_made() -> None:
    server = await asyncio.to_thread(postgres_server)
    address = server.address(NEW)
    parts = urlsplit(address)
    by_serving = parts._replace(netloc=parts.netloc.replace("postgres", "serving", 1)).geturl()
    await server.execute(f"DROP DATABASE IF EXISTS {NEW}", f"CREATE DATABASE {NEW}", *MAKE_ROLE)
    try:
        connections = Connections(address)
        await connections.open()
        try:
            # Later ones make tables, and a sequence that each run uses which waits.
            await migrate_postgres(connections, migrations()[:5])
            await server.execute(*GRANTS, *DEFAULTS, database=NEW)
            await migrate_postgres(connections, migrations())
        finally:
            await connections.close()
        async with PostgresStore(by_serving) as store:
            run = await make_run(store)
            await store.append(batch(run, 0, b"1"))
    finally:
        await server.drop_database(NEW)
        await server.execute("DROP ROLE serving")
