"""Missing values are left out of the JSON: some clients test for absence alone, and break on null."""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx2
import msgspec
import pytest

from runglass.log.events import decode_event
from runglass.log.trace import RunSummary, StepTrace
from runglass.testing import RunningServer
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.contract.wire import as_listed, detail, frames

CONTENT = frozenset(
    {
        "inputContext",
        "outputContext",
        "inputData",
        "outputData",
        "output",
        "result",
        "request",
        "response",
        "toolCallMessages",
        "accumulatedOutputs",
        "blockOverrides",
        "inputOverrides",
    }
)
"""Members that hold what callers, flows and models say, in which a null is theirs."""

EVERYTHING = """
slug: everything-{slug}
capture: '{mode}'
steps:
  - {{id: start, type: passthrough}}
  - {{id: lost, type: code, on_error: continue, code: 'raise ValueError("lost")'}}
  - id: each
    type: loop
    over: '[1, 2]'
    steps:
      - {{id: say, type: llm, model: echo, prompt: hello}}
      - {{id: try, type: code, retry: {{max_attempts: 2, initial_delay_ms: 0}}, code: '{retried}'}}
  - id: route
    type: condition
    if: 'False'
    then: [{{id: never, type: passthrough}}]
    else: [{{id: instead, type: wait, ms: 1}}]
  - {{id: both, type: parallel, branches: {{a: [{{id: left, type: passthrough}}]}}}}
  - {{id: last, type: code, code: '{last}'}}
"""
RETRIED = 'return {"n": 1 // (attempt - 1)}'
MODES = ("off", "metadata_only", "redacted", "full")


def nulls(value: Any, place: str = "") -> Iterator[str]:
    """Where in a document there is a null that is not inside of somebody's content."""
    if value is None:
        yield place
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from nulls(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        for name, member in value.items():
            if name not in CONTENT or member is None:
                yield from nulls(member, f"{place}.{name}")


def check(http: httpx2.Client, run: str, *, goes_on: bool = False) -> None:
    """The trace, each step's attempts, the row in the list and, of a run that has ended, every event."""
    trace = http.get(f"/flow-runs/{run}/trace").json()
    assert list(nulls(trace)) == []
    for step_id in {step["stepId"] for step in trace["steps"]}:
        for query in ("", "?attempt=all"):
            assert list(nulls(http.get(f"/flow-runs/{run}/steps/{step_id}/trace{query}").json())) == []
    (row,) = [each for each in http.get("/flow-runs?limit=100").json()["runs"] if each["id"] == run]
    assert row == as_listed(trace["flowRun"])
    if not goes_on:
        events = [frame.data for frame in frames(http.get(f"/flow-runs/{run}/trace/stream").text)]
        assert list(nulls(events)) == []
        assert events[-1]["eventType"].startswith("flow_")


@pytest.mark.parametrize("last", ["return {}", 'raise ValueError("it broke")'])
@pytest.mark.parametrize("mode", MODES)
def test_a_run_with_steps_of_every_kind_has_no_nulls(
    server: RunningServer, http: httpx2.Client, mode: str, last: str
) -> None:
    server.push(EVERYTHING.format(mode=mode, slug=slug_of(mode), retried=RETRIED, last=last))
    path = f"/seq/acme/demo/everything-{slug_of(mode)}"
    answer = http.post(f"{path}/execute", json={"message": str(uuid4())})
    run = answer.json()["executionId"] if answer.status_code == 200 else detail(answer)["executionId"]
    check(http, run)
    session = {"X-Session-Id": str(uuid4())}
    answer = http.post(f"{path}/v0/execute", json={"message": "x"}, headers=session)
    check(http, answer.text.partition('"executionId":"')[2][:36])
    queued = http.post(f"{path}/jobs", json={}).json()
    assert list(nulls(queued)) == []
    assert list(nulls(http.get(f"{path}/jobs/{queued['executionId']}").json())) == []
    until(http, queued["executionId"], "flow_")
    check(http, queued["executionId"])
    assert list(nulls(http.get(f"{path}/jobs/{queued['executionId']}").json())) == []
    assert list(nulls(http.get(f"{path}/jobs").json()["jobs"])) == []


def slug_of(mode: str) -> str:
    return mode.replace("_", "-")


def until(http: httpx2.Client, run: str, text: str) -> None:
    """Returns when the run's events have that in them."""
    seen = ""
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        for part in stream.iter_text():
            seen += part
            if text in seen:
                return
    raise AssertionError(seen)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_through_and_its_stream_have_no_nulls(
    server: RunningServer, http: httpx2.Client, mode: str
) -> None:
    server.push(EVERYTHING.format(mode=mode, slug=slug_of(mode), retried=RETRIED, last="return {}"))
    path = f"/seq/acme/demo/everything-{slug_of(mode)}/step"
    body: dict[str, Any] = {}
    while True:
        seen = frames(http.post(path, json=body).text)
        assert list(nulls([frame.data for frame in seen])) == []
        run = seen[0].data["executionId"]
        if seen[-1].event == "flow_completed":
            break
        check(http, run, goes_on=True)
        body = {"executionId": run}
    check(http, run)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_is_resumed_with_tool_results_has_no_nulls(
    server: RunningServer, http: httpx2.Client, mode: str
) -> None:
    server.push(f"capture: '{mode}'{TALK.replace('slug: talk', f'slug: talk-{slug_of(mode)}')}")
    path = f"/seq/acme/demo/talk-{slug_of(mode)}/execute"
    paused = http.post(path, json={"message": "hello", "tools": TOOLS}).json()
    check(http, paused["executionId"], goes_on=True)
    assert http.post(path, json=resumption(paused, results_of(paused))).status_code == 200
    check(http, paused["executionId"])


def test_a_run_that_is_cancelled_has_no_nulls(http: httpx2.Client) -> None:
    run = http.post("/seq/acme/demo/endless/jobs", json={}).json()["executionId"]
    until(http, run, '"stepId":"hold"')
    check(http, run, goes_on=True)
    http.delete(f"/flow-runs/{run}")
    check(http, run)


OLD_STEP = {
    "stepId": "s",
    "attempt": 1,
    "loopIndex": None,
    "loopPath": None,
    "status": "completed",
    "startedAt": None,
    "completedAt": None,
    "durationMs": None,
    "modelUsed": None,
    "tokens": None,
    "costUsd": None,
    "inputContext": None,
    "outputContext": None,
    "errorContext": None,
    "inputSizeBytes": None,
    "outputSizeBytes": None,
    "truncated": False,
}
OLD_RUN = {
    "id": "r",
    "flowId": "f",
    "status": "completed",
    "triggerType": None,
    "startedAt": None,
    "completedAt": None,
    "durationMs": None,
    "stepCount": None,
}
OLD_EVENTS: list[dict[str, Any]] = [
    {"eventType": "step_started", "stepIndex": 0, "name": None, "inputSizeBytes": None},
    {"eventType": "step_input", "inputData": None, "inputSizeBytes": None},
    {
        "eventType": "step_completed",
        "name": None,
        "stepIndex": 0,
        "output": None,
        "durationMs": 1,
        "tokens": None,
        "costUsd": None,
        "modelUsed": None,
        "outputSizeBytes": None,
    },
    {"eventType": "step_retrying", "error": {}, "nextAttempt": 2, "delayMs": 0, "durationMs": None},
    {"eventType": "step_error", "stepIndex": 0, "name": None, "error": {}, "tokens": None},
    {"eventType": "step_skipped", "reason": "x"},
    {"eventType": "flow_completed", "runId": "r", "result": None, "summary": None},
    {"eventType": "flow_failed", "runId": "r", "error": {}, "stepId": None},
]


def test_events_stored_with_nulls_read_like_events_without() -> None:
    without = {name: value for name, value in OLD_STEP.items() if value is not None}
    old, new = (msgspec.json.decode(json.dumps(data), type=StepTrace) for data in (OLD_STEP, without))
    assert old == new
    assert "null" not in msgspec.json.encode(old).decode()
    bare = {name: value for name, value in OLD_RUN.items() if value is not None}
    assert msgspec.convert(OLD_RUN, RunSummary) == msgspec.convert(bare, RunSummary)
    for event in OLD_EVENTS:
        shared = {"executionId": "r", "seq": 1, "at": "2026-01-01T00:00:00.000Z"}
        step = {"stepId": "s", "attempt": 1, "loopIndex": None, "loopPath": None}
        full = event | shared | (step if event["eventType"].startswith("step_") else {})
        left_out = {name: value for name, value in full.items() if value is not None}
        old_event, new_event = (decode_event(json.dumps(data).encode()) for data in (full, left_out))
        assert old_event == new_event
        assert old_event.event_type == event["eventType"]
        assert re.search(":null", msgspec.json.encode(old_event).decode()) is None
