"""What stays of events and steps when their content goes, and that they still belong together."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from ruamel.yaml import YAML

from runglass.log.content import strip_error, strip_event, strip_step, strip_summary
from runglass.log.events import FlowFailed, RunInput, decode_event, encode_event
from runglass.log.fold import TraceFold, fold
from runglass.log.span_state import SpanState
from tests.examples import examples
from tests.recorded_spans import Recording, asked, id_of, raw, span
from tests.run_logs import JsonObject, run_logs

SECRET = "sesame"
RUN: dict[str, Any] = {"execution_id": "r", "at": "2026-01-01T00:00:01.000Z"}
CONTENT = raw({"text": SECRET, SECRET: [1]})
ERROR = raw({"code": "CODE_ERROR", "type": "ValueError", "line": 3, "message": SECRET, "printed": [SECRET]})

LOG = """
- {eventType: run_started, runId: r, flowId: f, stepCount: 2, triggerType: api, version: 1}
- {eventType: run_input, inputs: &content {text: sesame, sesame: [1]}, messages: [{content: sesame}],
   attachments: [{url: sesame}], inputSizeBytes: 9, truncated: true}
- {eventType: overrides_applied, overridden: [a.input.text, a.prompt],
   blockOverrides: {a: {prompt: sesame}}, inputOverrides: {a: {text: sesame}}}
- {eventType: step_started, stepId: a, stepIndex: 0, name: A, attempt: 1, inputSizeBytes: 9}
- {eventType: step_input, stepId: a, inputData: *content, inputSizeBytes: 9, truncated: true}
- {eventType: step_output, stepId: a, outputData: *content}
- {eventType: step_retrying, stepId: a, attempt: 1, nextAttempt: 2, delayMs: 7, modelUsed: echo,
   tokens: &tokens {prompt: 1, completion: 2, total: 3}, costUsd: "0.5",
   error: &error {code: CODE_ERROR, type: ValueError, line: 3, message: sesame, printed: [sesame]}}
- {eventType: step_started, stepId: a, stepIndex: 0, attempt: 2}
- {eventType: step_progress, stepId: a, attempt: 2, text: sesame}
- {eventType: step_model_call, stepId: a, attempt: 2, modelCall: {number: 1, model: echo, tokens: *tokens,
   costUsd: "0.5", finishReason: stop, request: *content, response: *content, truncated: true}}
- {eventType: step_paused_for_tool_calls, runId: r, stepId: a, stepIndex: 0, iterationsUsed: 1,
   tokens: *tokens, costUsd: "0.5", modelUsed: echo, toolCallMessages: [{content: sesame}],
   toolCalls: [{function: {arguments: sesame}}], accumulatedOutputs: {before: sesame}}
- {eventType: step_resumed, stepId: a, stepIndex: 0, attempt: 2, inputData: *content}
- {eventType: step_completed, stepId: a, stepIndex: 0, attempt: 2, output: *content, durationMs: 5,
   outputSizeBytes: 8, truncated: true, tokens: *tokens, costUsd: "0.5", modelUsed: echo}
- {eventType: step_skipped, stepId: b, reason: the branch was not taken}
- {eventType: step_started, stepId: d, stepIndex: 0, attempt: 1}
- {eventType: step_error, stepId: d, stepIndex: 0, attempt: 1, error: *error}
- {eventType: step_started, stepId: c, stepIndex: 0, attempt: 1}
# And one of these.
- {eventType: flow_completed, runId: r, result: *content, summary: {completed: 1, costUsd: "0.5"}}
- {eventType: flow_failed, runId: r, error: *error, stepId: d}
- {eventType: flow_cancelled, runId: r, reason: cancelled by a caller}
"""
"""Every kind of content. `c` still runs when the run ends."""
*EVENTS, COMPLETED, FAILED, CANCELLED = (
    msgspec.json.encode({"executionId": "r", "at": RUN["at"]} | event) for event in YAML(typ="safe").load(LOG)
)


@pytest.mark.parametrize("end", [COMPLETED, FAILED, CANCELLED], ids=["completed", "failed", "cancelled"])
def test_stripping_removes_all_content_and_nothing_else(end: bytes) -> None:
    log = [*EVENTS, end]
    check(log)
    assert SECRET.encode() not in b"".join(map(strip_event, log))
    events = list(map(decode_event, log))
    stripped = [decode_event(strip_event(data)) for data in log]
    assert [event.event_type for event in stripped] == [event.event_type for event in events]
    before, after = fold(events), fold(stripped)
    assert msgspec.json.encode(after.flow_run) == strip_summary(msgspec.json.encode(before.flow_run))
    assert after.flow_run.overridden == ["a.prompt"]
    assert after.flow_run.totals == before.flow_run.totals
    gone: dict[str, Any] = dict.fromkeys(("input_context", "output_context"))
    changed: dict[str, Any] = {"error_context": None, "truncated": False, "model_calls": []}
    for old, new in zip(before.steps, after.steps, strict=True):
        assert msgspec.structs.replace(old, **gone, **changed) == msgspec.structs.replace(new, **changed)
        assert [(call.tokens, call.request, call.response) for call in new.model_calls] == [
            (call.tokens, None, None) for call in old.model_calls
        ]
        if new.error_context and new.error_context["code"] != "CANCELLED":
            assert new.error_context == {"code": "CODE_ERROR", "type": "ValueError", "line": 3}


def test_the_status_of_a_run_and_the_reason_of_its_cancellation_stay() -> None:
    completed, cancelled = map(strip_event, (COMPLETED, CANCELLED))
    assert msgspec.json.decode(completed)["summary"] == {"completed": 1, "costUsd": "0.5"}
    assert "result" not in msgspec.json.decode(completed)
    assert msgspec.json.decode(cancelled)["reason"] == "cancelled by a caller"


def test_an_unknown_event_keeps_its_address() -> None:
    address = {"eventType": "step_dreamt", "executionId": "r", "seq": 3, "at": "t", "stepId": "a"}
    kept = address | {"durationMs": 4}
    event = kept | {"dream": SECRET, "reason": SECRET}
    assert strip_event(msgspec.json.encode(event)) == msgspec.json.encode(kept)


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
