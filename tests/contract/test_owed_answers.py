"""What a caller is owed: all of it, whatever the capture mode, and for `answer_ttl_s`."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import detail, frames

SECRET = "only for the caller"
MESSAGE = f"ValueError: {SECRET} (line 1)"
FAILS = """
slug: fails-{mode}
capture: "{mode}"
steps:
  - id: bad
    name: Bad
    type: code
    code: 'raise ValueError(initial["message"])'
    retry: {{max_attempts: 2, initial_delay_ms: 0}}
"""
KEPT: dict[str, dict[str, Any]] = {
    "off": {"code": "CODE_ERROR", "type": "ValueError", "line": 1},
    "redacted": {"code": "CODE_ERROR", "message": "ValueError: [redacted] (line 1)"},
}
EMAIL = "jane.doe@example.com"


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for mode in KEPT:
        server.push(FAILS.format(mode=mode))


@pytest.mark.parametrize("key", [None, "key"])
def test_a_walk_tells_its_caller_the_whole_error_and_the_log_what_the_mode_keeps(
    http: httpx2.Client, key: str | None
) -> None:
    headers = {"Idempotency-Key": str(uuid4())} if key else {}
    body = {"message": SECRET}
    answers = [
        http.post("/seq/acme/demo/fails-off/step", json=body, headers=headers).text
        for _ in range(2 if key else 1)
    ]
    assert len(set(answers)) == 1, "a repeated call gets the same"
    told = frames(answers[0])
    assert [frame.event for frame in told if "error" in frame.data] == [
        "step_retrying",
        "step_error",
        "flow_failed",
    ]
    assert {frame.data["error"]["message"] for frame in told if "error" in frame.data} == {MESSAGE}
    run = told[0].data["executionId"]
    log = http.get(f"/flow-runs/{run}/trace/stream").text
    assert SECRET not in log
    assert [frame.data["error"] for frame in frames(log) if "error" in frame.data] == [KEPT["off"]] * 3
    attempts = http.get(f"/flow-runs/{run}/steps/bad/trace", params={"attempt": "all"}).json()["attempts"]
    assert [attempt["errorContext"] for attempt in attempts] == [KEPT["off"]] * 2
    assert SECRET not in str(attempts)


@pytest.mark.parametrize("mode", KEPT)
def test_execute_and_job_tell_the_whole_error(http: httpx2.Client, mode: str) -> None:
    body = {"message": EMAIL}
    headers = {"Idempotency-Key": str(uuid4())}
    path = f"/seq/acme/demo/fails-{mode}"
    for _ in range(2):
        refused = http.post(f"{path}/execute", json=body, headers=headers)
        assert detail(refused)["error"]["message"] == f"ValueError: {EMAIL} (line 1)"
    job = http.post(f"{path}/jobs", json=body).json()["executionId"]
    http.get(f"/flow-runs/{job}/trace/stream")
    state = http.get(f"{path}/jobs/{job}").json()
    assert state["status"] == "failed"
    assert state["error"] == f"step 'bad' failed: ValueError: {EMAIL} (line 1) (CODE_ERROR)"
    trace = http.get(f"/flow-runs/{job}/trace").text
    assert EMAIL not in trace


def test_a_steps_name_is_the_flows_whatever_the_caller_overrides(http: httpx2.Client) -> None:
    overrides = {"bad": {"name": SECRET, "code": "return {}"}}
    answer = http.post("/seq/acme/demo/fails-off/execute", json={"message": "", "blockOverrides": overrides})
    run = answer.json()["executionId"]
    log = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert {frame.data["name"] for frame in log if "name" in frame.data} == {"Bad"}
