"""Events to trace, event by event."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    KnownEvent,
    LoopCompleted,
    LoopStarted,
    RunStarted,
    StepCompleted,
    StepError,
    StepInput,
    StepModelReserved,
    StepOutput,
    StepPaused,
    StepRetrying,
    StepSkipped,
    StepStarted,
    UnknownEvent,
    decode_event,
    encode_event,
)
from runglass.log.fold import RunFold, StepChange, TraceFold, fold, milliseconds_between
from runglass.log.trace import ModelReservation, RunSummary, RunTotals, StepTrace, TokenBreakdown

RUN: dict[str, Any] = {"execution_id": "r"}


def raw(value: Any) -> Any:
    return msgspec.Raw(msgspec.json.encode(value))


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


def test_a_run_without_events_is_pending() -> None:
    assert fold([]).flow_run.status == "pending"


def test_a_completed_run_has_its_times_and_duration() -> None:
    run = fold([run_started(1), FlowCompleted(**RUN, at=at(4), run_id="r")]).flow_run
    assert run == RunSummary(
        id="r",
        flow_id="f",
        status="completed",
        trigger_type="api",
        started_at=at(1),
        completed_at=at(4),
        duration_ms=3000,
        step_count=2,
        version=1,
        totals=RunTotals(),
    )


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (FlowCompleted(**RUN, at=at(4), run_id="r"), "completed"),
        (FlowFailed(**RUN, at=at(4), run_id="r", error=raw({"code": "X"})), "failed"),
        (FlowCancelled(**RUN, at=at(4), run_id="r", reason="stop"), "cancelled"),
        (StepPaused(**RUN, at=at(4), step_index=1), "paused"),
    ],
)
def test_the_status_follows_from_the_last_run_event(event: KnownEvent, status: str) -> None:
    assert fold([run_started(), event]).flow_run.status == status


def test_a_paused_run_runs_again_with_its_next_step() -> None:
    events: list[KnownEvent] = [run_started(), StepPaused(**RUN, at=at(1), step_index=1), started("b")]
    assert fold(events).flow_run.status == "running"


def test_a_completed_step_carries_what_its_events_said() -> None:
    trace = fold(
        [
            run_started(),
            started("a"),
            StepInput(
                **RUN, at=at(1), step_id="a", input_data=raw({"x": 1}), input_size_bytes=7, truncated=True
            ),
            StepOutput(**RUN, at=at(2), step_id="a", output_data=raw({"text": "part"})),
            completed(
                "a",
                output=raw({"y": 2}),
                output_size_bytes=9,
                tokens=TokenBreakdown(1, 2, 3),
                cost_usd="0.5",
                model_used="echo",
            ),
        ]
    )
    assert trace.steps == [
        StepTrace(
            step_id="a",
            status="completed",
            started_at=at(1),
            completed_at=at(3),
            duration_ms=7,
            model_used="echo",
            tokens=TokenBreakdown(1, 2, 3),
            cost_usd="0.5",
            input_context={"x": 1},
            output_context={"y": 2},
            input_size_bytes=7,
            output_size_bytes=9,
            truncated=True,
        )
    ]


def test_the_latest_attempt_stands_where_the_first_one_started() -> None:
    trace = fold(
        [run_started(), started("a"), started("b"), retrying("a", 1), started("a", 2), completed("a", 2)]
    )
    assert [(step.step_id, step.attempt, step.status) for step in trace.steps] == [
        ("a", 2, "completed"),
        ("b", 1, "running"),
    ]
    assert trace.steps[0].error_context is None, "the error belongs to the attempt that failed"


def test_a_failed_attempt_keeps_its_error() -> None:
    error = StepError(
        **RUN, at=at(3), step_id="a", step_index=0, attempt=1, error=raw({"code": "CODE_ERROR"})
    )
    [step] = fold([run_started(), started("a"), error]).steps
    assert (step.status, step.error_context) == ("failed", {"code": "CODE_ERROR"})


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


def test_iterations_are_told_apart_by_their_whole_path() -> None:
    events: list[KnownEvent] = [run_started()]
    for path in ((0, 0), (1, 0), (0, 1)):
        events += [started("a", path=path)]
    events += [completed("a", path=(1, 0)), LoopCompleted(**RUN, at=at(3), step_id="loop", iterations=2)]
    steps = fold(events).steps
    assert [(step.loop_index, step.loop_path, step.status) for step in steps] == [
        (0, (0, 0), "running"),
        (0, (1, 0), "completed"),
        (1, (0, 1), "running"),
    ]


def test_a_run_expects_each_step_of_a_loop_once_an_iteration() -> None:
    def begun(
        step_id: str, iterations: int, *step_ids: str, path: tuple[int, ...] | None = None
    ) -> LoopStarted:
        return LoopStarted(
            **RUN, step_id=step_id, loop_path=path, iterations=iterations, step_ids=list(step_ids)
        )

    # Step `first`, then a loop with `a` and the loop of `b`.
    log: list[KnownEvent] = [msgspec.structs.replace(run_started(), step_count=3)]
    assert fold(log).flow_run.expected_steps is None
    for event, expected, loops in (
        (begun("outer", 40, "a", "b"), 1 + 40 * 2, {"outer": 40}),
        (begun("inner", 5, "b", path=(0,)), 1 + 40 + 39 + 5, {"outer": 40}),
        (begun("inner", 0, "b", path=(1,)), 1 + 40 + 38 + 5, {"outer": 40}),
        (LoopCompleted(**RUN, step_id="outer", iterations=40), 84, {}),
    ):
        log.append(event)
        run = fold(log).flow_run
        assert (run.expected_steps, run.loops) == (expected, loops)


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


def test_a_skipped_leaf_is_listed_where_it_was_skipped() -> None:
    steps = fold(
        [run_started(), started("a"), StepSkipped(**RUN, step_id="b", reason="r"), started("c")]
    ).steps
    assert [(step.step_id, step.status) for step in steps] == [
        ("a", "running"),
        ("b", "skipped"),
        ("c", "running"),
    ]


def test_a_step_that_is_run_again_after_it_had_ended_keeps_its_place() -> None:
    trace = fold([run_started(), started("a"), completed("a"), started("b"), completed("b"), started("a", 2)])
    assert [(step.step_id, step.attempt) for step in trace.steps] == [("a", 2), ("b", 1)]


def test_events_of_unknown_types_change_nothing() -> None:
    events: list[Any] = [run_started(), started("a")]
    stranger = UnknownEvent(event_type="step_dreamt", execution_id="r", seq=3, at="", data={})
    assert fold([*events, stranger]) == fold(events)


def test_folding_further_equals_folding_all_at_every_cut() -> None:
    events: list[KnownEvent] = [
        run_started(),
        started("a"),
        retrying("a", 1),
        started("a", 2),
        completed("a", 2),
        started("b", path=(0,)),
        completed("b", path=(0,)),
        FlowCompleted(**RUN, at=at(9), run_id="r"),
    ]
    for cut in range(len(events) + 1):
        state = TraceFold()
        for event in events[:cut]:
            state.apply(event)
        assert state.trace() == fold(events[:cut])
        for event in events[cut:]:
            state.apply(decode_event(encode_event(event)))
        assert state.trace() == fold(events)


def test_the_recorder_s_fold_forgets_steps_that_have_ended() -> None:
    state = RunFold(RunSummary(id="r", flow_id="f", status="pending"))
    for index in range(100):
        state.apply(started("a", path=(index,)))
        (change,) = state.apply(completed("a", path=(index,)))
        assert change.position == index + 1
    assert state.open_steps == []


def test_a_fold_taken_up_again_goes_on_where_the_other_ended() -> None:
    step = StepTrace(step_id="a", attempt=1, status="running", started_at=at(1))
    state = RunFold(
        RunSummary(id="r", flow_id="f", status="running"), open_steps=[StepChange(4, step)], last_position=9
    )
    (retried,) = state.apply(retrying("a", 1))
    (again,) = state.apply(started("a", 2))
    (other,) = state.apply(started("b"))
    assert (retried.position, retried.step.status) == (4, "failed")
    assert (again.position, again.step.attempt) == (4, 2)
    assert other.position == 10


def test_an_end_for_a_step_that_never_started_changes_nothing() -> None:
    assert fold([run_started(), completed("ghost")]).steps == []


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
