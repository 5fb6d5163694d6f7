"""Lists that grow: the runs that `GET /flow-runs` shows since and until a time, and jobs in pages."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.stores import own_server
from tests.contract.wire import ANYTHING, BROKEN, ENDLESS, detail, execute, refusal

JOBS = "/seq/acme/demo/{}/jobs"


# One of its own: the lists are compared as wholes.
server = own_server(ANYTHING, BROKEN, ENDLESS, capture="full")


@pytest.fixture(scope="module")
def ids(server: RunningServer, http: httpx2.Client) -> list[str]:
    """Runs of `anything`, the oldest first, no two of one millisecond."""
    found: list[str] = []
    while len(found) < 4:
        run = execute(http, "anything")
        if not found or created(run) > created(found[-1]):
            found.append(run)
    return found


def created(run: str) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=UUID(run).int >> 80)


def listed(http: httpx2.Client, **query: Any) -> list[str]:
    answer = http.get("/flow-runs", params=query)
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["runs"]]


def test_since_includes_its_moment_and_until_excludes_it(http: httpx2.Client, ids: list[str]) -> None:
    for at, run in enumerate(ids):
        moment = created(run)
        everything = listed(http, flow="anything", limit=100)
        later = [other for other in everything if created(other) >= moment]
        assert ids[at] in later
        utc = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
        for time in (utc, utc.removesuffix("Z"), elsewhere):
            assert listed(http, flow="anything", since=time, limit=100) == later
            earlier = listed(http, flow="anything", until=time, limit=100)
            assert [*later, *earlier] == everything
        assert listed(http, since=utc, until=utc) == []


def test_a_flow_is_named_by_its_slug_or_its_id(
    server: RunningServer, http: httpx2.Client, ids: list[str]
) -> None:
    failed = detail(http.post("/seq/acme/demo/broken/execute", json={}))["executionId"]
    assert failed in listed(http, flow="broken")
    assert failed not in listed(http, flow="anything", limit=100)
    assert listed(http, flow="broken", status="completed") == []
    flow_id = http.get("/flows/acme/demo/anything").json()["id"]
    assert listed(http, flow="anything", limit=100) == listed(http, flow_id=flow_id, limit=100)
    both = http.get("/flow-runs", params={"flow": "anything", "flow_id": flow_id})
    assert refusal(both) == (422, "INVALID_REQUEST")
    assert refusal(http.get("/flow-runs?flow_slug=none")) == (422, "INVALID_REQUEST")
    assert refusal(http.get("/flow-runs?flow=none")) == (404, "FLOW_NOT_FOUND")
    server.push(ANYTHING.replace("anything", "theirs"), project="others")
    assert refusal(http.get("/flow-runs?flow=theirs")) == (404, "FLOW_NOT_FOUND")


def jobs(http: httpx2.Client, slug: str, **query: Any) -> dict[str, Any]:
    answer = http.get(JOBS.format(slug), params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert list(body) == ["jobs", "nextCursor"]
    return body


def test_the_jobs_of_a_flow_are_listed_newest_first_and_paged(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push(ANYTHING.replace("anything", "queued"))
    queued = []
    for _ in range(3):
        run = http.post(JOBS.format("queued"), json={}).json()["executionId"]
        http.get(f"/flow-runs/{run}/trace/stream")
        queued.append(run)
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


def test_jobs_are_filtered_by_the_status_that_they_read(server: RunningServer, http: httpx2.Client) -> None:
    going, stopped = (http.post(JOBS.format("endless"), json={}).json()["executionId"] for _ in range(2))
    http.delete(f"/flow-runs/{stopped}")
    http.get(f"/flow-runs/{stopped}/trace/stream")
    failed = http.post(JOBS.format("broken"), json={}).json()["executionId"]
    http.get(f"/flow-runs/{failed}/trace/stream")

    def found(slug: str, status: str) -> list[str]:
        page = jobs(http, slug, status=status)["jobs"]
        assert {job["status"] for job in page} <= {status}
        return [job["executionId"] for job in page]

    assert found("endless", "failed") == [stopped]
    assert going in found("endless", "running") + found("endless", "pending")
    assert found("endless", "completed") == []
    assert found("broken", "failed") == [failed]
    assert jobs(http, "endless")["jobs"][0]["error"] == "cancelled"
    assert (
        jobs(http, "broken")["jobs"][0]["error"]
        == (http.get(f"{JOBS.format('broken')}/{failed}").json()["error"])
    )
    http.delete(f"/flow-runs/{going}")
