"""Events have the names of the wire contract and traces those of the run reference; what events add up to.

`trace == fold(events)` with the same fold on both sides holds for a wrong one too: the server's stands beside
one that was written from the specification alone, and they agree on every log. Logs come from a generator
that knows nothing of either; those of the engine are checked where runs die, ask models and have a budget.
"""

import copy
import json
import pickle
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import Phase, find, given, settings

from runglass.log.events import (
    EVENT_TYPES,
    TERMINAL_EVENTS,
    KnownEvent,
    LoopCompleted,
    LoopStarted,
    RunStarted,
    StepCompleted,
    StepStarted,
    UnknownEvent,
    decode_event,
    is_terminal,
)
from runglass.log.fold import RunFold, TraceFold, fold, milliseconds_between
from runglass.log.trace import RunSummary, StepAttempts, StepTrace, TokenBreakdown, Trace
from tests.examples import examples
from tests.laws.stored import as_json, as_text
from tests.reference_fold import JsonObject, reference_trace, sum_of_money
from tests.run_logs import UNKNOWN, run_logs

WIRE = (Path(__file__).parents[2] / "docs" / "spec" / "wire.md").read_text("utf-8")
TABLE = WIRE.partition("| eventType | besides executionId, seq, at |")[2].partition("\n\n")[0]
(OF_A_PAUSE,) = re.findall(r"`step_paused_for_tool_calls` with\s+`([^`]+)`", WIRE)
CONTRACT = {
    kind: re.sub(r" \(.*?\)| {.*?}", "", OF_A_PAUSE if fields == "see above" else fields).split(", ")
    for kind, fields in re.findall(r"^\| (\w+) \| ([^|]+) \|", TABLE, re.MULTILINE)
}
"""The fields of each event, as the table of the contract lists them."""
KINDS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(KnownEvent)
}


def test_there_is_a_type_for_each_event_of_the_contract() -> None:
    assert set(KINDS) == EVENT_TYPES
    of_steps = {"step_resumed", "step_model_reserved", "step_model_call", "step_recorded"}
    added = of_steps | {"run_input", "overrides_applied", "loop_started", "content_kept"}
    assert set(KINDS) - set(CONTRACT) == added, "the contract lets us add types"
    assert set(KINDS) >= set(CONTRACT)
    assert set(CONTRACT) >= TERMINAL_EVENTS


@pytest.mark.parametrize("name", CONTRACT)
def test_an_event_has_the_fields_of_the_contract(name: str) -> None:
    assert {"executionId", "seq", "at", *CONTRACT[name]} <= set(KINDS[name].__struct_encode_fields__)


def test_an_unknown_type_and_a_known_one_of_another_shape_are_kept_whole() -> None:
    event = decode_event(b'{"eventType":"step_dreamt","executionId":"r","seq":4,"at":"t","of":"sheep"}')
    assert isinstance(event, UnknownEvent)
    told = event.event_type, event.execution_id, event.seq, event.data["of"]
    assert told == ("step_dreamt", "r", 4, "sheep")
    assert not is_terminal(event)
    event = decode_event(b'{"eventType":"step_started","executionId":"r","seq":4,"stepId":7}')
    assert isinstance(event, UnknownEvent)
    assert event.data["stepId"] == 7


def test_fields_that_are_not_known_are_ignored() -> None:
    event = decode_event(
        b'{"eventType":"step_started","executionId":"r","seq":1,"stepId":"s","stepIndex":0,"attempt":1,"x":1}'
    )
    assert isinstance(event, StepStarted)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"17", b'"x"'])
def test_what_is_not_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(data)


REFERENCE: dict[type[msgspec.Struct], list[str]] = {
    Trace: ["flow_run", "steps"],
    RunSummary: [
        *("id", "flow_id", "status", "trigger_type"),
        *("started_at", "completed_at", "duration_ms", "step_count"),
    ],
    StepTrace: [
        *("step_id", "attempt", "loop_index", "status", "started_at", "completed_at"),
        *("duration_ms", "model_used"),
        *("tokens", "cost_usd", "input_context", "output_context", "error_context", "input_size_bytes"),
        *("output_size_bytes", "truncated"),
    ],
    TokenBreakdown: ["prompt", "completion", "total"],
    StepAttempts: ["step_id", "attempts"],
}


@pytest.mark.parametrize("kind", REFERENCE)
def test_the_attributes_of_the_reference_are_there_in_its_order(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if name in REFERENCE[kind]] == REFERENCE[kind]


def decode(text: bytes) -> StepTrace:
    return msgspec.json.decode(text, type=StepTrace)


def test_a_step_needs_only_its_id_and_ignores_what_it_does_not_know() -> None:
    step = decode(b'{"stepId":"a","somethingNew":{"x":1}}')
    assert (step.step_id, step.attempt, step.input_context, step.truncated) == ("a", 1, None, False)


def test_a_snapshot_is_decoded_once_and_only_when_it_is_read() -> None:
    step = decode(b'{"stepId":"a","inputContext":{"x":[1,2]},"outputContext":{"broken json is not here":1}}')
    assert step.input_context == {"x": [1, 2]}
    assert step.input_context is step.input_context


def test_snapshots_that_were_not_read_are_encoded_unchanged() -> None:
    text = b'{"stepId":"a","inputContext": {"x":  1.50}}'
    assert b'"inputContext":{"x":  1.50}' in msgspec.json.encode(decode(text))


def test_equality_does_not_depend_on_what_was_read() -> None:
    one, two = map(
        decode, (b'{"stepId":"a","inputContext":{"x":1}}', b'{"stepId":"a","inputContext": {"x": 1} }')
    )
    assert one == two
    assert one.input_context == {"x": 1}
    assert one == two
    assert hash(one) == hash(two)
    assert not one != two  # noqa: SIM202  # that `!=` agrees with `==` is what is tested
    assert one != decode(b'{"stepId":"a","inputContext":{"x":2}}')
    assert one != "a"


def test_a_step_is_frozen_but_can_be_copied_and_pickled() -> None:
    step = decode(b'{"stepId":"a","inputContext":{"x":1}}')
    with pytest.raises(AttributeError):
        step.step_id = "b"  # type: ignore[misc]  # that it fails is what is tested
    assert copy.copy(step) == step
    assert pickle.loads(pickle.dumps(step)) == step
    assert "'x': 1" in repr(step)


def check_agreement(events: list[JsonObject]) -> None:
    """Whatever the log has come to: a trace can be read after any of its events."""
    state, run = TraceFold(), RunFold(RunSummary(id="r", flow_id="f", status="pending"))
    for number, event in enumerate(events, start=1):
        state.apply(decoded := decode_event(msgspec.json.encode(event)))
        run.apply(decoded)
        reference = reference_trace(events[:number])
        assert as_json(state.trace()) == as_text(reference), event
        reserved = [step["reservation"]["usd"] for step in reference["steps"] if "reservation" in step]
        assert run.reserved_usd == Decimal(sum_of_money(reserved) or 0), event


MANY = settings(max_examples=5000, phases=[Phase.generate], database=None)


def has_any_of(types: set[str]) -> Callable[[list[JsonObject]], bool]:
    return lambda events: not types.isdisjoint(event["eventType"] for event in events)


def test_both_folds_agree_on_every_log() -> None:
    """Every known type of event is met, and a type that nobody knows changes nothing."""
    # Recorded runs have no other event of a step: their sums have a reference in `test_span_tree.py`.
    unmet = {*EVENT_TYPES, UNKNOWN} - {"step_recorded"}

    def check(events: list[JsonObject]) -> None:
        for event in events:
            known = not isinstance(decode_event(json.dumps(event).encode()), UnknownEvent)
            assert known == (event["eventType"] != UNKNOWN), "the generated event has the shape of its type"
            unmet.discard(event["eventType"])
        check_agreement(events)

    examples(200, of=400)(given(events=run_logs())(check))()
    while unmet:
        # So few logs may have none of a rare type; of one that no log has, none is found.
        check(find(run_logs(), has_any_of(unmet), settings=MANY))


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
