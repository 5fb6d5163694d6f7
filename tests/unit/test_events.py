"""The event union: the wire contract's names, and what happens to an event that is not known."""

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
