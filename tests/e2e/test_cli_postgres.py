"""The commands on a PostgreSQL: servers, their keys and flows, and a password that nobody gets to see."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import httpx2
import pytest

from runglass.cli.exit_codes import Exit
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime, open_store, upgrade_store
from runglass.store.postgres.migrations import migrate_postgres, migrations
from runglass.wire.admin_api import SERVER
from tests.conformance.stores import batch, make_run
from tests.contract.wire import ANYTHING, http_at
from tests.e2e.command import Process, runglass, started
from tests.postgres_server import connected, pool_of, postgres_database, postgres_server, until_waiting

PASSWORD = "top5ecret"
NOBODY = f"postgresql://me:{PASSWORD}@127.0.0.1:1/shop"


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """The environment that names a new database; the server of the tests takes any password."""
    with postgres_database() as address:
        yield {"RUNGLASS_STORE": address.replace("postgres:@", f"postgres:{PASSWORD}@")}


def of_process(process: Process, name: str) -> str:
    return Path(f"/proc/{process.pid}/{name}").read_text()


def test_projects_keys_and_flows_are_in_the_database_and_a_server_runs_them(
    store: dict[str, str], tmp_path: Path
) -> None:
    def done(*arguments: str, env: dict[str, str] = store) -> CompletedProcess[str]:
        ended = runglass(*arguments, env=env, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        return ended

    migrated = done("migrate")
    assert migrated.stderr == ""
    assert migrated.stdout.startswith("postgresql:///runglass_")
    assert done("migrate").stdout == migrated.stdout
    done("projects", "create", "acme/shop")
    key = done("keys", "create", "--create", "acme/shop").stdout.strip()
    (tmp_path / "greet.yaml").write_text(ANYTHING)
    pushed = done("flow", "push", "greet.yaml", "--to", "acme/shop")
    published = done("flow", "publish", "acme/shop/anything")
    keys = json.loads(done("keys", "list", "acme/shop", "--json").stdout)
    assert [each["hint"] for each in keys] == [key[: len(keys[0]["hint"])]]
    with started("serve", "--port", "0", env=store, cwd=tmp_path) as killed:
        assert killed.line().startswith("ready ")
        killed.kill()
    with started("serve", "--port", "0", "--log-level", "debug", env=store, cwd=tmp_path) as server:
        url = server.line().removeprefix("ready ")
        done("run", "acme/shop/anything", env={"RUNGLASS_BASE_URL": url, "RUNGLASS_API_KEY": key})
        assert httpx2.get(f"{url}/health", timeout=60).json()["status"] == "ok"
        assert PASSWORD not in of_process(server, "cmdline") + of_process(server, "comm")

        with started("serve", "--port", "0", env=store, cwd=tmp_path) as second:
            with http_at(second.line().removeprefix("ready "), key) as http:
                [run] = http.get("/flow-runs").json()["runs"]
            assert run["status"] == "completed", "each server has the runs of all"
            assert second.terminate() == 0
            told = second.rest_of_stderr()

        checked = done("data", "check", "--all")
        assert checked.stderr == ""
        assert checked.stdout == "all is well: 1 run, 1 of them folded\n"
        assert server.terminate() == 0
        told += [*server.rest_of_stderr(), checked.stdout, pushed.stderr, published.stderr]
    assert PASSWORD not in "".join(told)
    # Nothing was kept in a data folder, which is where SQLite's files would be.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["greet.yaml"]


async def test_a_command_that_deletes_leaves_the_rows_and_the_claim_of_them_to_servers() -> None:
    """One may be at work: its readers have a moment to read the last event."""
    with postgres_database() as address:
        settings = Settings(store=address)
        await upgrade_store(settings)
        async with open_store(settings) as server:
            run = await make_run(server)
            await server.append(batch(run, 0, b"1", status="completed", result=b"{}"))
            async with open_runtime(settings, is_guest=True) as command:
                assert await command.removal.purge(run, by=SERVER)
            assert await server.purged_runs(after=0, limit=10) == [run.no]
            assert await server.claim_maintenance("removal", for_s=1.0)


IN_A_VARIABLE = {"RUNGLASS_STORE": NOBODY}
AWAY = "'postgresql://127.0.0.1:1/shop' cannot be used: nobody listens there"
NO_FILE = "this is for SQLite files, and the store is 'postgresql://127.0.0.1:1/shop': "
MISTYPED = {"RUNGLASS_STORE": f"postgresql://me:{PASSWORD}/x@host/shop"}


@pytest.mark.parametrize(
    ("command", "env", "code", "said"),
    [
        ("data usage", IN_A_VARIABLE, Exit.USAGE, f"{NO_FILE}ask psql"),
        ("data vacuum", IN_A_VARIABLE, Exit.USAGE, f"{NO_FILE}its autovacuum"),
        ("data backup copy", IN_A_VARIABLE, Exit.USAGE, f"{NO_FILE}copy it with pg_dump"),
        ("data check", IN_A_VARIABLE, Exit.UNREACHABLE, AWAY),
        ("serve --port 0", IN_A_VARIABLE, Exit.UNREACHABLE, AWAY),
        ("serve", MISTYPED, Exit.USAGE, "%2F"),
        (f"serve --store {NOBODY}", {}, Exit.USAGE, "RUNGLASS_STORE"),
        (f"keys list acme/shop --store {NOBODY}", {}, Exit.USAGE, "RUNGLASS_STORE"),
        (f"migrate --store {NOBODY}", {}, Exit.USAGE, "RUNGLASS_STORE"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_message_without_its_password(
    tmp_path: Path, command: str, env: dict[str, str], code: Exit, said: str
) -> None:
    done = runglass(*command.split(), env=env, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


DATABASE = "runglass_old"
OLD = 5
"""The migration behind which the database is."""
HALF = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'last_pick'"
APPLIED = "SELECT array_agg(number ORDER BY number) FROM schema_migration"


async def test_a_migration_that_is_killed_in_the_middle_leaves_nothing_and_is_done_by_the_next_ones() -> None:
    """On a PostgreSQL that is in use."""
    server = await asyncio.to_thread(postgres_server)
    await server.execute(f"DROP DATABASE IF EXISTS {DATABASE}", f"CREATE DATABASE {DATABASE}")
    address = server.address(DATABASE)
    env = {"RUNGLASS_STORE": address}
    refused = await asyncio.to_thread(runglass, "data", "check", env=env)
    assert (refused.returncode, refused.stdout) == (Exit.FAILED, "")
    assert "has no tables of Runglass; `runglass migrate` makes them" in refused.stderr
    async with pool_of(address) as connections:
        await migrate_postgres(connections, migrations()[:OLD])
    async with connected(address) as user, connected(address) as watcher:
        # The next migration has changed the table of projects when it comes to that of the queue.
        await user.execute("BEGIN; SELECT FROM queue")
        with started("migrate", env=env) as process:
            async with asyncio.timeout(60):
                await until_waiting(address)
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
    await server.drop_database(DATABASE)
