"""One database for all simulated processes: the real store on SQLite in memory, without its threads.

A store's writer gathers what waits and commits it as the real one does; around each commit its process may
die, and the disk may refuse. Whoever watches hears of each commit before anybody else can act on it.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar
from uuid import UUID

from msgspec.structs import replace

from runglass.errors import StoreError
from runglass.store.leases import NO_LIMITS
from runglass.store.records import Append, RunRecord
from runglass.store.sqlite.append import write_append
from runglass.store.sqlite.connections import Connections, Work
from runglass.store.sqlite.migrations import migrate_sqlite
from runglass.store.sqlite.store import SqliteStore
from runglass.store.sqlite.worker_threads import WorkItem, WorkResult, resolve
from tests.prove.simulating.virtual import Process

Result = TypeVar("Result")

Mood = Literal["well", "full", "tight", "gone", "moody", "mute"]
"""How the disk is: full takes no write, tight only small ones, gone answers nothing, moody fails at times.

A mute one takes appends and says that it did not, as when the connection to a database breaks in a commit.
"""
TIGHT_BYTES = 500
SLOW_S = (0.05, 0.1, 0.3)
"""How long an append takes where they are slow."""

Fault = Literal[
    "writers with an old fence",
    "checkpoints that are lost",
    "steps that are not stored",
    "budgets that each process counts alone",
    "claims that are not limited",
    "a flow that is passed over",
]
"""What a store that does not keep its word lets through; for a control that this would be seen."""


class Appending:
    """An append as work for a connection, with a fault in it or none."""

    def __init__(self, batch: Append, fault: Fault | None) -> None:
        self.batch = batch
        self._fault = fault

    def __call__(self, db: sqlite3.Connection) -> None:
        batch = self.batch
        match self._fault:
            case "writers with an old fence":
                fence = db.execute("SELECT fence FROM run WHERE no = ?", (batch.run_no,)).fetchone()[0]
                batch = replace(batch, fence=fence)
            case "checkpoints that are lost":
                batch = replace(batch, checkpoints=())
            case "steps that are not stored":
                batch = replace(batch, steps=())
        write_append(db, batch)

    @property
    def size(self) -> int:
        return sum(map(len, self.batch.events))


Watcher = Callable[[Process, list[Append]], None]
"""Hears which process committed which appends, be it none."""


class Disk:
    """The database, and what all who use it have in common."""

    def __init__(self, chance: Random, watch: Watcher, fault: Fault | None) -> None:
        self.mood: Mood = "well"
        self.fault = fault
        self.chance = chance
        self.watch = watch
        self.appends_slowly = False
        self.commits = 0
        self.read_back = 0
        """How many outputs have been read that a process had let go of."""
        self.holds: dict[UUID, tuple[RunRecord, Decimal]] = {}
        """Parts of budgets that are held: like a table, what a process has written outlives it."""
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.deserialize(_empty())

    def refuses(self, job: WorkItem) -> bool:
        """Whether the disk fails where this is to be written."""
        match self.mood:
            case "full" | "gone":
                return True
            case "tight":
                return isinstance(job.work, Appending) and job.work.size > TIGHT_BYTES
            case "moody":
                return self.chance.random() < 0.4
        return False


class Inline(Connections):
    """Connections of one process that do their work on the event loop, after a while.

    `dies_in`, if given, is the number of the commit in which the process dies, and `dies_before` whether that
    is before anything is stored; `die` ends it.
    """

    def __init__(
        self, disk: Disk, process: Process, *, dies_in: int | None, dies_before: bool, die: Callable[[], None]
    ) -> None:
        super().__init__(Path("simulated"), synchronous="NORMAL")
        self.disk = disk
        self.process = process
        self._dies_in = dies_in
        self._dies_before = dies_before
        self._end = die
        self._waiting: list[WorkItem] = []
        self._unanswered: list[WorkItem] = []
        self._severed = False

    async def open(self) -> None:
        if self.disk.mood == "gone":
            raise StoreError("the disk is gone")

    async def close(self) -> None:
        self._commit_all()

    def spare(self) -> None:
        self._dies_in = None

    def sever(self) -> None:
        """Ends what a dead process still waits for; it reaches nothing any more."""
        self._severed = True
        for job in [*self._unanswered, *self._waiting]:
            if not job.future.done():
                job.future.set_exception(StoreError("the process has died"))

    async def write(self, work: Work[Result]) -> Result:
        self._refuse_when_severed()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append(WorkItem(work, loop, future))
        if len(self._waiting) == 1:
            is_slow = self.disk.appends_slowly and isinstance(work, Appending)
            delay_s = self.disk.chance.choice(SLOW_S) if is_slow else self._delay_s()
            loop.call_later(delay_s, self._commit_all)
        return await future

    async def read(self, work: Work[Result]) -> Result:
        await asyncio.sleep(self._delay_s())
        self._refuse_when_severed()
        if self.disk.mood == "gone" or (self.disk.mood == "moody" and self.disk.chance.random() < 0.2):
            raise StoreError("the disk cannot be read")
        return work(self.disk.connection)

    look_up = read

    def _delay_s(self) -> float:
        return self.disk.chance.choice((0.0, 0.0, 0.0, 0.0, 0.001, 0.02))

    def _refuse_when_severed(self) -> None:
        if self._severed:
            raise StoreError("the process has died")

    def _commit_all(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch or self._severed:
            return
        if self._dies_in is not None:
            self._dies_in -= 1
        dies = self._dies_in == 0
        if dies and self._dies_before:
            self._die(batch)
            return
        if any(map(self.disk.refuses, batch)):
            outcomes = [WorkResult(job, None, StoreError("the disk is full")) for job in batch]
        else:
            outcomes = self.commit(self.disk.connection, batch)
            self.disk.commits += 1
            done = [outcome.job.work for outcome in outcomes if outcome.error is None]
            appends = [work.batch for work in done if isinstance(work, Appending)]
            self.disk.watch(self.process, appends)
            if self.disk.mood == "mute":
                outcomes = [
                    WorkResult(outcome.job, None, StoreError("nobody knows whether it is stored"))
                    if isinstance(outcome.job.work, Appending)
                    else outcome
                    for outcome in outcomes
                ]
        if dies:
            self._die(batch)
        else:
            resolve(outcomes)

    def _die(self, unanswered: list[WorkItem]) -> None:
        self._unanswered = unanswered
        self._end()


class Store(SqliteStore):
    """The store of one process."""

    _db: Inline

    def __init__(self, connections: Inline) -> None:
        super().__init__(Path("simulated"), synchronous="NORMAL")
        self._db = connections
        self._fault = connections.disk.fault
        self._process = connections.process
        if self._fault != "budgets that each process counts alone":
            self._holds = connections.disk.holds

    async def append(self, batch: Append) -> None:
        await self._db.write(Appending(batch, self._fault))

    async def checkpoint(self, run_no: int, step_id: str, loop_path: str) -> bytes | None:
        self._db.disk.read_back += 1
        return await super().checkpoint(run_no, step_id, loop_path)

    async def claim_runs(self, owner: str, **how: Any) -> list[RunRecord]:
        match self._fault:
            case "claims that are not limited":
                how |= {"most_each": None, "most_of_flows": NO_LIMITS}
            case "a flow that is passed over" if how.get("most_of_flows"):
                how["most_of_flows"] = dict.fromkeys(how["most_of_flows"], 0)
        return await super().claim_runs(owner, **how)

    async def end_lease(self, owner: str | None) -> None:
        await super().end_lease(owner)
        self._process.let_go = owner is not None


class _AtOnce(Connections):
    """Connections by which is read without a wait, and not at all written."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__(Path("simulated"), synchronous="NORMAL")
        self.db = db

    async def read(self, work: Work[Result]) -> Result:
        return work(self.db)

    look_up = read


class LookedAt(SqliteStore):
    """The store as it is at this moment: what is read from it waits for nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__(Path("simulated"), synchronous="NORMAL")
        self.db = db
        self._db = _AtOnce(db)


@cache
def _empty() -> bytes:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate_sqlite(connection)
        return connection.serialize()
