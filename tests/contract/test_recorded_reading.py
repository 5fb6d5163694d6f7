"""A recorded run over HTTP: read while it goes on and after its end, as any other run is."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runglass import Client
from runglass.log.fold import fold
from runglass.log.measurements import Histogram
from runglass.runtime.metrics.collector import RuntimeCollector
from runglass.testing import RunningServer, running_server
from tests.contract.wire import http_for
from tests.unit.recording.test_otlp import pair, span, traces

PROTOBUF = {"Content-Type": "application/x-protobuf"}
BEGAN_NS = 1_790_000_000_000_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """One that ends a run as soon as all of its spans have ended."""
    with running_server(recording_settle_s=0) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.key, base_url=f"{server.address}/api/v1") as client:
        yield client


def tool(
    number: int, parent: int = 0, *attributes: tuple[str, str], ended: bool = True, name: str = "work"
) -> Span:
    made = span(number, name=name, start_time_unix_nano=BEGAN_NS + number)
    if parent:
        made.parent_span_id = parent.to_bytes(8)
    if ended:
        made.end_time_unix_nano = BEGAN_NS + 100 + number
    told = (("gen_ai.operation.name", "execute_tool"), *attributes)
    made.attributes.extend(pair(key, string_value=value) for key, value in told)
    return made


def send(server: RunningServer, http: httpx2.Client, trace: int, *spans: Span) -> None:
    for each in spans:
        each.trace_id = trace.to_bytes(16)
    answer = http.post(
        f"{server.address}/v1/traces", content=traces(*spans).SerializeToString(), headers=PROTOBUF
    )
    assert (answer.status_code, answer.content) == (200, b"")


def newest(http: httpx2.Client, server: RunningServer) -> str:
    run_id: str = http.get(f"{server.address}/api/v1/flow-runs").json()["runs"][0]["id"]
    return run_id


def test_a_recorded_run_is_followed_to_its_end(
    server: RunningServer, http: httpx2.Client, client: Client
) -> None:
    send(server, http, 1, tool(1, 0, ("input.value", "hi"), name="agent", ended=False), tool(2, 1))
    run = client.run(newest(http, server))
    assert run.trace().flow_run.input == {"inputs": {"text": "hi"}}, "as soon as it is known"
    assert [step.status for step in run.trace().steps] == ["running", "completed"]
    events: list[Any] = []
    for event in run.live_trace():
        events.append(event)
        if len(events) == 3:
            values = ("input.value", "hi"), ("output.value", "bye")
            send(server, http, 1, tool(1, 0, *values, name="agent"), tool(3, 2))
    assert [event.event_type for event in events] == [
        "run_started",
        *["step_recorded"] * 4,
        "run_input",
        "flow_completed",
    ]
    trace = run.trace()
    assert trace.flow_run.input == {"inputs": {"text": "hi"}}
    assert trace.flow_run.result == {"text": "bye"}
    assert [step.parent_span_id for step in trace.steps] == [None, f"{1:016x}", f"{2:016x}"]
    assert fold(events).steps == trace.steps


@pytest.mark.parametrize("path", ["trace/outline", "trace/timeline", "export?format=otlp", "export", "diff"])
def test_what_goes_on_is_read_as_any_other_run(server: RunningServer, http: httpx2.Client, path: str) -> None:
    send(server, http, 2, tool(1, ended=False), tool(2, 1), tool(3, 2))
    run_id = newest(http, server)
    path = f"diff/{run_id}" if path == "diff" else path
    answer = http.get(f"{server.address}/api/v1/flow-runs/{run_id}/{path}")
    assert answer.status_code == 200, answer.text
    assert b"work" in answer.content


def test_metrics_tell_what_came_of_spans(server: RunningServer, http: httpx2.Client) -> None:
    before = _spans(server)
    send(server, http, 3, tool(1), tool(2, 1))
    send(server, http, 3, tool(1), tool(2, 1))
    after = _spans(server)
    assert {key: after[key] - before[key] for key in after} == {"received": 4, "recorded": 2, "repeated": 2}


def _spans(server: RunningServer) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for family in RuntimeCollector(server.runtime, Histogram()).collect()
        for sample in family.samples
        if sample.name == "runglass_spans_total"
    }
