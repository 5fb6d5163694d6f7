"""Events have the names of the wire contract, traces those of the run reference; and what is not known."""

import copy
import pickle
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from runglass.log.events import (
    EVENT_TYPES,
    TERMINAL_EVENTS,
    KnownEvent,
    StepStarted,
    UnknownEvent,
    decode_event,
    is_terminal,
)
from runglass.log.trace import RunSummary, StepAttempts, StepTrace, TokenBreakdown, Trace

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


def test_an_unknown_type_is_kept_whole() -> None:
    event = decode_event(b'{"eventType":"step_dreamt","executionId":"r","seq":4,"at":"t","of":"sheep"}')
    assert isinstance(event, UnknownEvent)
    assert (event.event_type, event.execution_id, event.seq, event.data["of"]) == (
        "step_dreamt",
        "r",
        4,
        "sheep",
    )
    assert not is_terminal(event)


def test_a_known_type_of_another_shape_is_kept_whole_too() -> None:
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
    one, two = (
        decode(b'{"stepId":"a","inputContext":{"x":1}}'),
        decode(b'{"stepId":"a","inputContext": {"x": 1} }'),
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
