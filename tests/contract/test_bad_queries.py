"""A bad value in a query is refused by the name of its parameter, on every path that reads one."""

import httpx2
import pytest

from tests.contract.wire import refusal

SESSION = "0190b5f0-1c2d-7000-8000-00000000bad0"
NO_TIMES = ("", "yesterday", "2026-13-01", "2026-01-01T00:00:00 02:00", "1700000000000")
NO_CURSORS = ("cursor=", "cursor=x", "cursor=é", "cursor=%21", "cursor=AZogFR2WdbYhdO00g==extra")
NO_LIMITS = ("limit=0", "limit=101", "limit=x", "limit=", "limit=5&limit=6", "limt=5")
NO_MANAGED_LIMITS = ("limit=0", "limit=1001", "limit=all", "limit=", "limt=5")
BELOW_A_RUN = {
    "steps/keep/trace": (
        *("attempt=0", "attempt=newest", "attempt=", "attempt=1&attempt=2"),
        *("loop_index=x", "loopindex=1", "position=0", "position=x"),
        *("part_bytes=1023", "part_bytes=2000&attempt=all"),
    ),
    "steps/keep/payload": ("part=prompt", "attempt=all", "attempt=0", "loop_index=x"),
    "steps/keep/diff": ("with_attempt=all",),
    "trace/stream": ("after=x", "after=-1", "after=1.5", "after=1 2", f"after={'9' * 19}", "after="),
    "trace/outline": ("after=-1", "after=x", "limit=0", "limit=200001", "seq=-1", "seq=none"),
    "trace/timeline": ("to=5&from=5", "buckets=0", "buckets=2001", "from=-1", "to=x"),
    "export": ("format=xml",),
    "diff/{run}": ("all=perhaps",),
}
QUERIES: dict[str, tuple[str, ...]] = {
    "/flow-runs": (
        *(*NO_LIMITS, *NO_CURSORS, "status=done", "status=", "status=null", "flow_di=x", "page=2"),
        *(f"{name}={time}" for name in ("since", "until") for time in NO_TIMES),
    ),
    "/flow-runs/histogram": ("buckets=0", "buckets=9", "buckets=201", "buckets=many"),
    "/flow-runs/stream": ("after=x", "limit=5"),
    "/seq/acme/demo/anything/jobs": (
        *NO_LIMITS,
        *NO_CURSORS,
        "status=paused",
        "status=null",
        "stauts=failed",
    ),
    "/seq/sessions/{session}": (*NO_LIMITS, *NO_CURSORS),
    **dict.fromkeys(
        ("/flows", "/flows/acme/demo", "/flows/acme/demo/anything", "/keys"),
        (*NO_MANAGED_LIMITS, "cursor=", "cursor=%21", "cursor=_w", "cursor=é"),
    ),
    "/audit": (*NO_LIMITS, "cursor=x", f"cursor={'_' * 11}", "since=soon", "actor=x"),
    **{f"/flow-runs/{{run}}/{path}": queries for path, queries in BELOW_A_RUN.items()},
}


@pytest.fixture(scope="module")
def run(http: httpx2.Client) -> str:
    answer = http.post("/seq/acme/demo/anything/execute", json={}, headers={"X-Session-Id": SESSION})
    return str(answer.json()["executionId"])


@pytest.mark.parametrize(("path", "query"), [(path, each) for path in QUERIES for each in QUERIES[path]])
def test_a_bad_query_is_refused_by_the_name_of_its_parameter(
    http: httpx2.Client, run: str, path: str, query: str
) -> None:
    answer = http.get(f"{path.format(run=run, session=SESSION)}?{query}")
    name = query.partition("=")[0]
    said = f"`{name}`: unknown parameter; did you mean 'limit'" if name == "limt" else f"`{name}`"
    assert refusal(answer, said) == (422, "INVALID_REQUEST")
