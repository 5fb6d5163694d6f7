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

RUN: dict[str, Any] = {"execution_id": "r"}


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000Z"


def run_started(second: int = 0) -> RunStarted:
    return RunStarted(
        **RUN, at=at(second), run_id="r", flow_id="f", step_count=2, trigger_type="api", version=1
    )


def started(
    step_id: str, attempt: int = 1, *, second: int = 1, path: tuple[int, ...] | None = None
) -> StepStarted:
    return StepStarted(
        **RUN,
        at=at(second),
        step_id=step_id,
        step_index=0,
        attempt=attempt,
        loop_index=path[-1] if path else None,
        loop_path=path,
        input_size_bytes=2,
    )


def completed(
    step_id: str, attempt: int = 1, *, path: tuple[int, ...] | None = None, **more: Any
) -> StepCompleted:
    return StepCompleted(
        **RUN, at=at(3), step_id=step_id, step_index=0, attempt=attempt, duration_ms=7, loop_path=path, **more
    )


def retrying(step_id: str, attempt: int) -> StepRetrying:
    return StepRetrying(
        **RUN,
        at=at(2),
        step_id=step_id,
        attempt=attempt,
        error=raw({"code": "CODE_ERROR"}),
        next_attempt=attempt + 1,
        delay_ms=1,
        duration_ms=4,
    )


@pytest.mark.parametrize("end", [completed("a"), retrying("a", 1)], ids=["completed", "retrying"])
def test_what_is_reserved_is_given_back_at_the_end_of_the_attempt(end: KnownEvent) -> None:
    reservation = ModelReservation(number=1, model="echo", usd="0.5")
    log: list[KnownEvent] = [
        run_started(),
        started("a"),
        StepModelReserved(**RUN, step_id="a", attempt=1, reservation=reservation),
    ]
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

    log: list[KnownEvent] = [msgspec.structs.replace(run_started(), step_count=150), *map(begun, range(150))]
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
        state.apply(started("a", path=(index,)))
        (change,) = state.apply(completed("a", path=(index,)))
        assert change.position == index + 1
    assert state.open_steps == []


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.234Z", 1234),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:01.000Z", "2026-01-01T00:00:00.000Z", 0),
    ],
)
def test_durations_are_whole_milliseconds_and_never_negative(start: str, end: str, expected: int) -> None:
    assert milliseconds_between(start, end) == expected
