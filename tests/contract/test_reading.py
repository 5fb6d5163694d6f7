"""Traces, single steps and what is kept of their content, in both path forms."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import FLOWS, detail, execute, known_key, read, refusal
from tests.servers import server_with

BIG = """
slug: big
steps:
  - {id: make, type: code, code: 'return {"text": "é" * 600_000}'}
"""

RUN_FIELDS = {
    *("id", "flowId", "flowSlug", "version", "status", "triggerType", "startedAt", "stepCount", "totals"),
    *("completedAt", "durationMs", "startedBy", "expectedSteps"),
    *("input", "inputPreview", "result", "resultPreview"),
}
STEP_FIELDS = {"attempt", "status", "stepId", "truncated", "startedAt", "inputSizeBytes"}
"""Those of each that was not skipped; which others there are, and that none is null, a second fold shows."""

# One that keeps large content whole.
server = server_with(*FLOWS, BIG, capture="full", snapshot_limit_bytes=10_000_000)


@pytest.fixture(scope="module")
def grid(http: httpx2.Client) -> str:
    return execute(http, "grid", parameters={"rows": [[0, 1], [10, 11, 12]]})


def test_a_trace_has_the_run_and_its_steps_in_order_of_first_start(
    server: RunningServer, http: httpx2.Client, base: str, words: str
) -> None:
    answer = http.get(f"{base}/trace")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    trace = answer.json()
    assert list(trace) == ["flowRun", "steps"]
    run = trace["flowRun"]
    assert set(run) == RUN_FIELDS
    assert run["expectedSteps"] == len(trace["steps"])
    assert all(set(step) >= STEP_FIELDS for step in trace["steps"] if step["status"] != "skipped")
    assert (run["id"], run["status"], run["stepCount"]) == (words, "completed", 5)
    assert run["startedBy"] == known_key(server, server.key).hint
    assert run["startedAt"].endswith("Z")
    assert isinstance(run["durationMs"], int)
    assert [(s["stepId"], s.get("loopIndex"), s["attempt"], s["status"]) for s in trace["steps"]] == [
        ("split", None, 1, "completed"),
        ("say", 0, 1, "completed"),
        ("shout", 0, 1, "completed"),
        ("say", 1, 1, "completed"),
        ("shout", 1, 2, "completed"),
        ("few", None, 1, "skipped"),
        ("many", None, 1, "completed"),
    ]


@pytest.mark.parametrize("form", ["/flow-runs/{}", "/seq/acme/demo/grid/runs/{}"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ((1, 2), 1)),
        ("attempt=latest", ((1, 2), 1)),
        ("attempt=1", ((1, 2), 1)),
        ("loop_index=1,1", ((1, 1), 2)),
        ("loop_index=1,1&attempt=1", ((1, 1), 1)),
        ("loop_index=1,1&attempt=2", ((1, 1), 2)),
        ("loop_index=0,1", ((0, 1), 1)),
        ("loop_index=2", ((1, 2), 1)),
        ("loop_index=0", ((1, 0), 1)),
        ("loop_index=0%2C1", ((0, 1), 1)),
        ("attempt=all&loop_index=1,1", [((1, 1), 1), ((1, 1), 2)]),
        ("attempt=all&loop_index=1", [((0, 1), 1), ((1, 1), 1), ((1, 1), 2)]),
        ("attempt=all", [((0, 0), 1), ((0, 1), 1), ((1, 0), 1), ((1, 1), 1), ((1, 1), 2), ((1, 2), 1)]),
    ],
)
def test_attempt_and_loop_index_select_the_attempt(
    http: httpx2.Client, grid: str, form: str, query: str, expected: Any
) -> None:
    """Iteration and attempt of the answer, or of all in it, each as it is among all."""
    path = f"{form.format(grid)}/steps/cell/trace"
    body = read(http, f"{path}?{query}")
    steps = body.get("attempts", [body])
    every = read(http, f"{path}?attempt=all")["attempts"]
    assert [step for step in steps if step not in every] == []
    found = [(tuple(step["loopPath"]), step["attempt"]) for step in steps]
    assert (found if "attempts" in body else found[0]) == expected


@pytest.mark.parametrize(
    "step",
    [
        "none/trace",
        "split/trace?attempt=2",
        "split/trace?loop_index=0",
        "shout/trace?loop_index=2",
        "shout/trace?loop_index=0&attempt=2",
        "shout/trace?loop_index=0,1",
        "shout/trace?attempt=all&loop_index=7",
        "each/trace",
    ],
)
def test_an_unknown_step_attempt_or_iteration_is_not_found(http: httpx2.Client, base: str, step: str) -> None:
    answer = http.get(f"{base}/steps/{step}")
    assert refusal(answer) == (404, "STEP_NOT_FOUND")
    assert detail(answer)["stepId"] == step.split("/")[0]
    assert detail(answer)["executionId"] == base.rpartition("/")[2]


def test_both_spellings_of_a_query_parameter_are_taken(http: httpx2.Client, base: str) -> None:
    path = f"{base}/steps/shout/trace?attempt=1"
    assert http.get(f"{path}&loopIndex=0").json() == http.get(f"{path}&loop_index=0").json()
    assert http.get(f"{path}&loopIndex=0").json()["loopIndex"] == 0
    for wrong in ("loopIndex=x", "loopIndex=0&loop_index=0"):
        assert refusal(http.get(f"{path}&{wrong}"), "`loop_index`") == (422, "INVALID_REQUEST")


def test_an_unknown_query_parameter_is_ignored(http: httpx2.Client, base: str) -> None:
    for path in (f"{base}/trace", f"{base}/steps/split/trace"):
        for query in ("_=1700000000", "x=1&x=2", "%ff=%ff", "="):
            assert http.get(f"{path}?{query}").json() == http.get(path).json()


@pytest.mark.parametrize("resource", ["trace", "steps/split/trace", "trace/stream"])
def test_a_runs_id_is_taken_in_upper_case(http: httpx2.Client, words: str, resource: str) -> None:
    for form in ("/flow-runs/{}/{}", "/seq/acme/demo/words/runs/{}/{}"):
        answer = http.get(form.format(words.upper(), resource))
        assert (answer.status_code, answer.text) == (200, http.get(form.format(words, resource)).text)


@pytest.mark.parametrize("resource", ["trace", "steps/a/trace", "trace/stream"])
@pytest.mark.parametrize("run", ["nonsense", "%00", "é"])
def test_the_trace_of_an_unknown_run_is_not_found(
    http: httpx2.Client, words: str, resource: str, run: str
) -> None:
    bases = [f"/flow-runs/{run}", f"/seq/acme/demo/words/runs/{run}", f"/seq/acme/demo/grid/runs/{words}"]
    for base in bases:
        assert refusal(http.get(f"{base}/{resource}")) == (404, "RUN_NOT_FOUND")


def test_a_page_has_20_runs_unless_asked_otherwise(http: httpx2.Client) -> None:
    for number in range(21):
        execute(http, "anything", parameters={"n": number})
    assert len(http.get("/flow-runs").json()["runs"]) == 20
    assert len(http.get("/flow-runs?limit=21").json()["runs"]) == 21


@pytest.fixture(scope="module")
def kept(http: httpx2.Client) -> str:
    """The path of the content of a step, whose output is as its input."""
    run = execute(http, "anything", parameters={"text": "größer", "list": [1, 2.5, None]})
    return f"/flow-runs/{run}/steps/keep/payload"


def test_content_is_as_in_the_trace_in_both_forms_of_the_path(http: httpx2.Client, kept: str) -> None:
    run = kept.split("/")[2]
    trace = http.get(f"/flow-runs/{run}/steps/keep/trace")
    for path in (kept, f"/seq/acme/demo/anything/runs/{run}/steps/keep/payload"):
        for part in ("input", "output"):
            answer = http.get(path, params={"part": part})
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert answer.headers["accept-ranges"] == "bytes"
            assert answer.json() == trace.json()[f"{part}Context"]
            assert answer.content in trace.content
    assert http.get(kept).content == http.get(f"{kept}?part=output").content


def test_large_content_comes_whole_and_joins_from_its_ranges(http: httpx2.Client) -> None:
    path = f"/flow-runs/{execute(http, 'big')}/steps/make/payload"
    whole = http.get(path)
    assert whole.headers["content-length"] == str(len(whole.content))
    assert whole.json() == {"text": "é" * 600_000}
    joined, step = b"", 500_000
    while len(joined) < len(whole.content):
        headers = {"Range": f"bytes={len(joined)}-{len(joined) + step - 1}"}
        part = http.get(path, headers=headers | {"If-Range": whole.headers["etag"]})
        assert part.status_code == 206
        first, joined = len(joined), joined + part.content
        assert part.headers["content-range"] == f"bytes {first}-{len(joined) - 1}/{len(whole.content)}"
    assert joined == whole.content
    changed = http.get(path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=9999999-"}):
        head = http.head(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.headers["etag"] == whole.headers["etag"]


def test_a_range_beyond_the_end_what_is_known_and_what_there_is_not_are_told_apart(
    http: httpx2.Client, kept: str
) -> None:
    whole = http.get(kept)
    size, tag = len(whole.content), whole.headers["etag"]
    beyond = http.get(kept, headers={"Range": f"bytes={size}-"})
    assert refusal(beyond, str(size)) == (416, "INVALID_REQUEST")
    assert beyond.headers["content-range"] == f"bytes */{size}"
    for named in (tag, f'"another", W/{tag}', "*"):
        known = http.get(kept, headers={"If-None-Match": named, "Range": "bytes=0-1"})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    for other in ("", '"another"'):
        assert http.get(kept, headers={"If-None-Match": other}).status_code == 200
    assert refusal(http.get(f"{kept}?part=error")) == (404, "CONTENT_NOT_KEPT")
    assert refusal(http.get(f"{kept}?attempt=7")) == (404, "STEP_NOT_FOUND")
    assert refusal(http.get(kept.replace("keep", "none"))) == (404, "STEP_NOT_FOUND")


def test_a_trace_of_an_attempt_leaves_out_what_is_larger_than_asked_for(http: httpx2.Client) -> None:
    run = execute(http, "big")
    path = f"/flow-runs/{run}/steps/make/trace"
    whole = http.get(path)
    short = http.get(path, params={"part_bytes": "2000"})
    size = len(http.get(f"/flow-runs/{run}/steps/make/payload").content)
    expected = {name: value for name, value in whole.json().items() if name != "outputContext"}
    assert short.json() == expected | {"leftOut": {"output": size}}
    assert http.get(path, params={"part_bytes": str(size)}).json() == whole.json()
