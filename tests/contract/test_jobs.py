"""Jobs, queued, polled and in pages; lists of runs since and until a time; and `DELETE` of a run.

Who may cancel which is in `test_roles.py`.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID as Uuid

import httpx2
import pytest
from msgspec.structs import replace

from runglass.testing import RunningServer
from tests.contract.wire import (
    ANYTHING,
    BROKEN,
    ENDLESS,
    UUID,
    detail,
    execute,
    frames,
    ran,
    read,
    refusal,
    start,
)
from tests.faulty_store import FaultyStore

JOBS = "/seq/acme/demo/{}/jobs"


def queue(http: httpx2.Client, slug: str, **body: Any) -> str:
    answer = http.post(JOBS.format(slug), json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["executionId"])


def ended(http: httpx2.Client, run: str, slug: str) -> dict[str, Any]:
    """The state of the job once its stream has come to the end."""
    http.get(f"/flow-runs/{run}/trace/stream")
    return read(http, f"{JOBS.format(slug)}/{run}")


def test_a_job_is_accepted_before_it_has_run(http: httpx2.Client) -> None:
    answer = http.post(JOBS.format("endless"), json={})
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


def test_jobs_that_failed_say_why_and_are_listed_by_the_status_that_they_read(
    server: RunningServer, http: httpx2.Client
) -> None:
    for flow, slug in ((ENDLESS, "endless"), (BROKEN, "broken")):
        server.push(flow.replace(slug, f"own-{slug}"))
    going, stopped = (queue(http, "own-endless") for _ in range(2))
    assert http.delete(f"/flow-runs/{stopped}").status_code == 202
    state = ended(http, stopped, "own-endless")
    assert state == {"executionId": stopped, "status": "failed", "error": "cancelled"}
    failed = queue(http, "own-broken")
    state = ended(http, failed, "own-broken")
    assert sorted(state) == ["error", "executionId", "status"]
    assert state["status"] == "failed"
    assert state["error"].startswith("step 'bad' failed: ")
    assert "it broke" in state["error"]
    assert state["error"].endswith("(CODE_ERROR)")

    def found(slug: str, status: str) -> list[tuple[str, str | None]]:
        page = jobs(http, slug, status=status)["jobs"]
        assert {job["status"] for job in page} <= {status}
        return [(job["executionId"], job.get("error")) for job in page]

    assert found("own-endless", "failed") == [(stopped, "cancelled")]
    assert (going, None) in found("own-endless", "running") + found("own-endless", "pending")
    assert found("own-endless", "completed") == []
    assert found("own-broken", "failed") == [(failed, state["error"])]
    http.delete(f"/flow-runs/{going}")


def test_a_job_is_polled_below_its_version_alone_and_has_its_whole_result_in_every_capture_mode(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push("slug: pinned\ncapture: 'off'\nsteps: [{id: a, type: passthrough}]\n")
    given = {"deep": {"list": [1, None, "é"]}, "large": [2**63, -(2**63) - 1, 2**64, 10**30]}
    for version, number in (("", 1), ("/v1", 1), ("/v0", 0)):
        run = queue(http, f"pinned{version}", message="hello", parameters=given)
        done = {"executionId": run, "status": "completed", "result": {**given, "message": "hello"}}
        for path in ("", f"/v{number}"):
            assert ended(http, run, f"pinned{path}") == done
        assert refusal(http.get(f"/seq/acme/demo/pinned/v{number + 1}/jobs/{run}")) == (404, "RUN_NOT_FOUND")
        assert refusal(http.get(f"/seq/acme/demo/pinned/latest/jobs/{run}")) == (400, "INVALID_VERSION")


def test_only_a_job_of_this_flow_is_found(http: httpx2.Client) -> None:
    run = queue(http, "anything")
    for path, code in [
        (f"/seq/acme/demo/words/jobs/{run}", "RUN_NOT_FOUND"),
        (f"/seq/acme/demo/none/jobs/{run}", "FLOW_NOT_FOUND"),
        (f"{JOBS.format('anything')}/01900000-0000-7000-8000-000000000000", "RUN_NOT_FOUND"),
        (f"{JOBS.format('anything')}/nonsense", "RUN_NOT_FOUND"),
        # The result of a run that is no job is its own caller's alone.
        (f"{JOBS.format('anything')}/{execute(http, 'anything')}", "RUN_NOT_FOUND"),
    ]:
        assert refusal(http.get(path)) == (404, code)


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function"}]}, {"toolChoice": "auto"}, {"tool_choice": {}}]
)
def test_a_job_takes_no_tools(http: httpx2.Client, fields: dict[str, Any]) -> None:
    assert refusal(http.post(JOBS.format("anything"), json=fields)) == (400, "TOOLS_REQUIRE_SYNC_EXECUTE")


def created(run: str) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=Uuid(run).int >> 80)


def listed(http: httpx2.Client, **query: Any) -> list[str]:
    return [run["id"] for run in read(http, "/flow-runs", **query)["runs"]]


def test_since_includes_its_moment_and_until_excludes_it(http: httpx2.Client) -> None:
    runs = [execute(http, "anything") for _ in range(4)]
    everything = listed(http, flow="anything", limit=100)
    for run in runs:
        moment = created(run)
        later = [other for other in everything if created(other) >= moment]
        assert run in later
        utc = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
        for time in (utc, utc.removesuffix("Z"), elsewhere):
            assert listed(http, flow="anything", since=time, limit=100) == later
            earlier = listed(http, flow="anything", until=time, limit=100)
            assert [*later, *earlier] == everything
        assert listed(http, since=utc, until=utc) == []


def test_a_flow_is_named_by_its_slug_or_its_id(server: RunningServer, http: httpx2.Client) -> None:
    failed, _ = ran(http, "broken"), execute(http, "anything")
    flow_id = http.get("/flows/acme/demo/broken").json()["id"]
    by_id = listed(http, flow_id=flow_id, limit=100)
    assert by_id == listed(http, flow="broken", status="failed", limit=100)
    assert by_id[0] == failed
    assert failed not in listed(http, flow="anything", limit=100)
    both = http.get("/flow-runs", params={"flow": "anything", "flow_id": flow_id})
    assert refusal(both) == (422, "INVALID_REQUEST")
    assert refusal(http.get("/flow-runs?flow_slug=none")) == (422, "INVALID_REQUEST")
    assert refusal(http.get("/flow-runs?flow=none")) == (404, "FLOW_NOT_FOUND")
    server.push(ANYTHING.replace("anything", "theirs"), project="others")
    assert refusal(http.get("/flow-runs?flow=theirs")) == (404, "FLOW_NOT_FOUND")


def jobs(http: httpx2.Client, slug: str, **query: Any) -> dict[str, Any]:
    body = read(http, JOBS.format(slug), **query)
    assert list(body) == ["jobs", "nextCursor"]
    return body


def test_the_jobs_of_a_flow_are_listed_newest_first_and_paged(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push(ANYTHING.replace("anything", "queued"))
    queued = []
    for _ in range(3):
        queued.append(queue(http, "queued"))
        ended(http, queued[-1], "queued")
        execute(http, "queued")
    whole = jobs(http, "queued")
    assert [job["executionId"] for job in whole["jobs"]] == queued[::-1]
    assert whole["nextCursor"] is None
    for job in whole["jobs"]:
        assert list(job) == ["executionId", "status", "version", "createdAt", "startedAt", "completedAt"]
        assert (job["status"], job["version"]) == ("completed", 1)
        assert job["createdAt"] <= job["startedAt"] <= job["completedAt"]
    first = jobs(http, "queued", limit=2)
    rest = jobs(http, "queued", limit=2, cursor=first["nextCursor"])
    assert first["jobs"] + rest["jobs"] == whole["jobs"]
    assert rest["nextCursor"] is None


DELETED_AT = ["/flow-runs/{}", "/seq/acme/demo/{slug}/runs/{}"]


def active(server: RunningServer, http: httpx2.Client) -> str:
    """A run of `endless` that has begun, or is about to."""
    return start(server, "endless")


def paused(server: RunningServer, http: httpx2.Client) -> str:
    """A run of `endless` that waits after its first step."""
    walked = frames(http.post("/seq/acme/demo/endless/step", json={}).text)
    assert walked[-1].event == "step_paused"
    return str(walked[0].data["executionId"])


@pytest.mark.parametrize("form", DELETED_AT)
@pytest.mark.parametrize("begun", [active, paused])
def test_a_run_that_goes_on_or_waits_is_cancelled_once(
    server: RunningServer, http: httpx2.Client, begun: Callable[..., str], form: str
) -> None:
    run = begun(server, http)
    path = form.format(run, slug="endless")
    below_another_flow = http.delete(f"/seq/acme/demo/words/runs/{run}")
    assert refusal(below_another_flow) == (404, "RUN_NOT_FOUND")
    answer = http.delete(path)
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json() == {"executionId": run, "status": "cancelled"}
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "cancelled"
    last = frames(http.get(f"/flow-runs/{run}/trace/stream").text)[-1]
    assert (last.event, last.data["reason"]) == ("flow_cancelled", f"cancelled by the key {server.key[:16]}")
    assert refusal(http.delete(path)) == (409, "RUN_ENDED")


@pytest.mark.parametrize(("begun", "seen_as"), [(paused, "running"), (active, "paused"), (active, "pending")])
def test_a_run_that_goes_on_or_pauses_while_it_is_looked_up_is_cancelled(
    server: RunningServer,
    http: httpx2.Client,
    faults: FaultyStore,
    begun: Callable[..., str],
    seen_as: str,
) -> None:
    run = begun(server, http)
    faults.after("run", lambda found: replace(found, status=seen_as), times=1, replaces=True)
    assert http.delete(f"/flow-runs/{run}").status_code == 202
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "cancelled"


@pytest.mark.parametrize("form", DELETED_AT)
@pytest.mark.parametrize("slug", ["anything", "broken"])
def test_a_run_that_has_ended_is_409_and_stays_as_it_is(http: httpx2.Client, slug: str, form: str) -> None:
    run = ran(http, slug)
    before = http.get(f"/flow-runs/{run}/trace").content
    answer = http.delete(form.format(run, slug=slug))
    assert refusal(answer) == (409, "RUN_ENDED")
    assert detail(answer)["executionId"] == run
    assert http.get(f"/flow-runs/{run}/trace").content == before
