"""An engine on a real store, with a clock of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from runglass.bus.base import Bus
from runglass.config.settings import Settings
from runglass.engine.capture.capture import Capture, Redactor
from runglass.engine.engine import Engine
from runglass.engine.journal.run_spec import RunSpec, Segment, ToolOffer
from runglass.engine.maintenance.maintenance import Maintenance
from runglass.engine.models.gateway import ModelGateway
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.task import RunOutcome
from runglass.engine.steps.run_context import StepDependencies
from runglass.engine.workers.sandbox import Sandbox
from runglass.engine.workers.templates import Templates
from runglass.flows.flow import Flow
from runglass.flows.parser import parse_flow
from runglass.limits.limits import Limits
from runglass.log.events import StreamEvent, decode_event
from runglass.log.trace import ModelCall, RunTotals, StepTrace, Trace
from runglass.store.records import Project, RunRecord
from runglass.store.sqlite.store import SqliteStore
from runglass.tails.run_log import Tails
from runglass.wire.run_api import CaptureFailed, CaptureMode
from tests.fakes import CRASH_RETRIES, VirtualClock
from tests.laws.stored import kept_run
from tests.records import there

ROOMY: dict[str, Any] = {"max_concurrent_runs": 1000, "max_queued_runs": 1000}
NO_OUTCOME = RunOutcome("")
"""Of a run whose caller was told nothing."""


class Ran(NamedTuple):
    """A run that has ended: what its caller got, its events and its trace."""

    id: str
    outcome: RunOutcome
    events: list[StreamEvent]
    trace: Trace
    attempts: dict[str, list[StepTrace]]

    @property
    def result(self) -> Any:
        return msgspec.json.decode(self.outcome.result_json)

    @property
    def error(self) -> dict[str, Any]:
        return there(self.outcome.error)

    @property
    def totals(self) -> RunTotals:
        return there(self.trace.flow_run.totals)

    @property
    def calls(self) -> list[ModelCall]:
        """Those of every attempt."""
        return [call for attempts in self.attempts.values() for each in attempts for call in each.model_calls]

    def types(self) -> list[str]:
        return [event.event_type for event in self.events]

    def steps(self) -> list[tuple[str, tuple[int, ...] | None, int, str]]:
        return [(step.step_id, step.loop_path, step.attempt, step.status) for step in self.trace.steps]

    def step(self, step_id: str, path: tuple[int, ...] | None = None) -> StepTrace:
        return next(step for step in self.trace.steps if (step.step_id, step.loop_path) == (step_id, path))


Execute = Callable[..., Awaitable[Ran]]
"""What the fixture `execute` gives: it runs a flow to its end."""


class EngineHarness(NamedTuple):
    """An engine with its store, bus and clock."""

    store: SqliteStore
    bus: Bus
    engine: Engine
    clock: VirtualClock

    async def start(
        self,
        flow: Flow | str,
        inputs: dict[str, Any] | None = None,
        *,
        capture: CaptureMode = "full",
        capture_failed: CaptureFailed = "off",
        segment: Segment | None = None,
        **more: Any,
    ) -> StartedRun:
        """Starts a run of the flow, a struct or the `steps` of a file, and returns the engine's handle.

        What there is `more` is for the run's spec.
        """
        if isinstance(flow, str):
            flow = parse_flow(f"slug: test\nsteps:\n{flow}")
        project = await self.project()
        record = await self.store.put_draft(
            project.id, flow.slug, name=None, capture=None, source=flow.encode()
        )
        spec = RunSpec(
            flow=flow,
            version=0,
            inputs=inputs or {},
            capture=capture,
            capture_failed=capture_failed,
            trigger_type="api",
            **more,
        )
        return await self.engine.start(record, spec, segment, run_id=self.engine.ids.next())

    async def start_paused(
        self, flow: Flow | str, inputs: dict[str, Any] | None = None, *, last: int = 0
    ) -> StartedRun:
        """A run of the flow that has paused behind its step number `last`."""
        started = await self.start(flow, inputs, segment=Segment(last=last))
        assert (await started.outcome()).status == "paused"
        return started

    async def run_to_end(
        self,
        flow: Flow | str,
        inputs: dict[str, Any] | None = None,
        *,
        offer: ToolOffer | None = None,
        **more: Any,
    ) -> Ran:
        """Runs a flow to its end, with a result for each call of a tool, and reads everything about it."""
        started = await self.start(flow, inputs, segment=Segment(offer=offer), **more)
        outcome = await started.outcome()
        while outcome.pause is not None:
            tool_loop = there(outcome.pause.tool_loop)
            results = [{"role": "tool", "toolCallId": call["id"], "content": "7"} for call in tool_loop.calls]
            segment = Segment(first=outcome.pause.cursor, results=results, offer=tool_loop.offer)
            outcome = await (await self.resume(started.id, segment)).outcome()
        return await self.read(started.id, outcome)

    async def resume(self, run_id: str, segment: Segment) -> StartedRun:
        paused = await self.engine.idle.paused(await self.run_of(run_id))
        return await self.engine.resume(paused, paused.spec, segment)

    async def run_of(self, run_id: str) -> RunRecord:
        return there(await self.store.run(run_id))

    async def stored_events(self, run: RunRecord) -> list[bytes]:
        return [data for _, data in await self.store.events(run.no, after=0, limit_bytes=1 << 30)]

    async def project(self) -> Project:
        return await self.store.ensure_project("acme", "demo")

    async def set_budget(self, usd: Decimal | int | None) -> None:
        project = await self.project()
        await self.store.set_budget(project.id, None if usd is None else Decimal(usd))

    def maintenance(self, *, pause_limit_h: float = 24.0) -> Maintenance:
        settings = Settings(pause_limit_h=pause_limit_h)
        return Maintenance(store=self.store, engine=self.engine, clock=self.clock, settings=settings)

    async def follow(self, run_id: str, *, until: int | None = None) -> None:
        """Returns when the run has that many events, or has ended."""
        run = await self.run_of(run_id)
        tails = Tails(self.store, self.bus, poll_s=0.01)
        async with aclosing(tails.follow(run)) as pages:
            async for page in pages:
                if until is not None and page and page[-1][0] >= until:
                    return

    async def read(self, run_id: str, outcome: RunOutcome = NO_OUTCOME) -> Ran:
        """Everything about the run. Raises AssertionError where it does not keep the laws of all runs."""
        log = await kept_run(self.store, run_id)
        attempts: dict[str, list[StepTrace]] = {}
        for row in log.attempt_rows:
            attempts.setdefault(row.step_id, []).append(msgspec.json.decode(row.data, type=StepTrace))
        return Ran(run_id, outcome, list(map(decode_event, log.events)), log.fold.trace(), attempts)

    async def read_at_end(self, run_id: str) -> Ran:
        """Waits for the end of a run, and reads everything about it."""
        await self.follow(run_id)
        return await self.read(run_id)


@asynccontextmanager
async def open_harness(
    store: SqliteStore | Path,
    *,
    clock: VirtualClock | None = None,
    models: ModelGateway | None = None,
    beside: EngineHarness | None = None,
    poll_s: float = 9_999,
    **settings: Any,
) -> AsyncIterator[EngineHarness]:
    """An engine on this store or file, which is opened here; `models` stand in for the real ones.

    With `beside` it has the store, the bus and the clock of another. Lost wake-ups are found after `poll_s`.
    Further `settings` are those of its limits.
    """
    if isinstance(store, Path):
        store = SqliteStore(store, synchronous="NORMAL")
    clock = beside.clock if beside else clock or VirtualClock()
    async with AsyncExitStack() as opened:
        if beside is None:
            await opened.enter_async_context(store)
        sandbox = await opened.enter_async_context(Sandbox(Settings(code_time_limit_ms=60_000)))
        templates = await opened.enter_async_context(Templates())
        models = await opened.enter_async_context(models or ModelGateway())
        dependencies = StepDependencies(sandbox=sandbox, templates=templates, models=models, clock=clock)
        bus = beside.bus if beside else Bus()
        engine = Engine(
            store=store,
            bus=bus,
            dependencies=dependencies,
            make_capture=partial(Capture, limit_bytes=4096, redactor=Redactor()),
            limits=Limits(Settings(**ROOMY | settings)),
            poll_s=poll_s,
        )
        yield EngineHarness(store, bus, await opened.enter_async_context(engine), clock)


@asynccontextmanager
async def next_life(store: SqliteStore | Path, **settings: Any) -> AsyncIterator[EngineHarness]:
    """An engine in a process of its own, started after the one before it died."""
    path = store if isinstance(store, Path) else store.connections.path
    async with SqliteStore(path, synchronous="NORMAL") as first:
        await first.end_lease(None)
    async with open_harness(store, **settings) as house:
        yield house


async def take_over_in_vain(path: Path) -> None:
    """One process after the other claims the run and dies, as often as is tried, with no event in its log."""
    async with SqliteStore(path, synchronous="NORMAL") as store:
        for life in range(CRASH_RETRIES + 1):
            await store.end_lease(None)
            await store.claim_runs(f"life {life}", now="2026", limit=1)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[EngineHarness]:
    async with open_harness(tmp_path / "db") as house:
        yield house


async def end_in_next_life(path: Path, run_id: str, **settings: Any) -> Ran:
    """The run, once a process that starts after its own died has brought it to its end."""
    async with next_life(path, **settings) as house:
        return await house.read_at_end(run_id)


@pytest.fixture
def execute(house: EngineHarness) -> Execute:
    return house.run_to_end
