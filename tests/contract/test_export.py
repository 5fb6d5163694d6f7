"""A run as a file: all of it, or its tree for other programs with every row of the outline."""

import json
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import cancel, execute, frames, ran, start, until_event
from tests.outlines import rows_in

SIDE_BY_SIDE = """
slug: side-by-side
steps:
  - id: both
    type: parallel
    branches:
      left: [{id: l, type: wait, ms: 30}]
      right: [{id: r, type: wait, ms: 30}]
  - id: each
    type: loop
    over: "[1, 2, 3, 4, 5, 6]"
    max_concurrency: 3
    steps:
      - {id: hold, type: wait, ms: 10}
      - {id: ask, type: llm, model: echo, prompt: "hi {{ item }}"}
"""
FAILING = """
slug: failing
steps:
  - {id: ask, type: llm, model: echo, system: be kind, prompt: "hi {{ message }}"}
  - id: bad
    type: code
    retry: {max_attempts: 2, initial_delay_ms: 0}
    code: raise ValueError("it broke")
"""
KIND_OF_CLIENT, KIND_INTERNAL = 3, 1


@pytest.fixture(scope="module")
def runs(server: RunningServer, http: httpx2.Client) -> dict[str, str]:
    """A run of each flow."""
    for flow in (SIDE_BY_SIDE, FAILING):
        server.push(flow)
    body = {"message": "a bb ccc", "parameters": {"rows": [list(range(20)), [30, 31], list(range(10, 40))]}}
    good = {slug: execute(http, slug, **body) for slug in ("words", "grid", "side-by-side")}
    return {**good, "failing": ran(http, "failing", message="you")}


def spans_of(http: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    (resource,) = http.get(f"/flow-runs/{run_id}/export?format=otlp").json()["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    assert scope["scope"]["name"] == "runglass"
    found: list[dict[str, Any]] = scope["spans"]
    return found


def rows_of(http: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    """The rows of the outline that have begun, with their parents as rows."""
    rows = rows_in(http.get(f"/flow-runs/{run_id}/trace/outline").content)
    for row in rows:
        row["parent"] = rows[row["parent"]] if row["parent"] >= 0 else None
    return [row for row in rows if row["start"] >= 0]


def name_of(row: dict[str, Any], *, attempt: str) -> str:
    if row["kind"] == "iteration":
        return f"{row['name']}[{row['index']}]"
    return attempt.format(**row) if row["kind"] == "attempt" else str(row["name"])


@pytest.mark.parametrize("slug", ["words", "grid", "side-by-side", "failing"])
def test_otlp_has_a_span_for_each_row_below_its_parent(
    http: httpx2.Client, runs: dict[str, str], slug: str
) -> None:
    run_id = runs[slug]
    spans = spans_of(http, run_id)
    root, *others = spans
    by_id = {span["spanId"]: span for span in spans}
    assert "parentSpanId" not in root
    assert root["traceId"] == run_id.replace("-", "")
    assert {span["traceId"] for span in spans} == {root["traceId"]}
    calls = [span for span in others if span["kind"] == KIND_OF_CLIENT]
    steps = http.get(f"/flow-runs/{run_id}/trace").json()["steps"]
    assert len(calls) == sum(len(step.get("modelCalls", [])) for step in steps)
    told = [span for span in others if span["kind"] == KIND_INTERNAL]
    rows = rows_of(http, run_id)
    assert [span["name"] for span in told] == [
        name_of(row, attempt="{name} attempt {attempt}") for row in rows
    ]
    for span, row in zip(told, rows, strict=True):
        parent = by_id[span["parentSpanId"]]
        above = row["parent"]
        assert parent["name"] == (root["name"] if above is None else name_of(above, attempt="{name}"))
        begun_ms = (int(span["startTimeUnixNano"]) - int(root["startTimeUnixNano"])) // 1_000_000
        took_ms = (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) // 1_000_000
        assert (begun_ms, begun_ms + took_ms) == (row["start"], row["end"])
        is_bad = row["status"] == "failed" or (row["kind"] == "attempt" and row["status"] == "retried")
        assert ("status" in span) == is_bad


def test_what_failed_says_so_with_its_error(http: httpx2.Client, runs: dict[str, str]) -> None:
    spans = spans_of(http, runs["failing"])
    bad = [span for span in spans if "status" in span]
    names = ["invoke_workflow failing", "bad", "bad attempt 1", "bad attempt 2"]
    assert [span["name"] for span in bad] == names
    assert {span["status"]["code"] for span in bad} == {2}
    assert all("it broke" in span["status"]["message"] for span in bad if span["name"] != "bad")
    assert {"key": "error.type", "value": {"stringValue": "CODE_ERROR"}} in bad[-1]["attributes"]


def test_lines_are_a_header_and_then_each_event_byte_for_byte_and_a_document_has_the_trace_as_well(
    http: httpx2.Client, runs: dict[str, str]
) -> None:
    words = runs["words"]
    answer = http.get(f"/flow-runs/{words}/export?format=jsonl")
    assert answer.headers["content-type"] == "application/jsonl"
    assert answer.headers["content-disposition"] == f'attachment; filename="words-{words}.jsonl"'
    header, *lines = answer.text.splitlines()
    flow = http.get("/flows/acme/demo/words").json()
    source = http.get("/flows/acme/demo/words/versions/1").json()
    described = {
        "format": "runglass-run",
        "formatVersion": 1,
        "runId": words,
        "version": 1,
        "capture": "full",
        "triggerType": "api",
        "flow": {"id": flow["id"], "slug": "words", "source": source},
    }
    assert json.loads(header) == described
    stream = http.get(f"/flow-runs/{words}/trace/stream").text
    assert lines == [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    answer = http.get(f"/flow-runs/{words}/export")
    assert answer.headers["content-type"] == "application/json"
    trace = http.get(f"/flow-runs/{words}/trace").json()
    assert answer.json() == {**described, "trace": trace, "events": [json.loads(line) for line in lines]}


def test_of_a_run_that_goes_on_it_is_the_part_up_to_now(server: RunningServer, http: httpx2.Client) -> None:
    """As spans it is what has ended."""
    run_id = start(server, "endless")
    until_event(http, run_id, "step_started", nth=2)
    document, perfetto = (
        http.get(f"/flow-runs/{run_id}/export?format={f}").json() for f in ("json", "perfetto")
    )
    spans = spans_of(http, run_id)
    cancel(server, run_id)
    assert [event["seq"] for event in document["events"]] == list(range(1, len(document["events"]) + 1))
    assert document["trace"]["flowRun"]["status"] == "running"
    stream = frames(http.get(f"/flow-runs/{run_id}/trace/stream").text)
    assert [frame.data for frame in stream[: len(document["events"])]] == document["events"]
    assert [span["name"] for span in spans] == ["first"]
    begun = [event["name"] for event in perfetto["traceEvents"] if event["ph"] == "B"]
    assert begun == ["endless", "first", "hold"]
    assert len([event for event in perfetto["traceEvents"] if event["ph"] == "E"]) == 1


@pytest.mark.parametrize("format", ["json", "jsonl", "otlp", "perfetto"])
def test_a_run_without_snapshots_is_exported_without_them(
    server: RunningServer, http: httpx2.Client, format: str
) -> None:
    secret = "only-in-the-answer"
    server.push(
        "slug: quiet\ncapture: metadata_only\n"
        "steps: [{id: keep, type: passthrough}, {id: ask, type: llm, model: echo, prompt: '{{ message }}'}]\n"
    )
    run_id = execute(http, "quiet", message=secret)
    text = http.get(f"/flow-runs/{run_id}/export", params={"format": format}).text
    assert "echo" in text
    assert secret not in text
