"""`POST …/jobs` and `GET …/jobs/{executionId}`."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import UUID, execute, refusal

JOBS = "/seq/acme/demo/anything/jobs"


def queue(http: httpx2.Client, slug: str, **body: Any) -> str:
    answer = http.post(f"/seq/acme/demo/{slug}/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["executionId"])


def ended(http: httpx2.Client, run: str, slug: str) -> dict[str, Any]:
    """The state of the job once its stream has come to the end."""
    http.get(f"/flow-runs/{run}/trace/stream")
    state: dict[str, Any] = http.get(f"/seq/acme/demo/{slug}/jobs/{run}").json()
    return state


def test_a_job_is_accepted_before_it_has_run(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/endless/jobs", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    body = answer.json()
    assert sorted(body) == ["blockCount", "executionId", "flowId", "status"]
    assert (body["status"], body["blockCount"]) == ("pending", 2)
    run = body["executionId"]
    assert UUID.fullmatch(run)
    state = http.get(f"/seq/acme/demo/endless/jobs/{run}").json()
    assert state == {"executionId": run, "status": state["status"]}
    assert state["status"] in ("pending", "running")
    summary = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
    assert (summary["triggerType"], summary["flowId"]) == ("job", body["flowId"])
    http.delete(f"/flow-runs/{run}")


def test_a_completed_job_has_its_whole_result_whatever_the_capture_mode(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push("slug: quiet\ncapture: 'off'\nsteps: [{id: a, type: passthrough}]\n")
    given = {"deep": [1, None, "é"], "large": 10**30}
    run = queue(http, "quiet", message="hello", parameters=given)
    assert ended(http, run, "quiet") == {
        "executionId": run,
        "status": "completed",
        "result": {**given, "message": "hello"},
    }


def test_a_failed_job_says_what_failed_and_where(http: httpx2.Client) -> None:
    run = queue(http, "broken")
    state = ended(http, run, "broken")
    assert sorted(state) == ["error", "executionId", "status"]
    assert state["status"] == "failed"
    assert state["error"].startswith("step 'bad' failed: ")
    assert "it broke" in state["error"]
    assert state["error"].endswith("(CODE_ERROR)")


def test_a_cancelled_job_reads_failed_with_the_error_cancelled(http: httpx2.Client) -> None:
    run = queue(http, "endless")
    assert http.delete(f"/flow-runs/{run}").status_code == 202
    state = ended(http, run, "endless")
    assert state == {"executionId": run, "status": "failed", "error": "cancelled"}


def test_a_job_is_polled_below_its_version_alone(server: RunningServer, http: httpx2.Client) -> None:
    server.push("slug: pinned\nsteps: [{id: a, type: passthrough}]\n")
    for version, number in (("", 1), ("/v1", 1), ("/v0", 0)):
        run = http.post(f"/seq/acme/demo/pinned{version}/jobs", json={}).json()["executionId"]
        for path in ("", f"/v{number}"):
            assert http.get(f"/seq/acme/demo/pinned{path}/jobs/{run}").json()["executionId"] == run
        assert refusal(http.get(f"/seq/acme/demo/pinned/v{number + 1}/jobs/{run}")) == (404, "RUN_NOT_FOUND")
        assert refusal(http.get(f"/seq/acme/demo/pinned/latest/jobs/{run}")) == (400, "INVALID_VERSION")


def test_only_a_job_of_this_flow_is_found(http: httpx2.Client) -> None:
    run = queue(http, "anything")
    for path, code in [
        (f"/seq/acme/demo/words/jobs/{run}", "RUN_NOT_FOUND"),
        (f"/seq/acme/demo/none/jobs/{run}", "FLOW_NOT_FOUND"),
        (f"{JOBS}/01900000-0000-7000-8000-000000000000", "RUN_NOT_FOUND"),
        (f"{JOBS}/nonsense", "RUN_NOT_FOUND"),
        # The result of a run that is no job is its own caller's alone.
        (f"{JOBS}/{execute(http, 'anything')}", "RUN_NOT_FOUND"),
    ]:
        assert refusal(http.get(path)) == (404, code)


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function"}]}, {"toolChoice": "auto"}, {"tool_choice": {}}]
)
def test_a_job_takes_no_tools(http: httpx2.Client, fields: dict[str, Any]) -> None:
    assert refusal(http.post(JOBS, json=fields)) == (400, "TOOLS_REQUIRE_SYNC_EXECUTE")
