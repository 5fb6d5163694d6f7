"""The content that a caller is owed: all of it, in every capture mode, for `answer_ttl_s`."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.test_jobs import ended
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.contract.wire import detail, frames, http_for, refusal
from tests.waiting import eventually

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
PRINTS = """
slug: prints
capture: "off"
steps: [{id: bad, type: code, code: 'print("loud " * 2); raise ValueError("why " * 2)'}]
"""


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for flow in (*(FAILS.format(mode=mode) for mode in KEPT), ECHO.format(slug="off", mode="off"), TALK):
        server.push(flow)


@pytest.mark.parametrize("key", [None, "key"])
def test_a_step_through_gets_the_whole_error_and_the_log_what_its_mode_keeps(
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


def test_a_steps_name_is_the_flows_whatever_the_caller_overrides(http: httpx2.Client) -> None:
    overrides = {"bad": {"name": SECRET, "code": "return {}"}}
    answer = http.post("/seq/acme/demo/fails-off/execute", json={"message": "", "blockOverrides": overrides})
    run = answer.json()["executionId"]
    log = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert {frame.data["name"] for frame in log if "name" in frame.data} == {"Bad"}


ECHO = """
slug: echo-{slug}
capture: "{mode}"
steps:
  - {{id: a, type: passthrough}}
  - {{id: b, type: passthrough}}
"""
LONG = "x" * 300_000
"""Over the limit of a snapshot."""


def expire(server: RunningServer) -> None:
    """Lets everything expire that may."""

    async def work() -> None:
        while await server.runtime.store.expire_answers(before="9999", limit=100):
            pass
        while await server.runtime.store.drop_checkpoints(limit_rows=100, limit_bytes=1 << 20):
            pass

    server.call(work())


def runs(http: httpx2.Client) -> int:
    return len(http.get("/flow-runs", params={"limit": 100}).json()["runs"])


@pytest.mark.parametrize(
    ("flow", "path"),
    [("echo-off", "execute"), ("echo-off", "jobs"), ("echo-off", "step"), ("fails-off", "execute")],
)
def test_a_repeat_after_the_answer_has_expired_is_answer_expired_and_starts_nothing(
    server: RunningServer, http: httpx2.Client, flow: str, path: str
) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    more = {"runRemaining": True} if path == "step" else {}

    def call(message: str = "hi") -> httpx2.Response:
        body = {"message": message, **more}
        return http.post(f"/seq/acme/demo/{flow}/{path}", json=body, headers=headers)

    first = call()
    assert call().content == first.content
    run = first.text.split('"executionId":"')[1][:36]
    http.get(f"/flow-runs/{run}/trace/stream")
    before = runs(http)
    expire(server)
    gone = call()
    assert refusal(gone) == (410, "ANSWER_EXPIRED")
    assert detail(gone)["executionId"] == run
    assert runs(http) == before
    assert refusal(call("other")) == (409, "IDEMPOTENCY_MISMATCH"), "the key is known still"


def test_the_answer_of_a_pause_expires_and_the_run_can_be_taken_up(
    server: RunningServer, http: httpx2.Client
) -> None:
    path, headers = "/seq/acme/demo/talk/execute", {"Idempotency-Key": str(uuid4())}
    body = {"message": "hi", "tools": TOOLS}
    paused = http.post(path, json=body, headers=headers).json()
    expire(server)
    assert refusal(http.post(path, json=body, headers=headers)) == (410, "ANSWER_EXPIRED")
    done = http.post(path, json=resumption(paused, results_of(paused)))
    assert done.json()["status"] == "completed"


@pytest.mark.parametrize(
    ("mode", "text", "status"),
    [
        ("off", "hi", 410),
        ("metadata_only", "hi", 410),
        ("redacted", "hi", 410),
        ("full", LONG, 410),
        ("full", "hi", 200),
    ],
)
def test_a_job_whose_result_has_expired_does_not_return_null(
    server: RunningServer, http: httpx2.Client, mode: str, text: str, status: int
) -> None:
    """Where the log keeps the whole result anyway, it comes from there."""
    server.push(ECHO.format(slug=mode[:4], mode=mode))
    path = f"/seq/acme/demo/echo-{mode[:4]}/jobs"
    run = http.post(path, json={"message": text}).json()["executionId"]
    http.get(f"/flow-runs/{run}/trace/stream")
    assert http.get(f"{path}/{run}").json()["result"] == {"message": text}
    expire(server)
    answer = http.get(f"{path}/{run}")
    if status == 200:
        assert answer.json()["result"] == {"message": text}
    else:
        assert refusal(answer) == (410, "ANSWER_EXPIRED")
        assert detail(answer)["executionId"] == run
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "completed"


def test_a_failed_job_reads_failed_after_its_error_has_expired(
    server: RunningServer, http: httpx2.Client
) -> None:
    path = "/seq/acme/demo/fails-off/jobs"
    run = http.post(path, json={"message": SECRET}).json()["executionId"]
    http.get(f"/flow-runs/{run}/trace/stream")
    expire(server)
    state = http.get(f"{path}/{run}").json()
    assert state["status"] == "failed"
    assert state["error"].startswith("step 'bad' failed: ")
    assert state["error"].endswith("(CODE_ERROR)")
    assert SECRET not in state["error"]


def test_a_short_time_to_live_is_kept_to_by_a_running_server() -> None:
    with running_server(answer_ttl_s=0.5, capture="off") as server, http_for(server, server.key) as http:
        server.push(ECHO.format(slug="off", mode="off"))
        headers = {"Idempotency-Key": "key"}

        def call() -> httpx2.Response:
            return http.post("/seq/acme/demo/echo-off/execute", json={"message": SECRET}, headers=headers)

        assert call().status_code == 200
        expired = eventually(lambda: answer if (answer := call()).status_code != 200 else None)
        assert refusal(expired) == (410, "ANSWER_EXPIRED")


def test_only_the_sentence_of_a_failed_jobs_error_is_kept(tmp_path: Path) -> None:
    with running_server(data=tmp_path) as server, http_for(server, server.key) as http:
        server.push(PRINTS)
        run = http.post("/seq/acme/demo/prints/jobs", json={}).json()["executionId"]
        job = ended(http, run, "prints")
        kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert "why why" in job["error"]
    assert b"why why" in kept
    assert b"loud loud" not in kept
