"""The laws hold for every flow: checked over generated trees, append by append."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
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
from tests.prove.simulate import simulate
from tests.prove.simulating.disk import Fault
from tests.prove.simulating.limits import BUDGET_USD, Limits
from tests.prove.simulating.seed import live
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


SEEDS = 30
"""`make prove` lives through 2,000."""


def test_the_laws_hold_in_every_world() -> None:
    report = simulate(seeds=SEEDS)
    assert report[0].startswith(f"simulate, seeds 0 to {SEEDS - 1}")
    assert report[0].endswith("no lie")


def test_a_seed_is_replayed_exactly() -> None:
    assert [live(seed) for seed in range(5)] == [live(seed) for seed in range(5)]


@pytest.mark.parametrize("fault", ["checkpoints that are lost", "steps that are not stored"])
def test_a_store_that_does_not_keep_its_word_is_found_out(fault: Fault) -> None:
    with pytest.raises(AssertionError):
        [live(seed, fault=fault) for seed in range(20)]


@pytest.mark.parametrize(
    ("fault", "limits", "lie"),
    [
        (
            "budgets that each process counts alone",
            Limits(budget_usd=BUDGET_USD, is_crowded=True),
            "dollars of .* are spent or held",
        ),
        ("claims that are not limited", Limits(of_project=1), "runs of .* go on at once, and 1 may"),
    ],
)
def test_a_limit_over_all_processes_that_each_takes_for_its_own_is_found_out(
    fault: Fault, limits: Limits, lie: str
) -> None:
    with pytest.raises(AssertionError, match=lie):
        [live(seed, fault=fault, engines=2, limits=limits) for seed in range(80)]


@pytest.mark.parametrize(("engines", "first"), [(2, 40), (3, 0)])
def test_a_store_that_ignores_the_fence_is_found_out(engines: int, first: int) -> None:
    """In one of eighty worlds at the latest; the first of them is about where it was found last."""
    lies = r"an append with fence \d+, not|there is more after that|has ended and was claimed"
    with pytest.raises(AssertionError, match=lies):
        [
            live(seed, fault="writers with an old fence", engines=engines, naps=True)
            for seed in range(first, first + 80)
        ]


def test_a_lie_names_its_seed() -> None:
    with pytest.raises(AssertionError, match=r"(?s)^seed \d+: .*--first \d+ --seeds 1"):
        simulate(seeds=20, fault="checkpoints that are lost")
