"""Laws of the log that hold for every flow: checked over generated trees, step by step."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runglass.flows.flow import Flow, leaves
from runglass.log.events import StepEvent, decode_event, is_terminal
from runglass.log.fold import TraceFold, fold
from runglass.log.trace import TERMINAL, RunSummary, Trace
from runglass.store.records import Append
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.run_api import CaptureMode
from tests.examples import examples
from tests.flows import flow_trees
from tests.records import whole_trace
from tests.unit.engine.conftest import Ran, open_harness, read, start

MODES: list[CaptureMode] = ["off", "metadata_only", "redacted", "full"]


class CheckingStore(SqliteStore):
    """After each append, compares what is stored beside the log with the fold of the log so far."""

    compared = 0

    async def append(self, batch: Append) -> None:
        await super().append(batch)
        run_id = msgspec.json.decode(batch.summary, type=RunSummary).id
        summary, steps = await whole_trace(self, run_id)
        stored = msgspec.json.decode(b'{"flowRun":%s,"steps":[%s]}' % (summary, b",".join(steps)), type=Trace)
        # Another append may have been committed between the two reads: then its own check decides.
        events = await self.events(batch.run_no, after=0, limit_bytes=1 << 30)
        state = TraceFold()
        for _, data in events:
            state.apply(decode_event(data))
        if (await whole_trace(self, run_id))[0] == summary and len(events) == batch.head + len(batch.events):
            assert state.trace() == stored
            self.compared += 1


async def run(flow: Flow, mode: CaptureMode) -> tuple[Ran, CheckingStore]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_harness(CheckingStore(Path(folder) / "db", synchronous="NORMAL")) as house:
            started = await start(house, flow, {"n": 1}, capture=mode)
            async with asyncio.timeout(60):
                outcome = await started.outcome()
            store = house.store
            assert isinstance(store, CheckingStore)
            return await read(house, started.id, outcome), store


@examples(15, of=60)
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
