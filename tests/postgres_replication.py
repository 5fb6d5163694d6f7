"""PostgreSQL servers that a test may break: copies of the tests' server, one as the other's standby."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import asyncpg

from tests.ports import free_port
from tests.postgres_server import fetched, postgres_server
from tests.waiting import eventually

SYSTEM_USER = "pgserver" if os.geteuid() == 0 else None
"""Who the wheel lets PostgreSQL run as, where the tests run as root."""
_WAL_WRITER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"


class OwnServer:
    """A server on the data in `folder`, which is there already."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **options: str) -> subprocess.Popen[bytes]:
        """Starts the server; returns its process when it answers."""
        fixed = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        # The tests' server, which this is a copy of, shows commits that are not written yet.
        fixed["synchronous_commit"] = "on"
        words = (word for name, value in (fixed | options).items() for word in ("-c", f"{name}={value}"))
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder, *words],
                stdout=log,
                stderr=log,
                user=SYSTEM_USER,
            )
        eventually(lambda: self._tried("SELECT 1"))
        return self._process

    def kill(self) -> None:
        """Ends the server and its processes at once, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def crash_in_place(self) -> None:
        """Kills one process of the server, which then ends all others, recovers and goes on by itself."""
        ((writer,),) = self.execute(_WAL_WRITER)
        os.kill(writer, signal.SIGKILL)
        eventually(lambda: self._tried(_WAL_WRITER) not in (None, [], [(writer,)]))

    def execute(self, *statements: str) -> list[Any]:
        """Runs statements as the superuser; the rows of the last one."""
        rows: list[Any] = []
        for statement in statements:
            rows = fetched(self.address("postgres"), statement)
        return rows

    def address(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def _tried(self, statement: str) -> list[Any] | None:
        """The rows of the statement; None while the server does not answer."""
        assert self._process is not None
        assert self._process.poll() is None, (self.folder.parent / f"{self.folder.name}.log").read_text()
        try:
            return self.execute(statement)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None


class Replicated(NamedTuple):
    """A primary and the standby that follows it."""

    primary: OwnServer
    standby: OwnServer

    def address(self, database: str) -> str:
        """Where a client finds the database on whichever of the two takes writes."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{hosts}/{database}?sslmode=disable&target_session_attrs=read-write"

    def cut_off(self) -> None:
        """Lets the standby have all commits of this moment, and none that follow."""
        ((position,),) = self.primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
        eventually(lambda: bool(self.standby.execute(reached)[0][0]))
        self.standby.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        eventually(lambda: not self.standby.execute("SELECT FROM pg_stat_wal_receiver"))

    def fail_over(self) -> None:
        """The primary is gone for good, and the standby takes its place."""
        self.primary.kill()
        self.standby.execute("SELECT pg_promote()")


@contextmanager
def own_server() -> Iterator[OwnServer]:
    """A copy of the tests' server, not started yet, until the block ends."""
    of_tests = postgres_server()
    socket_folder = parse_qs(urlsplit(of_tests.address("postgres")).query)["host"][0]
    # Not below the folder of pytest, which the user that PostgreSQL runs as may not enter.
    with tempfile.TemporaryDirectory(prefix="runglass-own-") as folder:
        if SYSTEM_USER is not None:
            shutil.chown(folder, SYSTEM_USER)
        data = Path(folder, "data")
        _run(
            of_tests.programs / "pg_basebackup",
            *("-D", data, "-h", socket_folder, "-U", "postgres", "-c", "fast", "-X", "fetch", "-N"),
        )
        server = OwnServer(of_tests.programs, data)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def replicated() -> Iterator[Replicated]:
    """A primary with an asynchronous standby, until the block ends."""
    with own_server() as primary:
        folder = primary.folder.with_name("standby")
        _run("cp", "-a", primary.folder, folder)
        standby = OwnServer(primary.programs, folder)
        (folder / "standby.signal").touch()
        with (folder / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres'\n")
        primary.start()
        standby.start()
        try:
            yield Replicated(primary, standby)
        finally:
            standby.kill()


def _run(program: Path | str, *words: Path | str) -> None:
    subprocess.run([program, *words], check=True, capture_output=True, user=SYSTEM_USER)
