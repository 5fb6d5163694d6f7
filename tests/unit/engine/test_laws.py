"""The laws hold for every flow: checked over generated trees, append by append."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runglass.flows.flow import Flow, leaves
from runglass.log.events import StepEvent, is_terminal
from runglass.log.trace import TERMINAL, RunSummary
from runglass.store.records import Append
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.run_api import CaptureMode
from tests.examples import examples
from tests.flows import flow_trees
from tests.laws.law import require
from tests.laws.log import Log
from tests.laws.stored import broken_by, broken_in, read_run
from tests.unit.engine.conftest import Ran, open_harness, read, start

MODES: list[CaptureMode] = ["off", "metadata_only", "redacted", "full"]


class CheckingStore(SqliteStore):
    """After each append, holds what is stored beside the log of its run to the laws."""

    compared = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path, synchronous="NORMAL")
        self._logs: dict[str, Log] = {}
        self._reading = asyncio.Lock()

    async def append(self, batch: Append) -> None:
        await super().append(batch)
        async with self._reading:
            run_id = msgspec.json.decode(batch.summary, type=RunSummary).id
            log = self._logs.setdefault(run_id, Log(run_id))
            stored = await read_run(self, run_id, after=len(log.events))
            require([lie for seq, data in stored.events for lie in log.add(seq, data)])
            require(broken_by(log, stored))
            self.compared += 1


async def run(flow: Flow, mode: CaptureMode) -> tuple[Ran, CheckingStore]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_harness(CheckingStore(Path(folder) / "db")) as house:
            started = await start(house, flow, {"n": 1}, capture=mode)
            async with asyncio.timeout(60):
                outcome = await started.outcome()
            store = house.store
            assert isinstance(store, CheckingStore)
            require(await broken_in(store, "acme", "demo"))
            return await read(house, started.id, outcome), store


@examples(15, of=60)
@given(flow=flow_trees(), mode=st.sampled_from(MODES))
def test_the_laws_hold_after_every_append(flow: Flow, mode: CaptureMode) -> None:
    ran, store = asyncio.run(run(flow, mode))
    assert store.compared >= 1
    assert [is_terminal(event) for event in ran.events].count(True) == 1
    assert ran.trace.flow_run.status in TERMINAL
    assert ran.trace.flow_run.status == ran.outcome.status
    addresses = [(step.step_id, step.loop_path) for step in ran.trace.steps]
    assert len(addresses) == len(set(addresses))
    assert {step_id for step_id, _ in addresses} <= {leaf.id for leaf in leaves(flow.steps)}
    assert {event.step_id for event in ran.events if isinstance(event, StepEvent)} >= {
        i for i, _ in addresses
    }
