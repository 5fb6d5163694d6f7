"""Events to trace, event by event."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from runglass.log.events import (
    KnownEvent,
    LoopCompleted,
    LoopStarted,
    RunStarted,
    StepCompleted,
    StepModelReserved,
    StepRetrying,
    StepStarted,
)
from runglass.log.fold import RunFold, fold, milliseconds_between
from runglass.log.trace import ModelReservation, RunSummary
from tests.recorded_spans import raw

RUN: dict[str, Any] = {"execution_id": "r", "at": "2026-01-01T00:00:00.000Z"}
STEP: dict[str, Any] = {**RUN, "step_id": "a", "attempt": 1}
BEGUN = RunStarted(**RUN, run_id="r", flow_id="f", step_count=2, trigger_type="api", version=1)
RETRYING = StepRetrying(**STEP, error=raw({"code": "CODE_ERROR"}), next_attempt=2, delay_ms=1, duration_ms=4)


def started(*path: int) -> StepStarted:
    return StepStarted(**STEP, step_index=0, loop_path=path or None)


def completed(*path: int) -> StepCompleted:
    return StepCompleted(**STEP, step_index=0, duration_ms=7, loop_path=path or None)


@pytest.mark.parametrize("end", [completed(), RETRYING], ids=["completed", "retrying"])
def test_what_is_reserved_is_given_back_at_the_end_of_the_attempt(end: KnownEvent) -> None:
    reservation = ModelReservation(number=1, model="echo", usd="0.5")
    log: list[KnownEvent] = [BEGUN, started(), StepModelReserved(**STEP, reservation=reservation)]
    state = RunFold(RunSummary(id="", flow_id="", status="pending"))
    for event in log:
        state.apply(event)
    assert state.reserved_usd == Decimal("0.5")
    (change,) = state.apply(end)
    assert state.reserved_usd == 0
    assert change.step.reservation is None


def test_a_summary_tells_of_a_hundred_loops_that_go_on_and_expects_the_steps_of_all() -> None:
    def begun(number: int) -> LoopStarted:
        return LoopStarted(**RUN, step_id=f"loop{number}", iterations=2, step_ids=["a"])

    log: list[KnownEvent] = [msgspec.structs.replace(BEGUN, step_count=150), *map(begun, range(150))]
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
        state.apply(started(index))
        (change,) = state.apply(completed(index))
        assert change.position == index + 1
    assert state.open_steps == []


def test_durations_are_never_negative() -> None:
    assert milliseconds_between("2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00Z") == 0
