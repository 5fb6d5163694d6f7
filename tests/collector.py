"""A receiver of OpenTelemetry's spans for tests: it keeps what comes to its socket and answers as told."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.http_server import listening
from tests.waiting import eventually


class Reply(NamedTuple):
    """How the next request is answered."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    rejected: int = 0
    reason: str = ""


class Sent(NamedTuple):
    """A request: its headers, the bytes of its body as they were before compression, and what it says."""

    headers: dict[str, str]
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

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
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

    def take(self, sent: Sent) -> Reply:
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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = Sent(headers | {":path": self.path}, len(body), ExportTraceServiceRequest.FromString(body))
            reply = collector.take(sent)
            answer = ExportTraceServiceResponse()
            if reply.rejected:
                answer.partial_success.rejected_spans = reply.rejected
                answer.partial_success.error_message = reply.reason
            data = answer.SerializeToString() if reply.status == 200 else reply.reason.encode()
            # Whoever sent it may be dead by now.
            with suppress(OSError):
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Tells nobody."""

    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        collector = Collector(f"http://127.0.0.1:{port}")
        try:
            yield collector
        finally:
            collector.gate.set()
