"""Runs that have ended are sent on as spans, also where the receiver is away, refuses or asks to wait."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runglass.log.measurements import measured
from runglass.server.services.span_export import (
    BATCH_BYTES,
    FAULT_S,
    FAULTS,
    LATER_S,
    LONGEST_WAIT_S,
    SpanExporter,
)
from runglass.testing import RunningServer, running_server
from runglass.wire.query import RunQuery
from tests.collector import Collector, attributes, collecting
from tests.contract.test_tool_calls import TOOLS, paused, results_of, resumption
from tests.contract.wire import cancel, execute, http_for, ran, start
from tests.fakes import VirtualClock
from tests.http_server import Reply
from tests.records import there

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class UntilAllIsSent(VirtualClock):
    """Ends the exporter once no cursor is behind; `at_rest` has what happens at each wait.

    A number is so many seconds that pass beside.
    """

    def __init__(self, server: RunningServer) -> None:
        super().__init__()
        self._store = server.runtime.store
        self.at_rest: list[Any] = []

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if seconds and self.at_rest:
            happens = self.at_rest.pop(0)
            if isinstance(happens, float):
                self.set_back(-happens)
            else:
                await happens()
        if not await self._store.span_cursors():
            raise asyncio.CancelledError


@pytest.fixture(scope="module", autouse=True)
def begun(server: RunningServer) -> None:
    """Runs are sent from now on, and none that has ended before."""
    with http_for(server, server.key) as http:
        ran(http, "broken")
    server.call(server.runtime.store.span_cursors())


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def send_all(server: RunningServer, collector: Collector, *at_rest: Any) -> list[float]:
    """Lets the exporter go on until all is sent: how long it waited, rests aside."""
    return send_to(server, f"{collector.endpoint}/v1/traces", {}, *at_rest)


def send_to(server: RunningServer, url: str, headers: dict[str, str], *at_rest: Any) -> list[float]:
    """The same, to anybody."""
    clock = UntilAllIsSent(server)
    clock.at_rest = list(at_rest)

    async def export() -> None:
        exporter = SpanExporter(server.runtime, url, headers=headers, clock=clock)
        with suppress(asyncio.CancelledError):
            await exporter.run_forever()

    server.call(export())
    return [seconds for seconds in clock.slept_s if seconds]


def exported(http: httpx2.Client, run_id: str) -> list[Span]:
    """The spans of the file of the run."""
    document = http.get(f"/flow-runs/{run_id}/export?format=otlp").json()
    for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    read = json_format.Parse(json.dumps(document), ExportTraceServiceRequest())
    return list(read.resource_spans[0].scope_spans[0].spans)


def test_what_is_sent_is_what_the_file_of_the_run_has(
    server: RunningServer, http: httpx2.Client, collector: Collector
) -> None:
    words = execute(http, "words", message="a bb ccc")
    traced = ran(http, "anything", headers={"traceparent": PARENT})
    send_all(server, collector)
    for run_id in (words, traced):
        assert collector.spans(run_id) == exported(http, run_id)
    root = collector.spans(traced)[0]
    assert f"00-{root.trace_id.hex()}-{root.parent_span_id.hex()}-01" == PARENT
    (sent,) = collector.requests
    assert sent.path == "/v1/traces"
    assert sent.headers["content-type"] == "application/x-protobuf"
    resources = [
        {each.key: each.value.string_value for each in resource.resource.attributes}
        for resource in sent.request.resource_spans
    ]
    assert {resource["service.name"] for resource in resources} == {"runglass"}
    assert {resource["runglass.project"] for resource in resources} == {"acme/demo"}
    assert {resource["runglass.flow"] for resource in resources} == {"words", "anything"}


def test_a_run_is_sent_once_it_has_ended(
    server: RunningServer, http: httpx2.Client, collector: Collector
) -> None:
    run_id = start(server, "endless")
    execute(http, "anything")
    send_all(server, collector)
    assert collector.spans(run_id) == []
    cancel(server, run_id)
    assert "event: flow_cancelled" in http.get(f"/flow-runs/{run_id}/trace/stream").text
    send_all(server, collector)
    assert collector.spans(run_id) == exported(http, run_id) != []
    sent = len(collector.requests)
    execute(http, "anything")
    send_all(server, collector)
    assert len(collector.requests) == sent + 1, "and not again"


def test_a_receiver_that_is_busy_gets_the_same_again_later(
    server: RunningServer, http: httpx2.Client, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    run_ids = [execute(http, "words", message="a bb") for _ in range(3)]
    failed, sent = measured.failed_sends, measured.sent_runs
    caplog.set_level("INFO")
    collector.replies = [Reply(503), Reply(429, {"Retry-After": "17"}), Reply(401), *[Reply(502)] * 8]
    waited = send_all(server, collector)
    assert len({request.request.SerializeToString() for request in collector.requests}) == 1
    assert len(collector.requests) == 12
    assert measured.failed_sends - failed == 11
    assert measured.sent_runs - sent == len(run_ids)
    assert all(collector.spans(run_id) == exported(http, run_id) for run_id in run_ids)
    assert 0.5 <= waited[0] <= 1, "after the first failure"
    assert sum(waited[1:3]) == 17, "as long as the receiver asks for"
    assert sum(waited) < 17 + 10 * LONGEST_WAIT_S
    told = [record.message for record in caplog.records if "sending runs on" in record.message]
    assert len(told) == 2, "that it failed, and that it works again"
    assert "503" in told[0]


def test_a_run_that_is_refused_keeps_no_other_from_being_sent(
    server: RunningServer, http: httpx2.Client, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    run_ids = [execute(http, "anything") for _ in range(3)]
    spans = len(exported(http, run_ids[1]))
    refused = measured.sent_spans["refused"]
    # All of them together, then the second one by itself.
    collector.replies = [Reply(400, body=b"a bad span"), Reply(200), Reply(413, body=b"too much")]
    send_all(server, collector)
    assert [len(collector.spans(run_id)) > 0 for run_id in run_ids] == [True, False, True]
    assert measured.sent_spans["refused"] - refused == spans
    told = f"is not sent to {collector.endpoint}/v1/traces: it answered with status 413: 'too much'"
    assert [record.message for record in caplog.records if "too much" in record.message] == [
        f"run {run_ids[1]} {told}"
    ]


@pytest.mark.parametrize(("status", "patience_s"), [(500, FAULT_S), (418, FAULT_S), (401, LATER_S)])
def test_a_run_that_a_receiver_never_takes_is_given_up_in_the_end(
    server: RunningServer,
    http: httpx2.Client,
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
    status: int,
    patience_s: float,
) -> None:
    run_id, following = execute(http, "anything"), execute(http, "anything")
    refused = measured.refused_runs
    # Both together twice, then the first one by itself.
    collector.replies = [Reply(status, body=b"it broke")] * 3
    send_all(server, collector, patience_s)
    assert len(collector.requests) == 4
    assert measured.refused_runs - refused == 1
    told = [record.message for record in caplog.records if run_id in record.message]
    url = f"{collector.endpoint}/v1/traces"
    assert told == [f"run {run_id} is not sent to {url}: it answered with status {status}: 'it broke'"]
    assert (collector.spans(run_id), collector.spans(following)) == ([], exported(http, following))


def test_what_a_receiver_fails_of_keeps_no_other_project_from_being_sent(
    server: RunningServer, http: httpx2.Client, collector: Collector
) -> None:
    server.push("slug: more\nsteps: [{id: keep, type: passthrough}]", project="more")
    with http_for(server, server.make_key("acme", "more")) as more:
        other = more.post("/seq/acme/more/more/execute", json={}).json()["executionId"]
    first = execute(http, "anything")
    collector.replies = [Reply(500)] * FAULTS
    send_all(server, collector)
    sent = [attributes(request.spans()[0])["runglass.run.id"] for request in collector.requests]
    assert sent == [*[first] * FAULTS, other, first]
    assert len(collector.accepted) == 2


def test_the_tools_of_the_caller_are_spans_between_the_calls_of_the_model(
    server: RunningServer, http: httpx2.Client, collector: Collector
) -> None:
    server.push("slug: tools\ncapture: full\nsteps: [{id: ask, type: llm, model: echo}]\n")
    path = "/seq/acme/demo/tools/execute"
    pause = paused(http, path, tools=TOOLS[:1])
    (call,) = pause["toolCalls"]
    http.post(path, json=resumption(pause, results_of(pause)) | {"tools": TOOLS[:1]}).raise_for_status()
    send_all(server, collector)
    first, used, second = collector.spans(pause["executionId"])[-3:]
    assert [span.name for span in (first, used, second)] == ["chat echo", "execute_tool weather", "chat echo"]
    assert first.parent_span_id == used.parent_span_id == second.parent_span_id
    assert first.end_time_unix_nano == used.start_time_unix_nano
    told = attributes(used)
    assert (told["gen_ai.tool.call.id"], told["gen_ai.tool.call.result"]) == (call["id"], '"sunny"')
    assert json.loads(told["gen_ai.tool.call.arguments"]) == json.loads(call["function"]["arguments"])


@pytest.mark.parametrize(("year", "told_ns"), [("0001", 0), ("9999", (1 << 64) - 1)])
def test_an_imported_run_of_times_beyond_those_of_otlp_is_sent(
    server: RunningServer, http: httpx2.Client, collector: Collector, year: str, told_ns: int
) -> None:
    run_id, imported = execute(http, "anything"), f"{year}0000-0000-7000-8000-000000000000"
    file = http.get(f"/flow-runs/{run_id}/export?format=jsonl").text.replace(run_id, imported)
    file = re.sub(r'"\d{4}(-\d\d-\d\dT)', rf'"{year}\1', file)
    answer = http.post("/flow-runs/import", content=file)
    assert answer.status_code == 201, answer.text
    send_all(server, collector)
    assert {span.start_time_unix_nano for span in collector.spans(imported)} == {told_ns}


def test_spans_that_are_rejected_out_of_many_are_counted_and_said_once(
    server: RunningServer, http: httpx2.Client, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(measured.sent_spans)
    told = ExportTracePartialSuccess(rejected_spans=2, error_message="no room")
    answer = ExportTraceServiceResponse(partial_success=told)
    collector.replies = [Reply(200, body=answer.SerializeToString())] * 2
    spans = 0
    for _ in range(2):
        run_id = execute(http, "words", message="a bb")
        spans += len(exported(http, run_id))
        send_all(server, collector)
    assert len(collector.requests) == 2, "not sent again"
    assert measured.sent_spans["refused"] - before["refused"] == 4
    assert measured.sent_spans["accepted"] - before["accepted"] == spans - 4
    assert sum("no room" in record.message for record in caplog.records) == 2, "once by each exporter"


def test_a_large_run_goes_in_several_requests(
    server: RunningServer, http: httpx2.Client, collector: Collector
) -> None:
    run_id = execute(http, "grid", parameters={"rows": [[f"{n}" + "x" * 90_000 for n in range(40)]]})
    collector.replies = [Reply(200), Reply(503)]
    send_all(server, collector)
    assert collector.spans(run_id) == exported(http, run_id)
    assert len(collector.accepted) > 3
    assert max(sent.size for sent in collector.requests) < 2 * BATCH_BYTES


def test_a_run_that_is_deleted_while_the_receiver_is_away_is_not_sent(
    server: RunningServer, http: httpx2.Client, collector: Collector
) -> None:
    sent = execute(http, "anything")
    send_all(server, collector)
    run_ids = [execute(http, "words", message="a bb") for _ in range(2)]
    collector.replies = [Reply(503)]

    async def delete() -> None:
        for run_id in (sent, run_ids[1]):
            run = there(await server.runtime.store.run(run_id))
            await server.runtime.store.purge_runs([run.no])

    send_all(server, collector, delete)
    assert collector.spans(run_ids[0]) == exported(http, run_ids[0])
    assert collector.spans(run_ids[1]) == []
    overview = server.call(server.runtime.store.overview())
    assert overview.unsent_deleted == 1, "the other one had been sent"


def test_a_cursor_that_another_server_has_moved_meanwhile_stays_where_it_is(
    server: RunningServer, http: httpx2.Client, collector: Collector
) -> None:
    run_ids = [execute(http, "anything") for _ in range(2)]
    collector.replies = [Reply(503)]
    store = server.runtime.store

    async def send_the_first() -> None:
        (cursor,) = await store.span_cursors()
        changes = await store.changed_runs(cursor.project_id, RunQuery(), after=cursor.change_no, limit=10)
        (first,) = [change.number for change in changes if change.run_id == run_ids[0]]
        assert await store.move_span_cursor(cursor, first)

    send_all(server, collector, send_the_first)
    times = [len(collector.spans(run_id)) / len(exported(http, run_id)) for run_id in run_ids]
    assert times == [1, 2], "from there on all is sent again"


@pytest.mark.parametrize(
    "endpoint", ["localhost:4318", "ftp://host", "http://user:pw@host", "http://host?a=b"]
)
def test_an_endpoint_that_is_no_url_is_named_at_the_start(endpoint: str) -> None:
    with pytest.raises(Exception, match="otlp_endpoint is no URL"), running_server(otlp_endpoint=endpoint):
        pass
