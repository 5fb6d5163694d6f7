"""`GET /flow-runs?q=` and the histogram: the query language over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, BROKEN, detail, execute, ran, read, refusal
from tests.servers import server_with
from tests.waiting import eventually

# One of its own: the lists are compared as wholes.
server = server_with(ANYTHING, BROKEN, capture="full")


@pytest.fixture(scope="module")
def runs(http: httpx2.Client) -> dict[str, str]:
    """A run that went well, one that failed and one of a job."""
    well, failed = execute(http, "anything"), ran(http, "broken")
    job = http.post("/seq/acme/demo/anything/jobs", json={}).json()["executionId"]
    http.get(f"/flow-runs/{job}/trace/stream")
    return {"well": well, "failed": failed, "job": job}


def found(http: httpx2.Client, query: str, *, limit: int = 20, **more: Any) -> list[str]:
    """The runs, from as many pages as it takes: a server on a busy machine may search in several."""
    runs: list[str] = []
    while True:
        page = read(http, "/flow-runs", q=query, limit=limit - len(runs), **more)
        runs += [run["id"] for run in page["runs"]]
        more["cursor"] = page["nextCursor"]
        if len(runs) == limit or more["cursor"] is None:
            return runs


def counted(http: httpx2.Client, **query: Any) -> dict[str, Any]:
    """The histogram, once the server has had the time to count all."""

    def whole() -> dict[str, Any] | None:
        body = read(http, "/flow-runs/histogram", **query)
        return None if "countedFrom" in body else body

    return eventually(whole)


def test_a_query_finds_runs(http: httpx2.Client, runs: dict[str, str]) -> None:
    well, failed, job = runs["well"], runs["failed"], runs["job"]
    assert found(http, "") == [job, failed, well]
    assert found(http, "status:failed") == [failed]
    assert found(http, "-status:failed") == [job, well]
    assert found(http, "flow:anything trigger:job") == [job]
    assert found(http, "flow:broken,anything since:1h") == [job, failed, well]
    assert found(http, "until:1h") == []
    assert found(http, "status:completed", flow="anything", limit=1) == [job]
    assert found(http, "trigger:api", status="failed", until="9999-12-31") == [failed]


def test_a_flow_in_a_query_is_a_slug_or_an_id_of_the_project_and_what_is_wrong_is_told_with_its_place(
    server: RunningServer, http: httpx2.Client, runs: dict[str, str]
) -> None:
    flow_id = http.get("/flows/acme/demo/broken").json()["id"]
    assert found(http, f"flow:{flow_id}") == found(http, "flow:broken") == [runs["failed"]]
    for path in ("/flow-runs", "/flow-runs/histogram"):
        for term, said in (
            ("flow:borken", "the project has no flow 'borken'; did you mean 'broken'?"),
            ("statsu:failed", "unknown field 'statsu'; did you mean 'status'?"),
        ):
            answer = http.get(path, params={"q": f"status:failed {term}"})
            assert refusal(answer, said) == (422, "INVALID_REQUEST")
            assert (detail(answer)["position"], detail(answer)["term"]) == (14, term)
    theirs = server.push(ANYTHING.replace("anything", "theirs"), project="others")
    for name in ("theirs", str(getattr(theirs, "id", "theirs"))):
        assert refusal(http.get("/flow-runs", params={"q": f"flow:{name}"})) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("until", ["0001-01-01", "9999-12-31T23:59:59-14:00"])
def test_the_histogram_of_the_ends_of_time(http: httpx2.Client, since: str, until: str) -> None:
    found = read(http, "/flow-runs/histogram", since=since, until=until, buckets="10", round="true")
    assert "1970-01-01T00:00:00.000Z" <= found["from"] <= found["to"] <= "9999-12-31T23:59:59.999Z"
    assert len(found["buckets"]) <= 11


def test_the_histogram_counts_the_runs_of_a_query(http: httpx2.Client, runs: dict[str, str]) -> None:
    whole = counted(http)
    assert list(whole) == ["from", "to", "bucketMs", "buckets"]
    assert len(whole["buckets"]) == 60
    assert [sum(bucket[name] for bucket in whole["buckets"]) for name in ("runs", "failed")] == [3, 1]
    begin, end = (datetime.fromisoformat(whole[name]) for name in ("from", "to"))
    assert end - begin == timedelta(milliseconds=60 * whole["bucketMs"])
    assert begin <= datetime.now(UTC) <= end + timedelta(minutes=5)
    job = counted(http, q="trigger:job since:10h until:2999-01-01", buckets=10)
    assert sum(bucket["runs"] for bucket in job["buckets"]) == 1
    assert job["buckets"][-1] == {"runs": 1, "failed": 0}
    assert job["bucketMs"] == pytest.approx(3_600_000, rel=0.01)
    none = counted(http, q="status:cancelled")
    assert sum(bucket["runs"] for bucket in none["buckets"]) == 0
