"""The tree of a run for other programs: OTLP and trace events, each with every row of the outline."""

import base64
import json
from typing import Any

import httpx2
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runglass.testing import RunningServer
from tests.contract.wire import cancel, execute, start

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


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for flow in (SIDE_BY_SIDE, FAILING):
        server.push(flow)


@pytest.fixture(scope="module")
def failed(flows: None, http: httpx2.Client) -> str:
    answer = http.post("/seq/acme/demo/failing/execute", json={"message": "you"})
    run_id: str = answer.json()["detail"]["executionId"]
    return run_id


@pytest.fixture(scope="module", params=["words", "grid", "side-by-side", "failing"])
def run_id(request: pytest.FixtureRequest, failed: str, http: httpx2.Client) -> str:
    if request.param == "failing":
        return failed
    bodies: dict[str, dict[str, Any]] = {
        "words": {"message": "a bb ccc"},
        "grid": {"parameters": {"rows": [list(range(20)), [30, 31], list(range(10, 40))]}},
        "side-by-side": {},
    }
    return execute(http, request.param, **bodies[request.param])


def spans_of(http: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    (resource,) = http.get(f"/flow-runs/{run_id}/export?format=otlp").json()["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    assert scope["scope"]["name"] == "runglass"
    found: list[dict[str, Any]] = scope["spans"]
    return found


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in span["attributes"]}


def slices_of(http: httpx2.Client, run_id: str) -> list[tuple[str, ...]]:
    """The path of each slice, from the slice of the run on, as the viewer nests them."""
    document = http.get(f"/flow-runs/{run_id}/export?format=perfetto").json()
    opened: dict[int, list[dict[str, Any]]] = {}
    found = []
    times: dict[int, int] = {}
    for event in document["traceEvents"]:
        if event["ph"] == "M":
            continue
        track = event["tid"]
        assert event["ts"] >= times.get(track, 0), "on a track, time goes on"
        times[track] = event["ts"]
        stack = opened.setdefault(track, [])
        if event["ph"] == "B":
            stack.append(event)
            found.append(tuple(each["name"] for each in stack))
        else:
            assert event["ph"] == "E"
            stack.pop()
    assert not any(opened.values()), "each slice ends"
    return found


def rows_of(http: httpx2.Client, run_id: str) -> list[dict[str, Any]]:
    """The rows of the outline that have begun, with their parents as rows."""
    outline = http.get(f"/flow-runs/{run_id}/trace/outline").json()
    columns = outline["columns"]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        row["kind"], row["name"] = outline["kinds"][row["kind"]], outline["names"][row["name"]]
        row["status"] = outline["statuses"][row["status"]]
        row["parent"] = rows[row["parent"]] if row["parent"] >= 0 else None
    return [row for row in rows if row["start"] >= 0]


def name_of(row: dict[str, Any], *, attempt: str) -> str:
    if row["kind"] == "iteration":
        return f"{row['name']}[{row['index']}]"
    return attempt.format(**row) if row["kind"] == "attempt" else str(row["name"])


def calls_of(http: httpx2.Client, run_id: str) -> int:
    steps = http.get(f"/flow-runs/{run_id}/trace").json()["steps"]
    return sum(len(step.get("modelCalls", [])) for step in steps)


def test_otlp_is_what_its_schema_says(http: httpx2.Client, run_id: str) -> None:
    document = http.get(f"/flow-runs/{run_id}/export?format=otlp").json()
    for resource in document["resourceSpans"]:
        for span in resource["scopeSpans"][0]["spans"]:
            for name, size in (("traceId", 16), ("spanId", 8), ("parentSpanId", 8)):
                if name in span:
                    # OTLP has ids in hexadecimal, where JSON of protobuf has bytes in Base64.
                    data = bytes.fromhex(span[name])
                    assert len(data) == size
                    assert any(data)
                    span[name] = base64.b64encode(data).decode()
            assert type(span["startTimeUnixNano"]) is type(span["endTimeUnixNano"]) is str
    read = json_format.Parse(json.dumps(document), ExportTraceServiceRequest())
    spans = read.resource_spans[0].scope_spans[0].spans
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano > 0 for span in spans)
    assert len({span.span_id for span in spans}) == len(spans)


def test_otlp_has_a_span_for_each_row_below_its_parent(http: httpx2.Client, run_id: str) -> None:
    spans = spans_of(http, run_id)
    root, *others = spans
    by_id = {span["spanId"]: span for span in spans}
    assert "parentSpanId" not in root
    assert root["traceId"] == run_id.replace("-", "")
    assert {span["traceId"] for span in spans} == {root["traceId"]}
    calls = [span for span in others if span["kind"] == KIND_OF_CLIENT]
    assert len(calls) == calls_of(http, run_id)
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


def test_a_model_call_follows_the_conventions_for_generative_ai(http: httpx2.Client, failed: str) -> None:
    (call,) = [span for span in spans_of(http, failed) if span["kind"] == KIND_OF_CLIENT]
    told = attributes(call)
    assert call["name"] == "chat echo"
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("chat", "runglass")
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "echo"
    assert told["gen_ai.response.finish_reasons"] == {"values": [{"stringValue": "stop"}]}
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == ("4", "2")
    assert json.loads(told["gen_ai.system_instructions"]) == [{"type": "text", "content": "be kind"}]
    part = {"type": "text", "content": "hi you"}
    assert json.loads(told["gen_ai.input.messages"]) == [{"role": "user", "parts": [part]}]
    assert json.loads(told["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [part], "finish_reason": "stop"}
    ]


def test_what_failed_says_so_with_its_error(http: httpx2.Client, failed: str) -> None:
    spans = spans_of(http, failed)
    bad = [span for span in spans if "status" in span]
    assert [span["name"] for span in bad] == [
        "invoke_workflow failing",
        "bad",
        "bad attempt 1",
        "bad attempt 2",
    ]
    assert {span["status"]["code"] for span in bad} == {2}
    assert all("it broke" in span["status"]["message"] for span in bad if span["name"] != "bad")
    assert attributes(bad[-1])["error.type"] == "CODE_ERROR"


def test_the_trace_is_that_of_the_call_that_started_the_run(http: httpx2.Client) -> None:
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    answer = http.post(
        "/seq/acme/demo/anything/execute", json={}, headers={"traceparent": f"00-{trace_id}-{parent_id}-01"}
    )
    root, *others = spans_of(http, answer.json()["executionId"])
    assert (root["traceId"], root["parentSpanId"]) == (trace_id, parent_id)
    assert {span["traceId"] for span in others} == {trace_id}


def test_two_exports_are_the_same(http: httpx2.Client, run_id: str) -> None:
    for format in ("otlp", "perfetto"):
        one, other = (http.get(f"/flow-runs/{run_id}/export?format={format}").content for _ in range(2))
        assert one == other


def test_slices_nest_as_the_tree_does(http: httpx2.Client, run_id: str) -> None:
    found = slices_of(http, run_id)
    rows = rows_of(http, run_id)
    shown = [path for path in found if not path[-1].startswith("chat ")]
    assert [path[-1] for path in shown[1:]] == [name_of(row, attempt="attempt {attempt}") for row in rows]
    assert len(found) - len(shown) == calls_of(http, run_id)
    for path, row in zip(shown[1:], rows, strict=True):
        above = []
        parent = row["parent"]
        while parent is not None:
            above.append(name_of(parent, attempt="attempt {attempt}"))
            parent = parent["parent"]
        whole = (shown[0][0], *reversed(above), path[-1])
        # On a track of its own a slice has not all of those around it above.
        assert whole[-len(path) :] == path


def test_what_went_on_side_by_side_has_tracks_of_its_own(http: httpx2.Client) -> None:
    run_id = execute(http, "side-by-side")
    document = http.get(f"/flow-runs/{run_id}/export?format=perfetto").json()
    tracks = {event["name"]: event["tid"] for event in document["traceEvents"] if event["ph"] == "B"}
    assert tracks["left"] != tracks["right"]
    assert len({tracks[f"each[{index}]"] for index in range(3)}) == 3
    assert len(set(tracks.values())) == 3, "a track is used again once it is free"


@pytest.mark.parametrize("format", ["otlp", "perfetto"])
def test_a_run_without_snapshots_is_exported_without_them(
    server: RunningServer, http: httpx2.Client, format: str
) -> None:
    secret = "only-in-the-answer"
    server.push(
        "slug: hushed\ncapture: metadata_only\n"
        "steps: [{id: keep, type: passthrough}, {id: ask, type: llm, model: echo, prompt: '{{ message }}'}]\n"
    )
    run_id = execute(http, "hushed", message=secret)
    text = http.get(f"/flow-runs/{run_id}/export", params={"format": format}).text
    assert "chat echo" in text
    assert secret not in text


def test_of_a_run_that_goes_on_spans_are_what_has_ended(server: RunningServer, http: httpx2.Client) -> None:
    run_id = start(server, "endless")
    try:
        with http.stream("GET", f"/flow-runs/{run_id}/trace/stream") as stream:
            lines = stream.iter_lines()
            next(line for line in lines if line == "event: step_completed")
            next(line for line in lines if line == "event: step_started")
        spans = spans_of(http, run_id)
        events = http.get(f"/flow-runs/{run_id}/export?format=perfetto").json()["traceEvents"]
    finally:
        cancel(server, run_id)
    assert [span["name"] for span in spans] == ["first"]
    assert [event["name"] for event in events if event["ph"] == "B"] == ["endless", "first", "hold"]
    assert len([event for event in events if event["ph"] == "E"]) == 1
