"""What all processes of a cluster use, and through which hands their runs have gone.

A PostgreSQL and a NATS, each killed, stopped and started again. The database notes by a trigger of this proof
who has written to a run: whoever raises its fence has it from then on, and each append must be by the process
that had the run at that moment.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

from tests.nats_server import PROGRAM
from tests.ports import free_port
from tests.postgres_replication import own_server
from tests.postgres_server import connected, stop_postgres
from tests.process_guard import below
from tests.prove.clustering.member import Fault
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


class Service:
    """A server at a port, which `begin` starts; one process after another, each with what it has started."""

    def __init__(
        self, port: int, begin: Callable[[], subprocess.Popen[bytes]], *, ended_by: int = signal.SIGTERM
    ) -> None:
        self.port = port
        self._begin = begin
        self._ended_by = ended_by

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        await self.start()
        try:
            yield self
        finally:
            await self.kill()

    async def start(self) -> None:
        async with asyncio.timeout(START_LIMIT_S):
            self._process = await asyncio.to_thread(self._begin)

    async def kill(self) -> None:
        """SIGKILL to the server and all of its processes; returns when they are gone."""
        if self._process.poll() is not None:
            return
        # First, so that it begins none while the others are looked for.
        self._process.send_signal(signal.SIGSTOP)
        members = self._members()
        _signal(members, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        # Another one on the same data starts when the last of the old ones has let go of it.
        await until(lambda: not any(map(_lives, members)), every_s=0.01)

    async def suffer(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                await self.kill()
            case "restart":
                self._process.send_signal(self._ended_by)
                await asyncio.to_thread(self._process.wait)
            case _:
                _signal(self._members(), signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        if fault.kind in ("kill", "restart"):
            await self.start()
        else:
            _signal(self._members(), signal.SIGCONT)

    def _members(self) -> list[int]:
        return [self._process.pid, *below(self._process.pid)]


def nats() -> Service:
    """A NATS server, which keeps nothing."""
    port, null = free_port(), subprocess.DEVNULL
    command = [str(PROGRAM), "--addr", "127.0.0.1", "--port", str(port)]
    return Service(port, lambda: subprocess.Popen(command, stdout=null, stderr=null))


@asynccontextmanager
async def postgres() -> AsyncIterator[Service]:
    """A PostgreSQL, always on the same data; a restart ends all of its connections, in order."""
    try:
        with own_server() as server:

            def begin() -> subprocess.Popen[bytes]:
                # What is killed here are processes and no machine: the system keeps what they have written.
                return server.start(max_connections="200", fsync="off", full_page_writes="off")

            async with Service(server.port, begin, ended_by=signal.SIGINT).running() as service:
                yield service
    finally:
        await asyncio.to_thread(stop_postgres)


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


APART = timedelta(seconds=1)
"""How far the time of an event may be from what it is by the clock of the database."""


class Hand(NamedTuple):
    """A change of a run's row: by `who` it was made, and what `fence` and `head` are since then.

    `was_lost` says that another process had the run, and has it no more; `at` is when the change was made,
    by the clock of the database.
    """

    run_no: int
    fence: int
    head: int
    who: str
    was_lost: bool
    at: datetime


_HANDS = "SELECT run_no, fence, head, who, was_lost, at FROM prove.hand ORDER BY no"


async def hands_of(address: str) -> list[Hand]:
    """Every change of the rows of runs, in the order in which they were made."""
    async with connected(address) as connection:
        return [Hand._make(row) for row in await connection.fetch(_HANDS)]


def zombies(hands: Iterable[Hand]) -> Iterator[str]:
    """Appends by a process that had lost the run to another one, of changes in the order they were made."""
    last: dict[int, Hand] = {}
    holder: dict[int, str] = {}
    for hand in hands:
        before = last.get(hand.run_no)
        if before is None or hand.fence > before.fence:
            holder[hand.run_no] = hand.who
        elif hand.fence < before.fence:
            yield f"run {hand.run_no}: {hand.who} set the fence back from {before.fence} to {hand.fence}"
        if before is not None and hand.head < before.head:
            yield f"run {hand.run_no}: {hand.who} set the head back from {before.head} to {hand.head}"
        if hand.who != holder[hand.run_no]:
            yield (
                f"a zombie: run {hand.run_no} belongs to {holder[hand.run_no]} since fence {hand.fence},"
                f" and {hand.who} wrote its event {hand.head}"
            )
        last[hand.run_no] = hand


def misdated(hands: Iterable[Hand], dates: Mapping[int, Sequence[datetime]]) -> Iterator[str]:
    """Events that were not made between the moment at which their process got the run and their append.

    The moments are of the clock of the database, and `dates` those that the events of each run say.
    """
    last: dict[int, Hand] = {}
    got: dict[int, Hand] = {}
    for hand in hands:
        before = last.get(hand.run_no)
        if before is None or hand.fence != before.fence:
            got[hand.run_no] = hand
        since = got[hand.run_no]
        for seq in range(before.head + 1 if before else 1, hand.head + 1):
            at = dates[hand.run_no][seq - 1]
            if not since.at - APART <= at <= hand.at + APART:
                yield (
                    f"run {hand.run_no}: {hand.who} got it at {since.at}, appended event {seq} at {hand.at},"
                    f" and dated it {at}"
                )
        last[hand.run_no] = hand
