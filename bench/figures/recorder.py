"""What a step of a program that records itself costs the thread that it runs in, while another one sends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.children import child
from bench.measuring import Side, side_by_side
from bench.rows import Goal, Row
from bench.stage import Stage

PEER = "opentelemetry-sdk"
CONTENT = {
    "messages": [{"role": "user", "content": "Which way to the station? " * 4} for _ in range(4)],
    "answer": "Straight on, and then to the left. " * 14,
}
"""Together 1 kB."""


def rows(stage: Stage) -> Iterator[Row]:
    steps = stage.sizes.recorded_steps
    with (
        _sink() as address,
        child("bench.workers.recorded", address) as ours,
        stage.peer("opentelemetry_steps", address) as peer,
    ):
        sides: dict[str, Side] = {"ours": lambda: ours.ask(steps=steps, **CONTENT)["us"]}
        if peer is not None:
            sides[PEER] = lambda: peer.ask(steps=steps, **CONTENT)["us"]
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    yield Row(
        figure="a recorded step with 1 kB of content",
        unit="µs",
        ours=found["ours"],
        peers={PEER: found[PEER]} if PEER in found else {},
        missing=() if PEER in found else (PEER,),
        goal=Goal(at=20),
        note="processor time of the thread that records; the peer's code encodes the content itself",
    )


@contextmanager
def _sink() -> Iterator[str]:
    """The address of a server that takes everything and keeps nothing."""

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"{}" if self.headers["Content-Type"] == "application/json" else b""
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
