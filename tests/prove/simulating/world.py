"""One seed of the simulation: machines that die and come back, callers, a disk that fails, one store.

For a while everything may happen, and whatever happens is drawn from the seed. Then the world is calm, and
every run must come to its end, or to a pause that nobody ends, in bounded time.
"""

import asyncio
from collections import Counter
from contextlib import aclosing
from contextvars import Context
from decimal import Decimal
from functools import partial
from random import Random

from runglass.bus.base import Bus
from runglass.errors import StoreError
from runglass.store.records import FlowRecord
from tests.prove.simulating.callers import Callers
from tests.prove.simulating.disk import Disk, Fault, Inline, LookedAt, Mood, Store
from tests.prove.simulating.flows import make_flow
from tests.prove.simulating.laws import Laws, WatchedLog
from tests.prove.simulating.limits import BUDGET_USD, PROJECTS, SLUGS, Limits, make_limits
from tests.prove.simulating.machine import Life, Machine
from tests.prove.simulating.virtual import Process, VirtualLoop

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
        what = f"{self.log.run_id}: a reader's last event is {seq} of {head}"
        self._world.demand(ended and seq == head, what)
        self.ended = True

    def _take(self, number: int, data: bytes, *, after: int) -> None:
        world, name = self._world, self.log.run_id
        stored = world.disk.connection.execute(
            "SELECT data FROM event WHERE run_no = ? AND seq = ?", (self.log.no, number)
        ).fetchone()
        world.seen["readers: events"] += 1
        world.demand(number == after + 1, f"{name}: event {number} is told after {after}")
        world.demand(stored == (data,), f"{name}: event {number} is told and is not the log's")


class Readers:
    """All readers of one world: of each run there is one, or some, or none."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._each = world.chance.choice((0, 0, 1, 3))
        self._reading: dict[asyncio.Task[None], Reader] = {}

    def follow(self, log: WatchedLog) -> None:
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
        assert not late, f"readers do not hear of the end of {names}"


LATE_S = (0.001, 0.3, 5.0, 60.0)


class Wires:
    """What all processes of a world are connected by; `share` of the wake-ups between them goes wrong."""

    def __init__(self, loop: VirtualLoop, chance: Random, seen: Counter[str]) -> None:
        self.share = chance.choice((0.0, 0.1, 0.5, 1.0))
        self._loop = loop
        self._chance = chance
        self._seen = seen
        self._buses: list[ProcessBus] = []

    def bus(self) -> "ProcessBus":
        bus = ProcessBus(self)
        self._buses.append(bus)
        return bus

    def unplug(self, bus: "ProcessBus") -> None:
        self._buses.remove(bus)

    def carry(self, subject: str, sender: "ProcessBus") -> None:
        """Brings a wake-up to all other processes, in its own way to each."""
        for bus in self._buses:
            if bus is sender:
                continue
            wakes = partial(bus.wake_here, subject)
            delays: tuple[float, ...] = (0.0,)
            if self._chance.random() < self.share:
                what = self._chance.choice(("lost", "late", "repeated"))
                self._seen[f"wake-ups: {what}"] += 1
                late_s = self._chance.choice(LATE_S)
                delays = {"lost": (), "late": (late_s,), "repeated": (0.0, late_s)}[what]
            for delay_s in delays:
                # In no process: what is on its way is not stopped with its sender.
                self._loop.call_later(delay_s, wakes, context=Context())


class ProcessBus(Bus):
    """The bus as one process has it."""

    def __init__(self, wires: Wires) -> None:
        super().__init__()
        self._wires = wires

    async def wake(self, subject: str) -> None:
        await super().wake(subject)
        self._wires.carry(subject, self)


CALM_S = 3600.0
"""How long runs may take once nothing happens to them any more; the longest flow takes some minutes."""
RAISES_PER_MINUTE = 10.0
CRASHES_PER_MINUTE = 60.0
NAPS_SHARE, NAPS_PER_MINUTE = 0.1, 20.0
MOODS: tuple[Mood, ...] = ("full", "full", "tight", "gone", "moody", "mute")


class World:
    """Everything of one seed, and what happened in it, counted by name in `seen`.

    Its store has the `fault`, if any. `engines` is how many there are, and `limits` those that they share,
    where the seed does not decide that; with `naps` they often sleep until others have their runs, and with
    `crashes` they only die, and often.
    """

    def __init__(
        self,
        seed: int,
        loop: VirtualLoop,
        *,
        fault: Fault | None = None,
        engines: int | None = None,
        naps: bool = False,
        crashes: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.chance = Random(seed)
        self.loop = loop
        self.seen: Counter[str] = Counter()
        count = engines or self.chance.choice((1, 2, 2, 3))
        self.limits = limits or make_limits(seed)
        self.laws = Laws(self.limits)
        self.disk = Disk(self.chance, self.laws.watch, fault)
        # Between the decision about a part of a budget and its event others then decide as well.
        self.disk.appends_slowly = self.limits.is_crowded
        self.laws.store = LookedAt(self.disk.connection)
        self.laws.on_takeover = self._tell_loser
        self.lie: asyncio.Future[None] = loop.create_future()
        self.calm = False
        self.closing = False
        self.wires = Wires(loop, self.chance, self.seen)
        self.machines = [Machine(self, number) for number in range(count)]
        self.callers = Callers(self)
        self.readers = Readers(self)
        self.wild_s = self.chance.choice((10.0, 30.0, 90.0))
        # Each seed has its own kind of weather: how often what happens, in events a minute.
        self._weather = {
            name: self.chance.choice((0.0, 0.0, 2.0, 10.0))
            for name in ("crash", "stop", "sleep", "disk", "clock", "budget")
        }
        if self.limits.is_crowded:
            self._weather["budget"] = RAISES_PER_MINUTE
        if crashes:
            self._weather = {"crash": CRASHES_PER_MINUTE}
        self.laws.is_timed = not self._weather.get("clock") and not self._weather.get("sleep")
        self._flows: list[FlowRecord] = []
        self._naps = naps or (not crashes and self.chance.random() < NAPS_SHARE)
        if self._naps:
            self._weather["sleep"] = NAPS_PER_MINUTE
            self.laws.is_timed = False
        self.commits_to_death = self.chance.choice((None, 5, 15, 40))

    @property
    def alone(self) -> bool:
        return len(self.machines) == 1

    def lives(self) -> list[Life]:
        """The processes that take calls, or would if they were not stopped."""
        return [
            machine.life
            for machine in self.machines
            if machine.life and machine.life.takes_calls and not machine.life.over.is_set()
        ]

    async def run(self) -> Counter[str]:
        """Lets the world go on until it has come to its end. Raises AssertionError for a lie."""
        going = asyncio.create_task(self._go_on())
        await asyncio.wait({going, self.lie}, return_when=asyncio.FIRST_COMPLETED)
        if self.lie.done():
            self.lie.result()
        going.result()
        self.seen[f"engines: worlds with {len(self.machines)}"] += 1
        self.seen["virtual seconds"] = round(self.loop.time())
        self.seen["events"] = sum(len(log.events) for log in self.laws.logs.values())
        self.seen["commits"] = self.disk.commits
        if self.limits.are_of_runs:
            self.seen["engines: worlds with limits"] += 1
            self.seen[f"engines: worlds with limits, and at most {self.laws.most_at_once} runs at once"] += 1
        if self.limits.are_of_memory:
            self.seen["memory: worlds with large outputs"] += 1
            self.seen["memory: outputs read back"] = self.disk.read_back
            self.seen["memory: steps without room"] = self.laws.without_room()
        self.seen["trouble: late effects"] = self.laws.late_effects
        for log in self.laws.logs.values():
            self.seen[f"runs: {log.status}"] += 1
        return self.seen

    async def _go_on(self) -> None:
        await self._prepare()
        beside = [asyncio.create_task(machine.work()) for machine in self.machines]
        calling = asyncio.create_task(self.callers.work())
        weather = [
            asyncio.create_task(self._happen(name, often)) for name, often in self._weather.items() if often
        ]
        await asyncio.sleep(self.wild_s)
        for task in weather:
            task.cancel()
        self.disk.mood = "well"
        self.calm = True
        for machine in self.machines:
            if machine.life is not None:
                machine.life.connections.spare()
                machine.life.wake()
        try:
            async with asyncio.timeout(CALM_S):
                await calling
        except TimeoutError:
            open_runs = {log.run_id: log.status for log in self.laws.logs.values() if not log.ended}
            raise AssertionError(f"{CALM_S} s after the last trouble there still are {open_runs}") from None
        await self.readers.close()
        # Time enough for each engine to find out that it has nothing left to do.
        await asyncio.sleep(60.0)
        for life in self.lives():
            held = life.engine.limits.memory.held
            assert not held, f"{life.process.name} holds {held} bytes, and nothing goes on"
            ended = [log.run_id for log in self.laws.logs.values() if log.ended]
            goes_on = [run_id for run_id in ended if life.engine.active.is_active(run_id)]
            assert not goes_on, f"{life.process.name} still goes on with {goes_on}"
            orphaned = len(life.engine.active.orphaned)
            assert not orphaned, f"{life.process.name} waits for {orphaned} runs that it may own"
        self.closing = True
        for machine in self.machines:
            await machine.close()
        for task in beside:
            await task
        self.laws.check_all()
        self.callers.check()

    async def _prepare(self) -> None:
        outside = Process("outside")
        connections = Inline(self.disk, outside, dies_in=None, dies_before=False, die=lambda: None)
        async with Store(connections) as store:
            source = make_flow(Random(0)).encode()
            for name in PROJECTS if self.limits.are_of_runs else PROJECTS[:1]:
                project = await store.ensure_project("acme", name)
                await store.set_budget(project.id, self.limits.budget_usd)
                for slug in SLUGS if self.limits.are_of_runs else SLUGS[:1]:
                    self._flows.append(
                        await store.put_draft(project.id, slug, name=None, capture=None, source=source)
                    )

    def flow_to_run(self) -> FlowRecord:
        if len(self._flows) == 1 or self.chance.random() < 0.5:
            return self._flows[0]
        return self.chance.choice(self._flows)

    async def _happen(self, name: str, often: float) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(often / 60))
            lives = [life for life in self.lives() if not life.process.halted]
            if name == "budget":
                self.seen["callers: budgets raised"] += 1
                (budget,) = self.disk.connection.execute("SELECT budget_usd FROM project").fetchone()
                if budget is not None:
                    raised = str(Decimal(budget) + BUDGET_USD)
                    self.disk.connection.execute("UPDATE project SET budget_usd = ?", (raised,))
            elif name == "disk":
                self.seen["trouble: failing disks"] += 1
                self.disk.mood = self.chance.choice(MOODS)
                await asyncio.sleep(self.chance.choice((0.2, 3.0, 20.0)))
                self.disk.mood = "well"
            elif lives:
                life = self.chance.choice(lives)
                match name:
                    case "crash":
                        self.seen["trouble: crashes"] += 1
                        life.die()
                    case "stop":
                        self.seen["trouble: stops"] += 1
                        life.stop(self.chance.choice((0.0, 0.5, 10.0)))
                    case "sleep":
                        self.seen["trouble: sleeping processes"] += 1
                        seconds = self.chance.choice((0.5, 12.0, 15.0, 30.0, None))
                        if seconds is None or self._naps:
                            # The worst moment to go on: what it was about to write is as new as can be.
                            life.sleep_until_takeover(self.chance.choice((0.0, 0.0, 0.001, 0.02)))
                        else:
                            life.sleep(seconds)
                    case "clock":
                        self.seen["trouble: jumping clocks"] += 1
                        # An hour may cost two machines an hour, as long as a lease then seems to last.
                        far_s = -3600.0 if self.alone else -60.0
                        life.clock.ahead_s += self.chance.choice((far_s, -5.0, -0.01, 5.0, 60.0))

    def _tell_loser(self, process: Process) -> None:
        for life in self.lives():
            if life.process is process:
                life.lose_run()

    def demand(self, holds: object, message: str) -> None:
        """Makes a lie of this world of what does not hold; whoever has seen it goes on."""
        if not holds:
            self.fail(AssertionError(message))

    def fail(self, lie: AssertionError) -> None:
        if not self.lie.done():
            self.lie.set_exception(lie)
