"""A receiver of OpenTelemetry's spans for tests: it keeps what comes to its socket and answers as told."""

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.http_server import Reply, Request, answering
from tests.waiting import eventually


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

    def answer(self, request: Request) -> Reply:
        body = gzip.decompress(request.body)
        sent = Sent(request.path, request.headers, len(body), ExportTraceServiceRequest.FromString(body))
        self.requests.append(sent)
        reply = self.replies.pop(0) if self.replies else Reply(200)
        self.gate.wait()
        if reply.status == 200:
            self.accepted.append(sent)
        return reply

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
    with answering(collector.answer) as collector.endpoint:
        try:
            yield collector
        finally:
            collector.gate.set()
