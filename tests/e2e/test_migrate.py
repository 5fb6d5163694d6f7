"""`runglass migrate` on a PostgreSQL that is in use, killed in the middle of a migration and run again."""

import asyncio

import asyncpg

from runglass.cli.exit_codes import Exit
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.migrations import migrate_postgres, migrations
from tests.e2e.command import runglass, started
from tests.postgres_server import postgres_server
from tests.waiting import until_told

DATABASE = "runglass_old"
OLD = 5
"""The migration behind which the database is."""
WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'queue'::regclass"
HALF = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'last_pick'"
APPLIED = "SELECT array_agg(number ORDER BY number) FROM schema_migration"


async def test_a_migration_that_is_killed_in_the_middle_leaves_nothing_and_is_done_by_the_next_ones() -> None:
    server = await asyncio.to_thread(postgres_server)
    await server.execute(f"DROP DATABASE IF EXISTS {DATABASE}", f"CREATE DATABASE {DATABASE}")
    address = server.address(DATABASE)
    env = {"RUNGLASS_STORE": address}
    refused = await asyncio.to_thread(runglass, "data", "check", env=env)
    assert (refused.returncode, refused.stdout) == (Exit.FAILED, "")
    assert "has no tables of Runglass; `runglass migrate` makes them" in refused.stderr
    connections = Connections(address)
    await connections.open()
    try:
        await migrate_postgres(connections, migrations()[:OLD])
    finally:
        await connections.close()
    user, watcher = await asyncpg.connect(address), await asyncpg.connect(address)
    try:
        # The next migration has changed the table of projects when it comes to that of the queue.
        await user.execute("BEGIN; SELECT FROM queue")
        with started("migrate", env=env) as process:
            async with asyncio.timeout(60):
                await until_told(lambda: watcher.fetchval(WAITS), every_s=0.01)
            process.kill()
        await user.execute("COMMIT")
        assert await watcher.fetchval(APPLIED) == list(range(1, OLD + 1))
        assert await watcher.fetchval(HALF) == 0
        for command in (("projects", "list"), ("data", "check")):
            refused = await asyncio.to_thread(runglass, *command, env=env)
            assert (refused.returncode, refused.stdout) == (Exit.FAILED, "")
            assert f"has schema {OLD} of an older version" in refused.stderr
            assert "run `runglass migrate`" in refused.stderr
        assert await watcher.fetchval(APPLIED) == list(range(1, OLD + 1))
        both = await asyncio.gather(*(asyncio.to_thread(runglass, "migrate", env=env) for _ in range(2)))
        assert [done.returncode for done in both] == [Exit.OK, Exit.OK]
        said = "".join(done.stderr for done in both)
        assert [said.count(f"migration {each.name}") for each in migrations()] == [0] * OLD + [1] * (
            len(migrations()) - OLD
        )
        assert await watcher.fetchval(APPLIED) == [each.number for each in migrations()]
    finally:
        await user.close()
        await watcher.close()
    await server.drop_database(DATABASE)
