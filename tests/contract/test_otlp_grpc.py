"""OTLP over gRPC: the same keys, limits and recordings as over HTTP, with the statuses of gRPC."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from runglass.errors import RunglassError, StoreError
from runglass.server.otlp_grpc import READ_AT_ONCE
from runglass.testing import RunningServer, running_server
from tests.contract import test_otlp
from tests.contract.test_otlp import BODY, LIMIT, Taken, runs_of
from tests.contract.wire import LONGEST_S, http_for
from tests.ports import free_port
from tests.unit.recording.test_otlp import SPAN, TRACE, logs, span, traces

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


class Exporter:
    """A program that sends, with a key in its metadata."""

    def __init__(self, channel: grpc.Channel, key: str) -> None:
        self._channel = channel
        self.metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {key}"),)

    def export(self, body: bytes, method: str = TRACES, **call: Any) -> bytes:
        """Raises grpc.RpcError."""
        call = {"metadata": self.metadata, "timeout": LONGEST_S} | call
        answer: bytes = self._channel.unary_unary(method)(body, **call)
        return answer

    def refusal(self, body: bytes, **call: Any) -> Any:
        with pytest.raises(grpc.RpcError) as raised:
            self.export(body, **call)
        return raised.value


def retry_delay_s(refusal: Any) -> int | None:
    """What RetryInfo says, None where there is none."""
    details = dict(refusal.trailing_metadata()).get("grpc-status-details-bin")
    if details is None:
        return None
    told = RetryInfo()
    assert Status.FromString(details).details[0].Unpack(told)
    return int(told.retry_delay.seconds)


@contextmanager
def sending_nothing() -> Iterator[Callable[[], Iterator[bytes]]]:
    """Makes the messages of callers who send none as long as the block goes on."""
    over = threading.Event()
    try:
        yield lambda: (b"" for _ in iter(over.wait, True))
    finally:
        over.set()


@pytest.fixture(scope="module")
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def server(address: str) -> Iterator[RunningServer]:
    with running_server(otlp_limit_bytes=LIMIT, otlp_grpc=address) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: RunningServer, address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.fixture
def exporter(server: RunningServer, channel: grpc.Channel) -> Exporter:
    return Exporter(channel, server.make_key("acme", "demo", "record"))


recorded = test_otlp.recorded


def test_what_is_acknowledged_is_in_the_next_answer(server: RunningServer, exporter: Exporter) -> None:
    trace_id = bytes([9] * 16)
    body = traces(span(1, trace_id=trace_id), span(2, trace_id=b"")).SerializeToString()
    told = ExportTraceServiceResponse.FromString(exporter.export(body)).partial_success
    assert told.rejected_spans == 1
    assert "trace id" in told.error_message
    with http_for(server, server.key) as http:
        [run] = runs_of(http, trace_id)
        assert run["stepCount"] == 1


def test_logs_and_metrics_are_taken_as_well(exporter: Exporter, recorded: Taken) -> None:
    data = logs(trace_id=TRACE, span_id=SPAN, body={"string_value": "x"})
    assert exporter.export(data.SerializeToString(), LOGS) == b""
    assert exporter.export(b"\x0a\x00", METRICS) == b""
    assert len(recorded.items) == 1


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_message_may_be_compressed(
    exporter: Exporter, recorded: Taken, compression: grpc.Compression
) -> None:
    assert exporter.export(BODY, compression=compression) == b""
    assert recorded.span_ids == [1, 2]


def test_a_bomb_is_refused(exporter: Exporter, recorded: Taken) -> None:
    refusal = exporter.refusal(bytes(64 << 20), compression=grpc.Compression.Gzip)
    assert refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert retry_delay_s(refusal) is None
    assert recorded.items == []


def test_a_key_is_shown_in_many_ways(server: RunningServer, exporter: Exporter, recorded: Taken) -> None:
    basic = base64.b64encode(f"any:{server.key}".encode()).decode()
    for name, value in (
        ("authorization", server.key),
        ("authorization", f"Basic {basic}"),
        ("x-api-key", server.key),
    ):
        exporter.export(BODY, metadata=((name, value), ("x-runglass-flow", "support")))
    assert recorded.flows == ["support"] * 3


def test_without_a_good_key_nothing_is_taken(
    server: RunningServer, exporter: Exporter, recorded: Taken
) -> None:
    for metadata in ((), (("authorization", "Bearer nk_wrong"),)):
        assert exporter.refusal(BODY, metadata=metadata).code() == grpc.StatusCode.UNAUTHENTICATED
    reader = (("authorization", f"Bearer {server.make_key('acme', 'demo', 'read')}"),)
    assert exporter.refusal(BODY, metadata=reader).code() == grpc.StatusCode.PERMISSION_DENIED
    assert recorded.items == []


def test_without_a_good_key_no_message_is_waited_for(channel: grpc.Channel) -> None:
    """Else whoever reaches the port could fill the memory with what is compressed well."""
    export = channel.stream_unary(TRACES)
    with sending_nothing() as messages, pytest.raises(grpc.RpcError) as raised:
        export(messages(), timeout=LONGEST_S)
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_message_that_does_not_come_is_given_up_and_a_connection_without_calls_is_closed() -> None:
    """Else those of programs that are gone would be all that may be open."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with (
        running_server(body_time_limit_s=0.1, keep_alive_s=1, otlp_grpc=address) as server,
        sending_nothing() as messages,
    ):
        with grpc.insecure_channel(address) as channel:
            key = (("authorization", f"Bearer {server.key}"),)
            call = channel.stream_unary(TRACES).future(messages(), metadata=key, timeout=LONGEST_S)
            assert call.code() == grpc.StatusCode.UNAVAILABLE
            assert "body_time_limit_s" in call.details()
            assert retry_delay_s(call) == 1
        with socket.create_connection(("127.0.0.1", port), timeout=LONGEST_S) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            while connection.recv(1 << 16):
                pass


def test_slow_messages_of_one_project_keep_no_other_waiting(
    server: RunningServer, channel: grpc.Channel, exporter: Exporter, recorded: Taken
) -> None:
    key = (("authorization", f"Bearer {server.make_key('slow', 'demo', 'record')}"),)
    with sending_nothing() as messages:
        slow = [
            channel.stream_unary(TRACES).future(messages(), metadata=key, timeout=LONGEST_S)
            for _ in range(2 * READ_AT_ONCE)
        ]
        exporter.export(BODY)
        for call in slow:
            call.cancel()
    assert recorded.span_ids == [1, 2]


def test_a_message_that_is_none_is_refused_for_good_and_one_that_cannot_be_stored_for_now(
    exporter: Exporter, recorded: Taken
) -> None:
    refusal = exporter.refusal(BODY[:-1])
    assert (refusal.code(), retry_delay_s(refusal)) == (grpc.StatusCode.INVALID_ARGUMENT, None)
    assert "truncated" in refusal.details()
    recorded.fault = StoreError("the disk is gone")
    refusal = exporter.refusal(BODY)
    assert (refusal.code(), retry_delay_s(refusal)) == (grpc.StatusCode.UNAVAILABLE, 1)


def test_who_sends_too_often_over_either_is_told_when_to_come_again() -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        running_server(rate_limit_per_minute=2, otlp_grpc=address) as server,
        grpc.insecure_channel(address) as channel,
        http_for(server, server.key) as http,
    ):
        exporter = Exporter(channel, server.key)
        assert http.post(f"{server.address}/v1/metrics", content=b"").status_code == 200
        exporter.export(b"", METRICS)
        refusal = exporter.refusal(b"", method=METRICS)
        assert refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (retry_delay_s(refusal) or 0) >= 1


def test_an_address_in_use_is_a_clear_error(server: RunningServer, address: str) -> None:
    with pytest.raises(RunglassError, match="--otlp-grpc"), running_server(otlp_grpc=address):
        pass
