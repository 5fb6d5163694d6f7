"""The server's fold beside one that was written from the specification alone: they agree on every log.

`trace == fold(events)` with the same fold on both sides holds for a wrong one too. Logs come from a generator
that knows nothing of either; those of the engine are checked where runs die, ask models and have a budget.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given

from runglass.log.events import (
    EVENT_TYPES,
    KnownEvent,
    LoopCompleted,
    LoopStarted,
    RunStarted,
    StepCompleted,
    StepStarted,
    StreamEvent,
    UnknownEvent,
    decode_event,
)
from runglass.log.fold import RunFold, TraceFold, fold, milliseconds_between
from runglass.log.trace import RunSummary
from tests.examples import examples
from tests.reference_fold import JsonObject, reference_trace, sum_of_money
from tests.run_logs import UNKNOWN, run_logs


def canonical(trace: Any) -> str:
    """Text to compare by, since `1 == True` in Python and not in JSON."""
    return json.dumps(trace, sort_keys=True, indent=1)


def check_agreement(events: list[JsonObject]) -> None:
    """Whatever the log has come to: a trace can be read after any of its events."""
    state, run = TraceFold(), RunFold(RunSummary(id="r", flow_id="f", status="pending"))
    for number, event in enumerate(events, start=1):
        state.apply(decoded := decode_event(msgspec.json.encode(event)))
        run.apply(decoded)
        folded, reference = json.loads(msgspec.json.encode(state.trace())), reference_trace(events[:number])
        assert canonical(folded) == canonical(reference), event
        reserved = [step["reservation"]["usd"] for step in reference["steps"] if "reservation" in step]
        assert run.reserved_usd == Decimal(sum_of_money(reserved) or 0), event


def check_agreement_on(events: Sequence[StreamEvent]) -> None:
    """Both folds agree on a log of the engine."""
    check_agreement([json.loads(msgspec.json.encode(event)) for event in events])


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


RUN: dict[str, Any] = {"execution_id": "r", "at": "2026-01-01T00:00:00.000Z"}


def test_a_summary_tells_of_a_hundred_loops_that_go_on_and_expects_the_steps_of_all() -> None:
    def begun(number: int) -> LoopStarted:
        return LoopStarted(**RUN, step_id=f"loop{number}", iterations=2, step_ids=["a"])

    run = RunStarted(**RUN, run_id="r", flow_id="f", step_count=150, trigger_type="api", version=1)
    log: list[KnownEvent] = [run, *map(begun, range(150))]
    told = fold(log).flow_run
    assert list(told.loops) == [f"loop{number}" for number in range(100)]
    assert told.expected_steps == 300
    ended = [LoopCompleted(**RUN, step_id=step_id, iterations=2) for step_id in ("loop0", "loop149")]
    assert list(fold([*log, *ended, begun(150)]).flow_run.loops) == [
        *(f"loop{number}" for number in range(1, 100)),
        "loop150",
    ]


def test_the_recorder_s_fold_forgets_steps_that_have_ended() -> None:
    state = RunFold(RunSummary(id="r", flow_id="f", status="pending"))
    for index in range(100):
        place: dict[str, Any] = {**RUN, "step_id": "a", "step_index": 0, "attempt": 1, "loop_path": (index,)}
        state.apply(StepStarted(**place))
        (change,) = state.apply(StepCompleted(**place, duration_ms=7))
        assert change.position == index + 1
    assert state.open_steps == []


def test_durations_are_never_negative() -> None:
    assert milliseconds_between("2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00Z") == 0
