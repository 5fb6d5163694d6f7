"""The server's fold beside one that was written from the specification alone: they agree on every log.

`trace == fold(events)` with the same fold on both sides holds for a wrong one too. Logs come from a generator
that knows nothing of either, and from the engine itself.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runglass.flows.flow import Flow
from runglass.log.content import strip_event
from runglass.log.events import EVENT_TYPES, StreamEvent, UnknownEvent, decode_event
from runglass.log.fold import TraceFold
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.run_api import CaptureMode
from tests.examples import examples
from tests.flows import flow_trees
from tests.reference_fold import JsonObject, reference_trace
from tests.run_logs import UNKNOWN, run_logs
from tests.unit.engine.conftest import open_harness
from tests.unit.engine.test_budget import Costly, budget_of, run_at_once
from tests.unit.engine.test_crashes import MODES, live_through
from tests.unit.engine.test_money import DicedModels, flows_of_llm_steps, walk


def canonical(trace: Any) -> str:
    """Text to compare by, since `1 == True` in Python and not in JSON."""
    return json.dumps(trace, sort_keys=True, indent=1)


def check_agreement(events: Sequence[JsonObject]) -> None:
    """Whatever the log has come to: a trace can be read after any of its events."""
    state = TraceFold()
    for number, event in enumerate(events, start=1):
        state.apply(decode_event(msgspec.json.encode(event)))
        folded = json.loads(msgspec.json.encode(state.trace()))
        assert canonical(folded) == canonical(reference_trace(list(events[:number]))), event


def as_sent(events: Sequence[StreamEvent]) -> list[JsonObject]:
    return [json.loads(msgspec.json.encode(event)) for event in events]


def test_both_folds_agree_on_every_log() -> None:
    """Every known type of event is met, and a type that nobody knows changes nothing."""
    met: set[str] = set()

    @examples(200, of=400)
    @given(events=run_logs())
    def check(events: list[JsonObject]) -> None:
        for event in events:
            known = not isinstance(decode_event(json.dumps(event).encode()), UnknownEvent)
            assert known == (event["eventType"] != UNKNOWN), "the generated event has the shape of its type"
            met.add(event["eventType"])
        check_agreement(events)

    check()
    # Recorded runs have no other event of a step: their sums have a reference in `test_span_tree.py`.
    assert met == {*EVENT_TYPES, UNKNOWN} - {"step_recorded"}


@examples(25, of=100)
@given(events=run_logs())
def test_both_folds_agree_when_the_content_is_gone(events: list[JsonObject]) -> None:
    check_agreement([json.loads(strip_event(json.dumps(event).encode())) for event in events])


@examples(12, of=25)
@given(
    flow=flow_trees(),
    mode=st.sampled_from(MODES),
    deaths=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=3),
)
def test_both_folds_agree_on_runs_whose_process_dies(
    flow: Flow, mode: CaptureMode, deaths: list[tuple[int, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ran, _ = asyncio.run(live_through(flow, mode, deaths, Path(folder) / "db"))
        check_agreement(as_sent(ran.events))


@examples(12, of=25)
@given(flow=flows_of_llm_steps(), seed=st.integers(0, 2**32))
def test_both_folds_agree_on_runs_that_ask_models(flow: Flow, seed: int) -> None:
    """With tools, retries, answers of no use, and models that tell no usage or have no price."""

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(Path(folder) / "db", synchronous="NORMAL")
            async with open_harness(store, models=DicedModels(Random(seed))) as house, asyncio.timeout(60):
                check_agreement(as_sent((await walk(house, flow)).events))

    asyncio.run(run())


@examples(5, of=10)
@given(budget=st.integers(0, 60), seed=st.integers(0, 2**32))
def test_both_folds_agree_on_runs_on_a_budget(budget: int, seed: int) -> None:
    """Which reserve before they ask, and fail once nothing is left."""

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(Path(folder) / "db", synchronous="NORMAL")
            async with open_harness(store, models=Costly(Random(seed), 20)) as house, asyncio.timeout(60):
                await budget_of(house, Decimal(budget))
                for ran in await run_at_once(house, 3):
                    check_agreement(as_sent(ran.events))

    asyncio.run(run())
