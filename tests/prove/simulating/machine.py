"""A machine of the simulation, and the processes that live and die on it, one after another."""

import asyncio
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

from runglass.config.settings import Settings
from runglass.engine.capture.capture import Capture, Redactor
from runglass.engine.engine import Engine
from runglass.engine.steps.run_context import StepDependencies
from runglass.errors import StoreError
from runglass.limits.limits import Limits
from runglass.log.fold import Address
from runglass.tails.run_log import Tails
from tests.fakes import LEASE_S
from tests.prove.simulating.disk import Inline, Store
from tests.prove.simulating.flows import SimulatedModels, SimulatedSandbox, SimulatedTemplates
from tests.prove.simulating.virtual import Clock, Process

if TYPE_CHECKING:
    from tests.prove.simulating.world import World


TAIL_POLL_S = 5.0
LONGEST_SLEEP_S = 4 * LEASE_S
CAPTURE = partial(Capture, limit_bytes=2048, redactor=Redactor())


class Life:
    """A process with an engine, from its start to its end; `over` is set when it has ended, in any way."""

    def __init__(self, world: "World", name: str, *, executes: bool) -> None:
        self.process = Process(name)
        self._executes = executes
        self.clock = Clock(world.loop)
        self.over = asyncio.Event()
        self.engine: Engine
        self.takes_calls = False
        self.died = False
        self._linger_s: float | None = None
        self._world = world
        self._stop: asyncio.Future[float] = world.loop.create_future()
        chance = world.chance
        mean = None if world.calm else world.commits_to_death
        self.connections = Inline(
            world.disk,
            self.process,
            dies_in=None if mean is None else 1 + int(chance.expovariate(1 / mean)),
            dies_before=chance.random() < 0.5,
            die=self._die_in_commit,
        )
        self.store = Store(self.connections)
        self.bus = world.wires.bus()
        self.tails = Tails(self.store, self.bus, poll_s=TAIL_POLL_S)
        self._main = self.process.start(self._work())
        self._main.add_done_callback(self._end)

    def die(self) -> None:
        """As by SIGKILL."""
        self.died = True
        self.process.halt()
        self.over.set()

    def stop(self, grace_s: float) -> None:
        """As by SIGTERM."""
        if not self._stop.done():
            self._stop.set_result(grace_s)

    def sleep(self, seconds: float) -> None:
        """As by SIGSTOP, and SIGCONT after a while."""
        self.process.halt()
        self._world.loop.call_later(seconds, self.wake)

    def sleep_until_takeover(self, linger_s: float) -> None:
        """As by SIGSTOP, and SIGCONT so long after another process has got one of its runs."""
        self.process.halt()
        self._linger_s = linger_s
        self._world.loop.call_later(LONGEST_SLEEP_S, self.wake)

    def lose_run(self) -> None:
        if self._linger_s is not None:
            # Not in the process that has got the run, which may be halted meanwhile.
            self._world.loop.call_later(self._linger_s, self.wake, context=Context())
            self._linger_s = None

    def wake(self) -> None:
        if not self.died:
            self.process.go_on()

    def bury(self) -> None:
        self.over.set()
        self.connections.sever()
        self.process.go_on()

    def _die_in_commit(self) -> None:
        self._world.seen["trouble: crashes in a commit"] += 1
        self.die()

    async def _work(self) -> None:
        world, chance = self._world, self._world.chance

        def effect(label: str, address: Address) -> None:
            try:
                world.laws.effect(label, address, self.process)
            except AssertionError as lie:
                # Of this world, and nobody else's business.
                world.fail(lie)

        async with self.store:
            if world.alone:
                # As a server does that has its data for itself.
                await self.store.end_lease(None)
            dependencies = StepDependencies(
                sandbox=SimulatedSandbox(chance, effect),
                templates=SimulatedTemplates(),
                models=SimulatedModels(chance),
                clock=self.clock,
            )
            async with Engine(
                store=self.store,
                bus=self.bus,
                dependencies=dependencies,
                make_capture=CAPTURE,
                limits=Limits(
                    Settings(
                        max_concurrent_runs=chance.choice((1, 2, 1000)),
                        max_concurrent_runs_per_project=world.limits.of_project or None,
                        max_concurrent_runs_per_flow=dict(world.limits.of_flows),
                        executes_runs=self._executes,
                        memory_limit_bytes=world.limits.memory_bytes,
                        run_memory_bytes=world.limits.memory_bytes // 2,
                    )
                ),
            ) as engine:
                keeping = asyncio.create_task(self._keep(engine))
                self.engine, self.takes_calls = engine, True
                grace_s = await self._stop
                await engine.stop(grace_s=grace_s)
                keeping.cancel()
                await asyncio.wait({keeping})

    async def _keep(self, engine: Engine) -> None:
        if not self._executes:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.claims.run_forever())
            group.create_task(engine.idle.watch_cancel_requests())
            if self._world.limits.are_of_runs:
                # What others have ended makes room, of which no wake-up tells.
                group.create_task(engine.claims.watch_work())

    def _end(self, main: "asyncio.Task[None]") -> None:
        if self.over.is_set():
            return
        # What else goes on in a process that ends, as calls do, ends with it.
        self.die()
        error = main.exception()
        if error is not None and not isinstance(error, StoreError):
            raise error


class Machine:
    """Starts a process whenever there is none; in some worlds one that only takes calls."""

    def __init__(self, world: "World", number: int) -> None:
        self.life: Life | None = None
        self.past: list[Life] = []
        self._world = world
        self._name = f"machine {number}"
        self._executes = number == 0 or world.chance.random() < 0.8

    async def work(self) -> None:
        world = self._world
        while not world.closing:
            self.life = Life(world, f"{self._name}, life {len(self.past) + 1}", executes=self._executes)
            self.past.append(self.life)
            await self.life.over.wait()
            world.wires.unplug(self.life.bus)
            if not world.closing:
                await asyncio.sleep(world.chance.choice((0.1, 1.0, 1.0, 15.0)))

    async def close(self) -> None:
        if self.life is not None and not self.life.over.is_set():
            self.life.stop(0.0)
            await self.life.over.wait()
