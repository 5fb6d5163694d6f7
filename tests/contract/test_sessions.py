"""`X-Session-Id` and `GET /seq/sessions/{sessionId}`: the runs, what each gave, and pages of them."""

import uuid
from typing import Any

import httpx2
import pytest

from runglass.errors import RunPurged
from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, detail, http_for, pages, refusal
from tests.faulty_store import FaultyStore

EXECUTION_FIELDS = [
    *("executionId", "flowId", "slug", "triggerType", "status", "steps"),
    *("traceCaptureMode", "snapshotsAvailable"),
]
"""Those that every run has."""
SPARE_EXECUTION_FIELDS = ["startedAt", "completedAt", "errorAtStep"]
STEP_FIELDS = ["attempt", "status", "stepId", "truncated"]
"""Those that every step has."""
SPARE_STEP_FIELDS = [
    *("startedAt", "completedAt", "durationMs", "loopIndex"),
    *("inputSnapshot", "outputSnapshot", "errorSnapshot"),
]

TOLERANT = """
slug: tolerant
steps:
  - {id: lame, type: code, on_error: continue, code: 'raise ValueError("no")'}
  - {id: keep, type: passthrough, input: {}}
"""
FAILS_EARLY = """
slug: fails-early
steps:
  - {id: bad, type: code, code: 'raise ValueError("no")'}
  - {id: last, type: loop, over: "[1]", steps: [{id: inner, type: passthrough}]}
"""
HEAVY = """
slug: heavy
steps:
  - {id: l, type: loop, over: over, steps: [{id: inner, type: code, code: 'return {"text": "x" * 200000}'}]}
"""
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


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for flow in (TOLERANT, FAILS_EARLY, HEAVY, ENDS_IN.format(name="bad", mode="metadata_only", two=2)):
        server.push(flow)


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


def test_each_answer_that_names_a_run_names_its_session(http: httpx2.Client, session: str) -> None:
    def said(path: str, headers: dict[str, str], **body: Any) -> dict[str, Any]:
        answer = http.post(path, json=body, headers=headers)
        assert answer.is_success
        answered: dict[str, Any] = answer.json()
        return answered

    flow, mine, key = "/seq/acme/demo/words", {"X-Session-Id": session}, {"Idempotency-Key": session}
    given = {"message": "a", "trace": True}
    done = said(f"{flow}/execute", mine | key, **given)
    assert said(f"{flow}/execute", mine | key, **given) == done
    run_path = f"/flow-runs/{done['executionId']}"
    told = [done, said(f"{flow}/jobs", mine, message="a"), said(f"{run_path}/rerun", mine)]
    assert [each["sessionId"] for each in told] == [session] * 3
    for path in (f"{flow}/execute", f"{flow}/jobs"):
        assert "sessionId" not in said(path, {}, message="a")


def test_a_sessions_steps_are_those_of_the_trace(http: httpx2.Client, session: str) -> None:
    execution_id = run(http, session, "words", message="a b")
    run(http, session, "anything", parameters={"text": "x" * 300_000})
    execution, cut = executions(http, session)
    steps = http.get(f"/flow-runs/{execution_id}/trace").json()["steps"]
    fields = {field: field.replace("Snapshot", "Context") for field in STEP_FIELDS + SPARE_STEP_FIELDS}
    assert execution["steps"][:-1] == [
        {field: step[name] for field, name in fields.items() if name in step} for step in steps
    ]
    assert execution["steps"][-1]["stepId"] == "route", "the container that the flow ends in"
    assert (execution["traceCaptureMode"], execution["snapshotsAvailable"]) == ("full", True)
    assert [step["truncated"] for step in execution["steps"] + cut["steps"]] == [False] * 8 + [True]
    assert "errorAtStep" not in execution


def test_a_step_that_the_run_survived_is_not_the_failed_step(http: httpx2.Client, session: str) -> None:
    run(http, session, "tolerant")
    (execution,) = executions(http, session)
    assert execution["status"] == "completed"
    assert "errorAtStep" not in execution
    assert execution["steps"][0]["errorSnapshot"]["code"] == "CODE_ERROR", "nobody was told of another one"


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


def test_sessions_is_no_name_of_an_organisation(server: RunningServer) -> None:
    server.push(ANYTHING, org="sessions", project="demo")
    with http_for(server, server.make_key("sessions", "demo")) as http:
        assert refusal(http.post("/seq/sessions/demo/anything/execute", json={})) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("mode", "trace", "shown", "kept"),
    [
        ("full", False, "full", True),
        ("redacted", False, "redacted", True),
        ("metadata_only", False, "metadata_only", False),
        ("metadata_only", True, "full", True),
        ("off", True, "off", False),
    ],
)
def test_the_container_at_the_end_of_a_flow_has_a_row_with_the_result(
    server: RunningServer, http: httpx2.Client, session: str, mode: str, trace: bool, shown: str, kept: bool
) -> None:
    """As far as the mode of its run keeps it: an output that is not kept is in no row."""
    server.push(ENDS_IN.format(name="good", mode=mode, two=0))
    run(http, session, "ends-in-good", trace=trace)
    (execution,) = executions(http, session)
    assert [step["stepId"] for step in execution["steps"]] == ["first", "inner", "inner", "last"]
    last = execution["steps"][-1]
    assert (last["status"], last["attempt"], last["truncated"]) == ("completed", 1, False)
    assert last["startedAt"] == execution["steps"][1]["startedAt"]
    assert last["completedAt"] == execution["completedAt"]
    assert last["durationMs"] >= 0
    assert last.get("outputSnapshot") == ({"items": [{"n": 0.5}, {"n": 1.0}]} if kept else None)
    assert execution["steps"][0].get("inputSnapshot") == ({} if kept else None)
    assert (execution["traceCaptureMode"], execution["snapshotsAvailable"]) == (shown, kept)


def test_a_draft_that_has_changed_does_not_hide_the_result(
    server: RunningServer, http: httpx2.Client, session: str
) -> None:
    server.push(ENDS_IN.format(name="draft", mode="full", two=0), publish=False)
    run(http, session, "ends-in-draft")
    later = "slug: ends-in-draft\nsteps: [{id: first, type: passthrough}, {id: z, type: passthrough}]\n"
    server.push(later, publish=False)
    last = executions(http, session)[0]["steps"][-1]
    assert (last["stepId"], last["outputSnapshot"]) == ("last", {"items": [{"n": 0.5}, {"n": 1.0}]})


def test_the_error_is_the_one_that_the_caller_of_execute_got(http: httpx2.Client, session: str) -> None:
    answer = http.post("/seq/acme/demo/ends-in-bad/execute", json={}, headers={"X-Session-Id": session})
    got = detail(answer)
    (execution,) = executions(http, session)
    assert [(step["stepId"], step["status"]) for step in execution["steps"]] == [
        ("first", "completed"), ("inner", "failed"), ("last", "failed"),
    ]  # fmt: skip
    assert (execution["status"], execution["errorAtStep"], got["stepId"]) == ("failed", "inner", "inner")
    for step in execution["steps"][1:]:
        assert step["errorSnapshot"] == {name: got[name] for name in ("code", "message", "error")}
    assert got["code"] == "STEP_FAILED"
    assert got["error"]["code"] == "CODE_ERROR"
    assert "outputSnapshot" not in execution["steps"][-1]


def test_a_run_that_failed_before_its_last_container_did_not_end_in_it(
    http: httpx2.Client, session: str
) -> None:
    run(http, session, "fails-early")
    (execution,) = executions(http, session)
    assert [step["stepId"] for step in execution["steps"]] == ["bad"]


def ids(page: dict[str, Any]) -> list[str]:
    return [execution["executionId"] for execution in page["executions"]]


def test_a_limit_cuts_a_session_into_pages(http: httpx2.Client, session: str) -> None:
    runs = [run(http, session, "anything") for _ in range(5)]
    whole = executions(http, session)
    assert [execution["executionId"] for execution in whole] == runs
    for limit, sizes in ((1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (100, [5])):
        found = pages(http, f"/seq/sessions/{session}", limit=limit)
        assert [len(page["executions"]) for page in found] == sizes
        assert [one for page in found for one in page["executions"]] == whole
        assert {page["sessionId"] for page in found} == {session}


def test_a_session_that_does_not_fit_comes_in_pages_without_being_asked_for(
    http: httpx2.Client, session: str
) -> None:
    """No page is larger than 8 MB, and no page is cut that need not be."""
    runs = [run(http, session, "heavy", parameters={"over": [0] * 10}) for _ in range(5)]
    path = f"/seq/sessions/{session}"
    assert 5_000_000 < len(http.get(path).content) <= 8_000_000
    found = pages(http, path)
    assert [execution_id for page in found for execution_id in ids(page)] == runs
    assert [len(ids(page)) for page in found] == [3, 2]
    assert [len(ids(page)) for page in pages(http, path, limit=2)] == [2, 2, 1]


def test_a_run_that_is_larger_than_a_page_comes_as_one(http: httpx2.Client, session: str) -> None:
    # 45 iterations are more than a page of 8 MB has.
    runs = [run(http, session, "heavy", parameters={"over": [0] * count}) for count in (1, 45, 1)]
    found = pages(http, f"/seq/sessions/{session}")
    assert [ids(page) for page in found] == [[one] for one in runs]
    steps = [len(execution["steps"]) for page in found for execution in page["executions"]]
    assert steps == [2, 46, 2]


def test_a_run_that_is_deleted_meanwhile_hides_no_other(
    server: RunningServer, http: httpx2.Client, session: str, faults: FaultyStore
) -> None:
    runs = [run(http, session, "anything") for _ in range(3)]
    gone = server.call(server.runtime.store.run(runs[1]))
    assert gone is not None
    faults.fail("trace_page", RunPurged(gone.no), when=lambda run_no, **_: run_no == gone.no, times=1)
    assert [each["executionId"] for each in executions(http, session)] == [runs[0], runs[2]]
