"""Who follows runs in the simulation, from any process, and goes to another one when that is no more.

Each event must be the log's own, and come once and in its turn; and who follows a run that ends is told so.
"""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from runglass.errors import StoreError
from tests.prove.simulating.laws import WatchedLog, demand
from tests.prove.simulating.machine import Life

if TYPE_CHECKING:
    from tests.prove.simulating.world import World

PATIENCE_S = 60.0
"""After so long without an end a reader tries another process: its own may sleep."""


class Reader:
    """One who follows a run. `seq` is how far it has come; `ended` says that it was told the last event."""

    def __init__(self, world: "World", log: WatchedLog) -> None:
        self.log = log
        self.seq = world.chance.randint(0, len(log.events))
        self.ended = False
        self._world = world

    async def read(self) -> None:
        """Follows the run to its end, however many processes that takes."""
        world = self._world
        while not self.ended:
            lives = world.lives()
            if lives:
                life = world.chance.choice(lives)
                following = life.process.start(self._follow(life))
                over = asyncio.create_task(life.over.wait())
                await asyncio.wait({following, over}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
                following.cancel()
                world.seen["readers: turns"] += 1
            await asyncio.sleep(0.1)

    async def _follow(self, life: Life) -> None:
        """Follows the run from one process, as a stream does, until that cannot go on."""
        seq = self.seq
        try:
            run = await life.store.run(self.log.run_id)
            assert run is not None
            async with aclosing(life.tails.follow(run, after=seq)) as pages:
                async for page in pages:
                    for number, data in page:
                        self._take(number, data, after=seq)
                        seq = number
                        self.seq = max(seq, self.seq)
        except StoreError:
            return
        head, ended = len(self.log.events), self.log.ended
        self._world.tell(
            lambda: demand(
                ended and seq == head, f"{self.log.run_id}: a reader's last event is {seq} of {head}"
            )
        )
        self.ended = True

    def _take(self, number: int, data: bytes, *, after: int) -> None:
        world, name = self._world, self.log.run_id
        stored = world.disk.connection.execute(
            "SELECT data FROM event WHERE run_no = ? AND seq = ?", (self.log.no, number)
        ).fetchone()
        world.seen["readers: events"] += 1
        world.tell(lambda: demand(number == after + 1, f"{name}: event {number} is told after {after}"))
        world.tell(lambda: demand(stored == (data,), f"{name}: event {number} is told and is not the log's"))


class Readers:
    """All readers of one world: of each run there is one, or some, or none."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._each = world.chance.choice((0, 0, 1, 3))
        self._reading: dict[asyncio.Task[None], Reader] = {}

    def follow(self, log: WatchedLog) -> None:
        """Lets a new run have its readers."""
        for _ in range(self._each):
            reader = Reader(self._world, log)
            self._reading[asyncio.create_task(reader.read())] = reader

    async def close(self) -> None:
        """Returns when all who follow a run that has ended know so. Raises AssertionError after an hour."""
        ends = [task for task, reader in self._reading.items() if reader.log.ended]
        _, late = await asyncio.wait(ends, timeout=3600.0) if ends else (set(), set())
        for task in self._reading:
            task.cancel()
        names = sorted({self._reading[task].log.run_id for task in late})
        demand(not late, f"readers do not hear of the end of {names}")
