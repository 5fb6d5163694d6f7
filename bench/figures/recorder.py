"""What a step of a program that records itself costs the thread that it runs in, while another one sends."""

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.children import Child, child
from bench.measuring import Side, side_by_side
from bench.rows import Goal, Row
from bench.stage import Stage

PEERS = ("opentelemetry-sdk", "langfuse", "logfire", "mlflow")
WORDS = {200: 6, 1000: 38}
"""So many of 26 characters make the content of a step as large, in and out."""


def rows(stage: Stage) -> Iterator[Row]:
    with ExitStack() as stack:
        bodies: dict[str, list[tuple[str, bytes]]] = {}
        workers: dict[str, Child] = {}
        for name in ("ours", *PEERS):
            address = stack.enter_context(_sink(bodies.setdefault(name, [])))
            opening = (
                child("bench.workers.recorded", address)
                if name == "ours"
                else stage.peer("recorded_steps", name, address)
            )
            if (worker := stack.enter_context(opening)) is not None:
                workers[name] = worker
        for size, words in WORDS.items():
            yield _row(stage, size, words, workers, bodies)


def _row(
    stage: Stage, size: int, words: int, workers: dict[str, Child], bodies: dict[str, list[tuple[str, bytes]]]
) -> Row:
    steps, rounds = stage.sizes.recorded_steps, stage.sizes.rounds
    said = "Straight on, then left at " * words
    asked = {"messages": [{"role": "user", "content": said}], "answer": said}
    arrived: dict[str, int] = defaultdict(int)

    def side(name: str) -> float:
        us: float = workers[name].ask(steps=steps, **asked)["us"]
        # Counted after the turn, which it would disturb.
        arrived[name] += sum(_steps(*each) for each in bodies[name])
        bodies[name].clear()
        return us

    sides: dict[str, Side] = {name: lambda name=name: side(name) for name in workers}  # type: ignore[misc]
    found = side_by_side(sides, rounds=rounds)
    each = ", ".join(f"{name} {median(found[name]):.1f} µs ({arrived[name]:,})" for name in workers)
    return Row(
        figure=f"a recorded step, {size:,} B in and out",
        unit="µs",
        ours=found["ours"],
        peers={name: found.get(name, ()) for name in PEERS},
        goal=Goal(at=20),
        note=f"{each}; in brackets, what arrived of {steps * (rounds + 1):,} steps",
    )


def _steps(content_type: str, body: bytes) -> int:
    """How many of the steps are in a request; what else there is in it is not counted."""
    if content_type == "application/json":
        told = msgspec.json.decode(body)["resourceSpans"]
        spans = [each for resource in told for scope in resource["scopeSpans"] for each in scope["spans"]]
        return sum(each["name"] == "work" and "endTimeUnixNano" in each for each in spans)
    request = ExportTraceServiceRequest.FromString(body)
    scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
    return sum(
        # The peer `logfire` sends some spans twice, first as begun.
        each.name == "work" and all(told.value.string_value != "pending_span" for told in each.attributes)
        for scope in scopes
        for each in scope.spans
    )


@contextmanager
def _sink(bodies: list[tuple[str, bytes]]) -> Iterator[str]:
    """The address of a server that says yes to everything, and puts the spans that it gets into `bodies`."""

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path.endswith("/v1/traces"):
                bodies.append((self.headers["Content-Type"], body))
            self.do_GET()

        def do_GET(self) -> None:
            body = b"" if self.headers.get("Content-Type") == "application/x-protobuf" else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
