"""Whatever the order in which spans come, the run is the same, and so is what it adds up to."""

from itertools import permutations
from typing import Any

import msgspec

from runglass.log.span_state import SpanState
from runglass.log.trace import StepTrace
from tests.recorded_spans import Recording, asked, at, id_of, raw, span, used

SEVEN: list[SpanState] = [
    span(1, start=0, end=90, entry_name="helper", session="one", is_gen_ai=True, **used(30, 9, "0.9")),
    span(2, 1, start=1, end=80, name="turn", service="web", tags=("b", "a")),
    span(3, 2, start=2, end=30, name="chat", **asked(10, 3, "0.1")),
    span(4, 2, start=40, end=70, name="chat", status="error", error=raw({"code": "E"}), **asked(12, 4)),
    SpanState(
        span_id=id_of(3),
        kind="llm",
        output=raw({"text": "hello"}),
        attributes=raw({"late": [1, 2]}),
        events=raw([{"at": at(20), "name": "choice"}]),
    ),
    SpanState(span_id=id_of(4), parent_span_id=id_of(2), end_time_unix_nano=at(75), user="ann"),
    span(5, 9, start=50, end=None, name="orphan", service="worker"),
]
"""Nested, of the same names, with usage on the parent, logs before and after their span, and additions."""


def comparable(steps: dict[int, StepTrace]) -> list[bytes]:
    """The steps without what tells in which order they came."""
    traces = sorted(steps.values(), key=lambda step: step.span_id or "")
    return [msgspec.json.encode(msgspec.structs.replace(step, loop_path=None)) for step in traces]


def test_seven_spans_in_each_order_are_the_same_run() -> None:
    expected: Any = None
    for order in permutations(SEVEN):
        recording = Recording(order)
        found = comparable(recording.steps), recording.summary
        expected = expected or found
        assert found == expected
    _, summary = expected
    totals, told = summary.totals, summary.recording
    assert (totals.tokens.prompt, totals.cost_usd, totals.unpriced_calls) == (22, "0.1", 1)
    assert (totals.completed, totals.failed, totals.failed_tokens.total) == (3, 1, 16)
    assert summary.trigger_type == "recorded"
    assert (told.name, told.entry_ended, told.session, told.user) == ("helper", True, "one", "ann")
    assert (told.service, told.tags) == ("web", ("a", "b"))
    assert told.notes == (
        "parents that were not received: 1",
        "spans tell more than one service",
    )
