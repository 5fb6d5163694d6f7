"""Laws of the log that hold for every flow: checked over generated trees, step by step."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runglass.bus.memory import MemoryBus
from runglass.engine.plan import Plan
from runglass.engine.recorder import Recorder
from runglass.events import StepEvent, decode_event, is_terminal
from runglass.execution import CaptureMode
from runglass.flow import Flow, leaves, parse_flow
from runglass.fold import RunFold, TraceFold, fold
from runglass.store.base import Append, NewRun
from runglass.store.sqlite import SqliteStore
from runglass.trace import TERMINAL, RunSummary, Trace
from tests.fakes import VirtualClock
from tests.flows import flow_trees
from tests.unit.engine.conftest import House, Ran, open_house, read, start

MODES: list[CaptureMode] = ["off", "metadata_only", "redacted", "full"]


class CheckingStore(SqliteStore):
    """After each append, compares what is stored beside the log with the fold of the log so far."""

    compared = 0

    async def append(self, batch: Append) -> None:
        await super().append(batch)
        summary, steps = await self.trace(batch.run_no)
        stored = msgspec.json.decode(b'{"flowRun":%s,"steps":[%s]}' % (summary, b",".join(steps)), type=Trace)
        # Another append may have been committed between the two reads: then its own check decides.
        events = await self.events(batch.run_no, after=0, limit_bytes=1 << 30)
        state = TraceFold()
        for _, data in events:
            state.apply(decode_event(data))
        if (await self.trace(batch.run_no))[0] == summary and len(events) == batch.head + len(batch.events):
            assert state.trace() == stored
            self.compared += 1


async def run(flow: Flow, mode: CaptureMode) -> tuple[Ran, CheckingStore]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_house(CheckingStore(Path(folder) / "db", synchronous="NORMAL")) as house:
            started = await start(house, flow, {"n": 1}, capture=mode)
            async with asyncio.timeout(60):
                outcome = await started.outcome()
            store = house.store
            assert isinstance(store, CheckingStore)
            return await read(house, started.id, outcome), store


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flow=flow_trees(), mode=st.sampled_from(MODES))
def test_the_trace_is_the_fold_of_the_log_after_every_append(flow: Flow, mode: CaptureMode) -> None:
    ran, store = asyncio.run(run(flow, mode))
    assert store.compared >= 1
    assert ran.trace == fold(ran.events)

    assert [event.seq for event in ran.events] == list(range(1, len(ran.events) + 1))
    assert [is_terminal(event) for event in ran.events].count(True) == 1
    assert is_terminal(ran.events[-1])
    assert ran.trace.flow_run.status in TERMINAL
    assert ran.trace.flow_run.status == ran.outcome.status
    assert [event.at for event in ran.events] == sorted(event.at for event in ran.events)

    assert not [step for step in ran.trace.steps if step.status == "running"]
    addresses = [(step.step_id, step.loop_path) for step in ran.trace.steps]
    assert len(addresses) == len(set(addresses))
    assert {step_id for step_id, _ in addresses} <= {leaf.id for leaf in leaves(flow.steps)}
    assert {event.step_id for event in ran.events if isinstance(event, StepEvent)} >= {
        i for i, _ in addresses
    }
    for attempts in ran.attempts.values():
        for path in {step.loop_path for step in attempts}:
            numbers = [step.attempt for step in attempts if step.loop_path == path]
            assert numbers == list(range(1, len(numbers) + 1)), "no attempt is missing or doubled"


@pytest.mark.parametrize("cut", [1, 3, 6, 10, 14])
async def test_a_run_that_its_process_left_behind_is_ended_truthfully(
    house: House, cut: int, tmp_path: Path
) -> None:
    """A log that breaks off after any event is closed at the next start: nothing is left running."""
    flow = parse_flow("""
slug: test
steps:
- {id: a, type: passthrough}
- id: l
  type: loop
  over: '[1, 2]'
  steps: [{id: b, type: code, retry: {max_attempts: 2}, code: 'if attempt == 1: raise ValueError("x")'}]
""")
    started = await start(house, flow)
    whole = await read(house, started.id, await started.outcome())
    kept = whole.events[:cut]

    async with SqliteStore(tmp_path / "other", synchronous="NORMAL") as store:
        run = await replay(store, flow, kept)
    async with open_house(store) as other:
        ended = await read(other, run, whole.outcome)
    assert ended.events[: len(kept)] == kept
    assert ended.types()[-1] == "flow_failed"
    assert ended.trace.flow_run.status == "failed"
    assert ended.trace == fold(ended.events)
    assert not [step for step in ended.trace.steps if step.status == "running"]
    for step in fold(kept).steps:
        if step.status == "running":
            [lost] = [
                other
                for other in ended.trace.steps
                if other.loop_path == step.loop_path and other.step_id == step.step_id
            ]
            assert lost.error_context is not None
            assert lost.error_context["code"] == "WORKER_LOST"
            assert lost.started_at == step.started_at


async def replay(store: SqliteStore, flow_of_run: Flow, events: list[Any]) -> str:
    """Writes the events to a new run as its recorder did, then stops: the process is gone."""
    project = await store.ensure_project("acme", "demo")
    flow = await store.put_draft(project.id, "test", name=None, capture=None, source=b"{}")
    run_id = events[0].execution_id
    plan = Plan(flow=flow_of_run, version=0, inputs={}, capture="full", trigger_type="api")
    summary = RunSummary(id=run_id, flow_id=flow.id, status="pending", trigger_type="api")
    run = await store.create_run(
        NewRun(
            id=run_id,
            project_id=project.id,
            flow_id=flow.id,
            version=0,
            trigger_type="api",
            capture="full",
            session_id=None,
            request=msgspec.json.encode(plan),
            summary=msgspec.json.encode(summary),
        )
    )
    recorder = Recorder(store, MemoryBus(), run, RunFold(summary), VirtualClock())
    for event in events:
        recorder.record(event)
    await recorder.commit()
    return str(run_id)
