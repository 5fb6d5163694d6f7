"""Who starts runs in the simulation, takes them up again, and cancels them; and what they were told.

Each call goes to some process and lives there: it dies with it, as a request does.
"""

import asyncio
from typing import TYPE_CHECKING

from runglass.engine.journal.run_spec import RunSpec, Segment, ToolOffer
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.task import RunReleased
from runglass.errors import APIError, StoreError
from runglass.log.events import event_type_of
from runglass.wire.run_api import CaptureMode
from tests.prove.simulating.flows import make_asking_flow, make_flow
from tests.prove.simulating.machine import Life
from tests.records import there

if TYPE_CHECKING:
    from tests.prove.simulating.world import World

MODES: tuple[CaptureMode, ...] = ("off", "metadata_only", "redacted", "full")
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look", "find")]
TOGETHER = 4
"""So many runs begin at the same moment in a crowded world."""
REFUSALS = frozenset({"RUN_NOT_PAUSED", "UNAVAILABLE"})
ONCE_RESUMED = "INTERNAL_ERROR"
"""The store failed once the next segment of a run was in it: the run goes on."""


class Callers:
    def __init__(self, world: "World") -> None:
        self.left_paused: set[str] = set()
        self._world = world
        self._runs = world.chance.randint(1, world.limits.most_started)
        self._labels = 0
        self._all_started = False
        self._started: set[str] = set()
        self._cancelled: dict[str, tuple[Life, int]] = {}
        self._impatience = world.chance.choice((0.0, 0.0, 0.1, 0.5))
        self._leaves = world.chance.choice((0.0, 0.0, 0.1))

    async def work(self) -> None:
        """Starts some runs, and looks after them until each has ended or is left paused."""
        world = self._world
        together = TOGETHER if world.limits.is_crowded else 1
        starts = sorted(world.chance.uniform(0, world.wild_s * 0.7) for _ in range(self._runs))
        looking = asyncio.create_task(self._look_after())
        async with asyncio.TaskGroup() as starting:
            for at_s in starts:
                await asyncio.sleep(max(0.0, at_s - world.loop.time()))
                starts_here = [starting.create_task(self._start()) for _ in range(together)]
                await asyncio.wait(starts_here)
        self._all_started = True
        await looking

    async def _start(self) -> None:
        world, chance = self._world, self._world.chance
        if world.limits.is_crowded:
            flow = make_asking_flow(chance)
        else:
            flow = make_flow(chance, large=world.limits.are_of_memory)
        last = chance.choice((None, None, 0, len(flow.steps) - 1))
        offer = ToolOffer(tools=TOOLS) if chance.random() < 0.4 else None
        segment = Segment(last=last, offer=offer, answers_call=chance.random() < 0.3)
        capture = chance.choice(MODES)
        while True:
            lives = world.lives()
            if not lives:
                await asyncio.sleep(0.5)
                continue
            self._labels += 1
            label = f"r{self._labels}"
            inputs = {"run": label}
            spec = RunSpec(flow=flow, version=0, inputs=inputs, capture=capture, trigger_type="api")
            life = chance.choice(lives)
            done = life.process.start(self._call(life, spec, segment))
            await asyncio.wait({done}, timeout=5.0)
            log = world.laws.named(label)
            if log is not None:
                world.readers.follow(log)
                return
            await asyncio.sleep(0.1)

    async def _call(self, life: Life, spec: RunSpec, segment: Segment) -> None:
        try:
            engine, flow = life.engine, self._world.flow_to_run()
            started = await engine.start(flow, spec, segment, run_id=engine.ids.next())
        except APIError as error:
            self._world.demand(error.code in REFUSALS, f"a run is refused: {error.code}")
            return
        except StoreError:
            return
        self._started.add(started.id)
        await self._outcome(life, started)

    async def _outcome(self, life: Life, started: StartedRun) -> None:
        """Waits for the end of a segment; what is told of it must be so in the store."""
        world = self._world
        try:
            outcome = await started.outcome()
        except (RunReleased, StoreError):
            world.seen["callers: told that it goes on elsewhere"] += 1
            return
        log = there(world.laws.of(started.id))
        told = f"{log.run_id} was told to be {outcome.status}"
        world.demand(len(log.events) > started.head, f"{told} without an event")
        if outcome.status == "paused":
            has_paused = any("paused" in event_type_of(data) for data in log.events)
            world.demand(has_paused, f"{told}, and never was")
        else:
            world.demand(log.status == outcome.status, f"{told}, and is {log.status}")
        if self._cancelled.get(log.run_id) == (life, log.fence):
            world.demand(outcome.status == "cancelled", f"{told} after it was cancelled")

    async def _look_after(self) -> None:
        world, chance = self._world, self._world.chance
        while not (world.calm and self._all_started and self._all_rest()):
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            lives = world.lives()
            for log in list(world.laws.logs.values()):
                if log.ended or not lives or log.run_id in self.left_paused:
                    continue
                life = chance.choice(lives)
                if not world.calm and chance.random() < self._impatience * 0.2:
                    life.process.start(self._cancel(life, log.run_id))
                elif log.status == "paused" and chance.random() < 0.5:
                    if world.calm and chance.random() < self._leaves:
                        self.left_paused.add(log.run_id)
                        continue
                    for _ in range(chance.choice((1, 1, 2, 3))):
                        life = chance.choice(lives)
                        life.process.start(self._resume(life, log.run_id))

    def _all_rest(self) -> bool:
        logs = self._world.laws.logs.values()
        return all(log.ended or (log.status == "paused" and log.run_id in self.left_paused) for log in logs)

    async def _resume(self, life: Life, run_id: str) -> None:
        world, chance = self._world, self._world.chance
        try:
            run = there(await life.store.run(run_id))
            paused = await life.engine.idle.paused(run)
            cursor, tool_loop = paused.pause.cursor, paused.pause.tool_loop
            first, results = cursor, []
            if tool_loop is not None:
                results = [
                    {"role": "tool", "toolCallId": call["id"], "content": "found"} for call in tool_loop.calls
                ]
            elif chance.random() < 0.3:
                first = chance.randint(0, cursor)
            segment = Segment(
                first=first,
                last=chance.choice((None, first)),
                offer=ToolOffer(tools=TOOLS) if chance.random() < 0.3 else None,
                results=results,
            )
            started = await life.engine.resume(paused, paused.spec, segment)
        except APIError as error:
            may_be = error.code in REFUSALS or error.code == ONCE_RESUMED
            world.demand(may_be, f"{run_id} cannot be taken up: {error.code}")
            return
        except StoreError:
            return
        world.seen["callers: resumed"] += 1
        await self._outcome(life, started)

    async def _cancel(self, life: Life, run_id: str) -> None:
        world = self._world
        try:
            run = there(await life.store.run(run_id))
            if run.ended:
                return
            if life.engine.active.cancel(run_id, reason="the seed"):
                world.seen["callers: cancelled"] += 1
                log = world.laws.of(run_id)
                # Of a run that goes on elsewhere, without its knowledge, it can say nothing.
                if log is not None and log.holder is life.process:
                    self._cancelled[run_id] = (life, log.fence)
            elif await life.engine.idle.cancel(run, reason="the seed"):
                world.seen["callers: cancelled while paused"] += 1
                log = there(world.laws.of(run_id))
                world.demand(log.status == "cancelled", f"{run_id} was cancelled and is {log.status}")
            elif await life.engine.idle.request_cancel(run_id, reason="the seed"):
                world.seen["callers: cancelled at another process"] += 1
        except StoreError:
            return

    def check(self) -> None:
        """At the end: what was acknowledged is so. Raises AssertionError."""
        world, laws = self._world, self._world.laws
        for run_id in sorted(self._started):
            assert laws.of(run_id), f"{run_id} was started, and is not in the store"
        for run_id, (life, _) in self._cancelled.items():
            log = laws.of(run_id)
            # Only the process knows of it until the run has ended, and may take that to its grave.
            if world.alone and life is world.machines[0].life and log is not None:
                assert log.status == "cancelled", f"{run_id} was cancelled and is {log.status}"
