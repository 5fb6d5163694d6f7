"""What stays of events and steps when their content goes, and that they still belong together."""

from typing import Any

import msgspec
import pytest
from hypothesis import given

from runglass.log.content import strip_error, strip_event, strip_step, strip_summary
from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    KnownEvent,
    OverridesApplied,
    RunInput,
    RunStarted,
    StepCompleted,
    StepError,
    StepInput,
    StepModelCall,
    StepOutput,
    StepPausedForToolCalls,
    StepProgress,
    StepResumed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    decode_event,
    encode_event,
)
from runglass.log.fold import TraceFold, fold
from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall, TokenBreakdown
from tests.examples import examples
from tests.recorded_spans import Recording, asked, id_of, raw, span
from tests.run_logs import JsonObject, run_logs

SECRET = "sesame"
RUN: dict[str, Any] = {"execution_id": "r", "at": "2026-01-01T00:00:01.000Z"}
TOKENS = TokenBreakdown(1, 2, 3)
PAID: dict[str, Any] = {"tokens": TOKENS, "cost_usd": "0.5", "model_used": "echo"}


CONTENT = raw({"text": SECRET, SECRET: [1]})
ERROR = raw({"code": "CODE_ERROR", "type": "ValueError", "line": 3, "message": SECRET, "printed": [SECRET]})


def events_of(end: KnownEvent) -> list[KnownEvent]:
    """A log with every kind of content, in which `c` still runs when the run ends."""
    step: dict[str, Any] = {**RUN, "step_id": "a", "step_index": 0}
    return [
        RunStarted(**RUN, run_id="r", flow_id="f", step_count=2, trigger_type="api", version=1),
        RunInput(
            **RUN,
            inputs=CONTENT,
            messages=raw([{"content": SECRET}]),
            attachments=raw([{"url": SECRET}]),
            input_size_bytes=9,
            truncated=True,
        ),
        OverridesApplied(
            **RUN,
            overridden=["a.input.text", "a.prompt"],
            block_overrides={"a": {"prompt": SECRET}},
            input_overrides={"a": {"text": SECRET}},
        ),
        StepStarted(**step, name="A", attempt=1, input_size_bytes=9),
        StepInput(**RUN, step_id="a", input_data=CONTENT, input_size_bytes=9, truncated=True),
        StepOutput(**RUN, step_id="a", output_data=CONTENT),
        StepRetrying(**RUN, **PAID, step_id="a", attempt=1, error=ERROR, next_attempt=2, delay_ms=7),
        StepStarted(**step, attempt=2),
        StepProgress(**RUN, step_id="a", attempt=2, text=SECRET),
        StepModelCall(
            **RUN,
            step_id="a",
            attempt=2,
            model_call=ModelCall(
                number=1,
                model="echo",
                tokens=TOKENS,
                cost_usd="0.5",
                finish_reason="stop",
                request=CONTENT,
                response=CONTENT,
                truncated=True,
            ),
        ),
        StepPausedForToolCalls(
            **RUN,
            **PAID,
            run_id="r",
            step_id="a",
            step_index=0,
            iterations_used=1,
            tool_call_messages=[{"content": SECRET}],
            tool_calls=[{"function": {"arguments": SECRET}}],
            accumulated_outputs={"before": SECRET},
        ),
        StepResumed(**step, attempt=2, input_data=CONTENT),
        StepCompleted(
            **step, **PAID, attempt=2, output=CONTENT, duration_ms=5, output_size_bytes=8, truncated=True
        ),
        StepSkipped(**RUN, step_id="b", reason="the branch was not taken"),
        StepStarted(**{**step, "step_id": "d"}, attempt=1),
        StepError(**{**step, "step_id": "d"}, attempt=1, error=ERROR),
        StepStarted(**{**step, "step_id": "c"}, attempt=1),
        end,
    ]


ENDS: list[KnownEvent] = [
    FlowCompleted(**RUN, run_id="r", result=CONTENT, summary=raw({"completed": 1, "costUsd": "0.5"})),
    FlowFailed(**RUN, run_id="r", error=ERROR, step_id="d"),
    FlowCancelled(**RUN, run_id="r", reason="cancelled by a caller"),
]


@pytest.mark.parametrize("end", ENDS, ids=lambda event: event.event_type)
def test_stripping_removes_all_content_and_nothing_else(end: KnownEvent) -> None:
    events = events_of(end)
    check([encode_event(event) for event in events])
    stripped = [decode_event(strip_event(encode_event(event))) for event in events]
    assert SECRET.encode() not in b"".join(map(msgspec.json.encode, stripped))
    assert [event.event_type for event in stripped] == [event.event_type for event in events]
    before, after = fold(events), fold(stripped)
    assert msgspec.json.encode(after.flow_run) == strip_summary(msgspec.json.encode(before.flow_run))
    assert after.flow_run.overridden == ["a.prompt"]
    assert after.flow_run.totals == before.flow_run.totals
    gone: dict[str, Any] = {
        "input_context": None,
        "output_context": None,
        "error_context": None,
        "truncated": False,
    }
    gone["model_calls"] = []
    for old, new in zip(before.steps, after.steps, strict=True):
        assert msgspec.structs.replace(old, **gone) == msgspec.structs.replace(new, **gone)
        assert new.input_context is None
        assert new.output_context is None
        assert [(call.tokens, call.request, call.response) for call in new.model_calls] == [
            (call.tokens, None, None) for call in old.model_calls
        ]
        if new.error_context and new.error_context["code"] != "CANCELLED":
            assert new.error_context == {"code": "CODE_ERROR", "type": "ValueError", "line": 3}


def test_the_status_of_a_run_and_the_reason_of_its_cancellation_stay() -> None:
    completed, _, cancelled = (strip_event(encode_event(end)) for end in ENDS)
    assert msgspec.json.decode(completed)["summary"] == {"completed": 1, "costUsd": "0.5"}
    assert "result" not in msgspec.json.decode(completed)
    assert msgspec.json.decode(cancelled)["reason"] == "cancelled by a caller"


def test_an_unknown_event_keeps_its_address() -> None:
    event = {
        "eventType": "step_dreamt",
        "executionId": "r",
        "seq": 3,
        "at": "t",
        "stepId": "a",
        "durationMs": 4,
        "dream": SECRET,
        "reason": SECRET,
    }
    left = strip_event(msgspec.json.encode(event))
    assert left == msgspec.json.encode({name: event[name] for name in list(event)[:6]})


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (None, None),
        (b'"cancelled"', b'"cancelled"'),
        (b'{"message":"sesame","code":"X"}', b'{"code":"X"}'),
        (b'{"code":{"deep":"sesame"},"type":["sesame"],"line":7}', b'{"line":7}'),
        (b"{}", b"{}"),
    ],
)
def test_an_error_keeps_its_code_type_and_line(error: bytes | None, left: bytes | None) -> None:
    assert strip_error(error) == left


def check(events: list[bytes]) -> None:
    """Folds stripped events beside those that are not, and compares every state of every step."""
    whole, stripped = TraceFold(), TraceFold()
    for data in events:
        once = strip_event(data)
        assert strip_event(once) == once
        whole.apply(decode_event(data))
        stripped.apply(decode_event(once))
        expected = [strip_step(msgspec.json.encode(step)) for step in whole.trace().steps]
        assert [msgspec.json.encode(step) for step in stripped.trace().steps] == expected
        assert [strip_step(step) for step in expected] == expected
        summary = strip_summary(msgspec.json.encode(whole.trace().flow_run))
        assert msgspec.json.encode(stripped.trace().flow_run) == summary
        assert strip_summary(summary) == summary


@examples(50, of=200)
@given(run_logs())
def test_stripped_events_fold_to_stripped_steps_for_any_log(log: list[JsonObject]) -> None:
    check([msgspec.json.encode(event) for event in log])


def test_stripped_spans_fold_to_stripped_steps_and_their_sums_stay() -> None:
    content: dict[str, Any] = {
        **dict.fromkeys(("input", "output", "attributes", "resource"), CONTENT),
        **dict.fromkeys(("events", "links"), raw([{"name": SECRET}])),
        "truncated": True,
    }
    recording = Recording(
        [
            span(1, session="one", user="ann", tags=("a",), **content, entry_name="helper"),
            SpanState(span_id=id_of(2), **content),
            span(2, 1, status="error", error=ERROR, **asked(3, 4, "0.5", request=CONTENT, response=CONTENT)),
            span(3, 3, notes=("odd",), end=None, **content),
        ]
    )
    recording.add(RunInput(**RUN, inputs=CONTENT, input_preview=SECRET))
    recording.add(FlowFailed(**RUN, run_id="r", error=ERROR))
    events = [encode_event(event) for event in recording.events]
    check(events)
    stripped = [strip_event(event) for event in events]
    assert SECRET.encode() not in b"".join(stripped)
    after = fold(map(decode_event, stripped)).flow_run
    assert after.totals == recording.summary.totals
    assert after.recording == recording.summary.recording
