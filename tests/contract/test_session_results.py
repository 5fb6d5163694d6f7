"""The results in a session: the last step of each run, and errors as the run's caller got them."""

import threading
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.test_sessions import executions, run
from tests.contract.wire import cancel, detail, frames, http_for
from tests.waiting import eventually

ENDS_IN = """
slug: ends-in-{name}
capture: "{mode}"
steps:
  - {{id: first, type: code, code: 'return {{"n": 1}}'}}
  - id: last
    type: loop
    over: "[1, 2]"
    steps:
      - {{id: inner, type: code, code: 'return {{"n": item / (2 - {two})}}'}}
"""
HOLDS = """
slug: holds
steps:
  - id: all
    type: parallel
    branches:
      quick: [{id: done, type: passthrough}]
      slow: [{id: hold, type: wait, ms: 600000}]
"""


@pytest.fixture
def session() -> str:
    return str(uuid4())


def last_of(http: httpx2.Client, session: str) -> dict[str, Any]:
    (execution,) = executions(http, session)
    return dict(execution["steps"][-1])


@pytest.mark.parametrize(
    ("mode", "kept"), [("full", True), ("redacted", True), ("metadata_only", False), ("off", False)]
)
def test_the_container_at_the_end_of_a_flow_has_a_row_with_the_result(
    server: RunningServer, http: httpx2.Client, session: str, mode: str, kept: bool
) -> None:
    """As far as the mode keeps it: an output that is not kept is in no row."""
    server.push(ENDS_IN.format(name="good", mode=mode, two=0))
    run(http, session, "ends-in-good")
    (execution,) = executions(http, session)
    assert [step["stepId"] for step in execution["steps"]] == ["first", "inner", "inner", "last"]
    last = execution["steps"][-1]
    assert (last["status"], last["attempt"], last["truncated"]) == ("completed", 1, False)
    assert last["startedAt"] == execution["steps"][1]["startedAt"]
    assert last["completedAt"] == execution["completedAt"]
    assert last["durationMs"] >= 0
    assert last.get("outputSnapshot") == ({"items": [{"n": 0.5}, {"n": 1.0}]} if kept else None)
    assert execution["snapshotsAvailable"] is kept


def test_a_result_that_was_cut_says_so(session: str) -> None:
    with (
        running_server(capture="full", snapshot_limit_bytes=256) as server,
        http_for(server, server.key) as http,
    ):
        server.push("""
slug: long
steps:
  - {id: all, type: parallel, branches: {one: [{id: big, type: code, code: 'return {"text": "x" * 999}'}]}}
""")
        run(http, session, "long")
        last = last_of(http, session)
        assert (last["stepId"], last["truncated"]) == ("all", True)
        assert "xxx" in last["outputSnapshot"]["one"]["text"]


def test_a_leaf_at_the_end_has_one_row(http: httpx2.Client, session: str) -> None:
    run(http, session, "anything", parameters={"n": 1})
    (execution,) = executions(http, session)
    assert [step["stepId"] for step in execution["steps"]] == ["keep"]


def test_a_draft_that_has_changed_does_not_hide_the_result(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push(ENDS_IN.format(name="draft", mode="full", two=0), publish=False)
    run(http, session, "ends-in-draft")
    later = "slug: ends-in-draft\nsteps: [{id: first, type: passthrough}, {id: z, type: passthrough}]\n"
    server.push(later, publish=False)
    last = last_of(http, session)
    assert (last["stepId"], last["outputSnapshot"]) == ("last", {"items": [{"n": 0.5}, {"n": 1.0}]})


def test_the_error_is_the_one_that_the_caller_of_execute_got(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push(ENDS_IN.format(name="bad", mode="metadata_only", two=2))
    answer = http.post("/seq/acme/demo/ends-in-bad/execute", json={}, headers={"X-Session-Id": session})
    got = detail(answer)
    (execution,) = executions(http, session)
    assert [(step["stepId"], step["status"]) for step in execution["steps"]] == [
        ("first", "completed"), ("inner", "failed"), ("last", "failed"),
    ]  # fmt: skip
    assert execution["errorAtStep"] == got["stepId"] == "inner"
    for step in execution["steps"][1:]:
        assert step["errorSnapshot"] == {name: got[name] for name in ("code", "message", "error")}
    assert got["code"] == "STEP_FAILED"
    assert got["error"]["code"] == "CODE_ERROR"
    assert "outputSnapshot" not in execution["steps"][-1]


def test_under_off_an_error_has_its_code_and_no_content(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push("""
slug: off-bad
capture: "off"
steps:
  - {id: last, type: loop, over: "[1]", steps: [{id: inner, type: code, code: 'raise ValueError("secret")'}]}
""")
    answer = http.post("/seq/acme/demo/off-bad/execute", json={}, headers={"X-Session-Id": session})
    assert detail(answer)["error"]["code"] == "CODE_ERROR"
    assert "secret" in answer.text, "the caller gets it all"
    (execution,) = executions(http, session)
    for step in execution["steps"]:
        assert step["errorSnapshot"]["code"] == "STEP_FAILED"
        assert step["errorSnapshot"]["error"]["code"] == "CODE_ERROR"
        assert "None" not in step["errorSnapshot"]["message"]
    assert "secret" not in http.get(f"/seq/sessions/{session}").text


def test_the_error_is_the_one_that_the_caller_of_step_got(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push(ENDS_IN.format(name="bad", mode="metadata_only", two=2))
    path, headers = "/seq/acme/demo/ends-in-bad/step", {"X-Session-Id": session}
    found = frames(http.post(path, json={"runRemaining": True}, headers=headers).text)
    (told,) = [frame.data["error"] for frame in found if frame.event == "step_error"]
    (execution,) = executions(http, session)
    assert [step["errorSnapshot"] for step in execution["steps"][1:]] == [told, told]
    assert told["code"] == "CODE_ERROR"


def test_the_error_of_a_job_is_that_of_its_step(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push(ENDS_IN.format(name="bad", mode="metadata_only", two=2))
    execution_id = run(http, session, "ends-in-bad", path="jobs")
    state = http.get(f"/seq/acme/demo/ends-in-bad/jobs/{execution_id}").json()
    assert f"({last_of(http, session)['errorSnapshot']['code']})" in state["error"]


def test_a_cancelled_run_ends_in_its_container_too(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    """Its caller was told STEP_FAILED; a branch that had been done is not taken for the result."""
    server.push(HOLDS)
    got: list[httpx2.Response] = []

    def wait() -> None:
        got.append(http.post("/seq/acme/demo/holds/execute", json={}, headers={"X-Session-Id": session}))

    caller = threading.Thread(target=wait)
    caller.start()
    eventually(lambda: http.get(f"/seq/sessions/{session}").is_success)
    execution_id = http.get(f"/seq/sessions/{session}").json()["executions"][0]["executionId"]
    with http.stream("GET", f"/flow-runs/{execution_id}/trace/stream") as events:
        seen = ""
        for text in events.iter_text():
            seen += text
            if '"stepId":"hold"' in seen and '"stepId":"done"' in seen:
                break
    (running,) = executions(http, session)
    assert "all" not in [step["stepId"] for step in running["steps"]], "it has not given anything yet"
    cancel(server, execution_id)
    caller.join(30)
    last = last_of(http, session)
    assert (last["stepId"], last["status"]) == ("all", "failed")
    assert last["errorSnapshot"]["code"] == detail(got[0])["code"] == "STEP_FAILED"
    assert last["errorSnapshot"]["message"] == detail(got[0])["message"]


def test_a_run_that_failed_before_its_last_container_did_not_end_in_it(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push("""
slug: fails-early
steps:
  - {id: bad, type: code, code: 'raise ValueError("no")'}
  - {id: last, type: loop, over: "[1]", steps: [{id: inner, type: passthrough}]}
""")
    run(http, session, "fails-early")
    (execution,) = executions(http, session)
    assert [step["stepId"] for step in execution["steps"]] == ["bad"]
