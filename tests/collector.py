"""A receiver of OpenTelemetry's spans for tests: it keeps what comes to its socket and answers as told."""

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests import http_server
from tests.waiting import eventually


class Reply(NamedTuple):
    """How the next request is answered."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    rejected: int = 0
    reason: str = ""


class Sent(NamedTuple):
    """A request: its path and headers, the bytes of its body before compression, and what it says."""

    path: str
    headers: Mapping[str, str]
    size: int
    request: ExportTraceServiceRequest

    def spans(self) -> list[Span]:
        return [
            span
            for resource in self.request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Collector:
    """What has come to `endpoint`. `replies` are for the next requests; then all is well.

    While `gate` is not set no request is answered.
    """

    endpoint: str

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[Sent] = []
        self.accepted: list[Sent] = []
        self.gate = threading.Event()
        self.gate.set()

    def spans(self, run_id: str) -> list[Span]:
        """The accepted spans of a run, as often as they came."""
        return [
            span
            for sent in list(self.accepted)
            for span in sent.spans()
            if attributes(span)["runglass.run.id"] == run_id
        ]

    def answer(self, request: http_server.Request) -> http_server.Reply:
        body = gzip.decompress(request.body)
        sent = Sent(request.path, request.headers, len(body), ExportTraceServiceRequest.FromString(body))
        self.requests.append(sent)
        reply = self.replies.pop(0) if self.replies else Reply(200)
        self.gate.wait()
        if reply.status != 200:
            return http_server.Reply(reply.status, dict(reply.headers), reply.reason.encode())
        self.accepted.append(sent)
        answer = ExportTraceServiceResponse()
        if reply.rejected:
            answer.partial_success.rejected_spans = reply.rejected
            answer.partial_success.error_message = reply.reason
        return http_server.Reply(200, dict(reply.headers), answer.SerializeToString())

    def wait_for(self, requests: int) -> None:
        """Returns once so many requests have come."""
        eventually(lambda: len(self.requests) >= requests)


def attributes(span: Span) -> dict[str, Any]:
    """The values that are no lists."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "")
        for each in span.attributes
        if not each.value.HasField("array_value")
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens until the block ends."""
    collector = Collector()
    with http_server.answering(collector.answer) as collector.endpoint:
        try:
            yield collector
        finally:
            collector.gate.set()
