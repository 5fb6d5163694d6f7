"""`X-Session-Id` and `GET /seq/sessions/{sessionId}`."""

import uuid
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, detail, http_for, refusal

EXECUTION_FIELDS = [
    "executionId",
    "flowId",
    "slug",
    "snapshotsAvailable",
    "status",
    "steps",
    "traceCaptureMode",
    "triggerType",
]
"""Those that every run has."""
SPARE_EXECUTION_FIELDS = ["startedAt", "completedAt", "errorAtStep"]
STEP_FIELDS = ["attempt", "status", "stepId", "truncated"]
"""Those that every step has."""
SPARE_STEP_FIELDS = [
    "completedAt",
    "durationMs",
    "errorSnapshot",
    "inputSnapshot",
    "loopIndex",
    "outputSnapshot",
    "startedAt",
]


@pytest.fixture
def session() -> str:
    return str(uuid.uuid4())


def run(http: httpx2.Client, session: str, slug: str, *, path: str = "execute", **body: Any) -> str:
    """Runs a flow of `acme/demo` in the session, to whatever end."""
    answer = http.post(f"/seq/acme/demo/{slug}/{path}", json=body, headers={"X-Session-Id": session})
    execution_id = answer.json()["executionId"] if answer.is_success else detail(answer)["executionId"]
    http.get(f"/flow-runs/{execution_id}/trace/stream")
    return str(execution_id)


def check_fields(found: dict[str, Any], always: list[str], spare: list[str]) -> None:
    """Missing values are left out, and never null."""
    assert set(always) <= set(found) <= {*always, *spare}
    assert None not in found.values()


def executions(http: httpx2.Client, session: str) -> list[dict[str, Any]]:
    answer = http.get(f"/seq/sessions/{session}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert list(body) == ["sessionId", "executions"], "whole, and so without a cursor"
    assert body["sessionId"] == session.lower()
    found: list[dict[str, Any]] = body["executions"]
    for execution in found:
        check_fields(execution, EXECUTION_FIELDS, SPARE_EXECUTION_FIELDS)
        for step in execution["steps"]:
            check_fields(step, STEP_FIELDS, SPARE_STEP_FIELDS)
    return found


def test_a_session_has_its_runs_oldest_first(http: httpx2.Client, session: str) -> None:
    ids = [
        run(http, session, "words", message="a b"),
        run(http, session.upper(), "anything", path="jobs"),
        run(http, session, "words", path="v1/execute", message="c"),
    ]
    run(http, str(uuid.uuid4()), "anything")
    found = executions(http, session)
    assert [execution["executionId"] for execution in found] == ids
    assert [execution["slug"] for execution in found] == ["words", "anything", "words"]
    assert [execution["triggerType"] for execution in found] == ["execute", "job", "execute"]
    for execution in found:
        trace = http.get(f"/flow-runs/{execution['executionId']}/trace").json()["flowRun"]
        for field in ("flowId", "status", "startedAt", "completedAt"):
            assert execution[field] == trace[field]
    assert executions(http, session.upper()) == found


def test_a_sessions_steps_are_those_of_the_trace(http: httpx2.Client, session: str) -> None:
    execution_id = run(http, session, "words", message="a b")
    (execution,) = executions(http, session)
    steps = http.get(f"/flow-runs/{execution_id}/trace").json()["steps"]
    names = {
        "inputSnapshot": "inputContext",
        "outputSnapshot": "outputContext",
        "errorSnapshot": "errorContext",
    }
    fields = {field: names.get(field, field) for field in STEP_FIELDS + SPARE_STEP_FIELDS}
    assert execution["steps"][:-1] == [
        {field: step[name] for field, name in fields.items() if name in step} for step in steps
    ]
    assert execution["steps"][-1]["stepId"] == "route", "the container that the flow ends in"
    assert (execution["traceCaptureMode"], execution["snapshotsAvailable"]) == ("full", True)
    assert "errorAtStep" not in execution


def test_snapshots_come_as_they_are_stored(http: httpx2.Client, session: str) -> None:
    run(http, session, "anything", parameters={"n": 10**30, "text": 'é " \u2028', "deep": {"a": [None]}})
    answer = http.get(f"/seq/sessions/{session}")
    trace = http.get(f"/flow-runs/{answer.json()['executions'][0]['executionId']}/trace")
    stored = trace.text.partition('"inputContext":')[2].partition(',"outputContext"')[0]
    assert f'"inputSnapshot":{stored},"outputSnapshot"' in answer.text


def test_a_failed_run_names_the_step(http: httpx2.Client, session: str) -> None:
    run(http, session, "broken")
    (execution,) = executions(http, session)
    assert (execution["status"], execution["errorAtStep"]) == ("failed", "bad")
    step = execution["steps"][1]
    assert (step["stepId"], step["status"]) == ("bad", "failed")
    assert step["errorSnapshot"]["code"] == "STEP_FAILED"
    assert step["errorSnapshot"]["error"]["code"] == "CODE_ERROR"


def test_a_step_that_the_run_survived_is_not_the_failed_step(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push("""
slug: tolerant
steps:
  - {id: lame, type: code, on_error: continue, code: 'raise ValueError("no")'}
  - {id: keep, type: passthrough, input: {}}
""")
    run(http, session, "tolerant")
    (execution,) = executions(http, session)
    assert execution["status"] == "completed"
    assert "errorAtStep" not in execution
    assert execution["steps"][0]["errorSnapshot"]["code"] == "CODE_ERROR", "nobody was told of another one"


@pytest.mark.parametrize(
    ("mode", "trace", "shown", "available"),
    [
        ("metadata_only", False, "metadata_only", False),
        ("metadata_only", True, "full", True),
        ("'off'", True, "off", False),
        ("redacted", False, "redacted", True),
    ],
)
def test_each_run_of_a_session_has_its_own_capture_mode(
    server: RunningServer,
    http: httpx2.Client,
    session: str,
    mode: str,
    trace: bool,
    shown: str,
    available: bool,
) -> None:
    server.push(f"slug: modes\ncapture: {mode}\nsteps: [{{id: a, type: passthrough}}]\n")
    run(http, session, "modes", parameters={"n": 1}, trace=trace)
    (execution,) = executions(http, session)
    assert (execution["traceCaptureMode"], execution["snapshotsAvailable"]) == (shown, available)
    assert execution["steps"][0].get("inputSnapshot") == ({"n": 1} if available else None)


@pytest.mark.parametrize("wrong", ["x", "0" * 32, "01900000-0000-7000-8000-00000000000", "words"])
def test_a_session_id_is_a_uuid(http: httpx2.Client, wrong: str) -> None:
    assert refusal(http.get(f"/seq/sessions/{wrong}")) == (400, "EXECUTION_ID_INVALID")


def test_an_unknown_session_and_one_of_another_project_look_the_same(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    run(http, session, "anything")
    with http_for(server, server.make_key("acme", "apart")) as other:
        theirs = other.get(f"/seq/sessions/{session}")
        unknown = str(uuid.uuid4())
        none = other.get(f"/seq/sessions/{unknown}")
        assert refusal(theirs) == refusal(none) == (404, "SESSION_NOT_FOUND")
        assert theirs.text.replace(session, "…") == none.text.replace(unknown, "…")


def test_a_session_shows_a_key_the_runs_of_its_project_alone(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    mine = run(http, session, "anything")
    server.push(ANYTHING, project="shared")
    with http_for(server, server.make_key("acme", "shared")) as other:
        headers = {"X-Session-Id": session}
        theirs = other.post("/seq/acme/shared/anything/execute", json={}, headers=headers).json()
        assert [e["executionId"] for e in executions(other, session)] == [theirs["executionId"]]
    assert [e["executionId"] for e in executions(http, session)] == [mine]


def test_a_reading_key_may_see_sessions(server: RunningServer, http: httpx2.Client, session: str) -> None:
    run(http, session, "anything")
    with http_for(server, server.make_key("acme", "demo", "read")) as reader:
        assert len(executions(reader, session)) == 1


def test_sessions_is_no_name_of_an_organisation(server: RunningServer) -> None:
    server.push(ANYTHING, org="sessions", project="demo")
    with http_for(server, server.make_key("sessions", "demo")) as http:
        answer = http.post("/seq/sessions/demo/anything/execute", json={})
        assert refusal(answer) == (404, "NOT_FOUND")
