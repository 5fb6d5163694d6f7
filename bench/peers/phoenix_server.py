"""Arize Phoenix on its own SQLite file: started, written to and read over HTTP.

`python -m bench.peers.phoenix_server FOLDER`. It starts the server for the first message; `do` says what:
`start` (again, on what is there), `write`, `write_tree`, `send`, `read`, `memory`.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from bench.answering import Message, answer
from bench.memory import tree_memory
from bench.spans import PER_TRACE, bodies, send

PAGE = 1000
ITERATION = 20
"""Spans of an iteration of a tree, its own included."""
STOP_S = 10
POLL_S = 0.1
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind. "


class Phoenix:
    """The server as a process below this one, and a connection to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()

    def start(self) -> float:
        """Seconds from the start of the process to its first answer."""
        self.stop()
        port, grpc = _free_port(), _free_port()
        environment = os.environ | {
            "PHOENIX_WORKING_DIR": str(self._folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(grpc),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        began_s = time.perf_counter()
        command = [str(Path(sys.executable).with_name("phoenix")), "serve"]
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/projects", timeout=120)
        while True:
            try:
                self._client.get("").raise_for_status()
            except httpx.ConnectError:
                if self._process.poll() is not None:
                    raise
                time.sleep(0.01)
            else:
                return time.perf_counter() - began_s

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def memory(self) -> int:
        assert self._process is not None
        return tree_memory(self._process.pid)

    def write(self, count: int) -> str:
        """Sends so many spans of one trace; returns its id once all are acknowledged."""
        trace_id = uuid4().hex
        self._send([_span(trace_id, number) for number in range(count)])
        return trace_id

    def write_tree(self, count: int) -> str:
        """The same as a tree: below the first span those of iterations, below each of them those of steps."""
        trace_id = uuid4().hex
        spans = [_span(trace_id, number) for number in range(count)]
        for number, span in enumerate(spans[1:]):
            iteration = number - number % ITERATION + 1
            above = 0 if number % ITERATION == 0 else iteration
            span["parent_id"] = spans[above]["context"]["span_id"]
        self._send(spans)
        return trace_id

    def send(self, count: int) -> float:
        """Sends so many spans as exporters do; seconds from the first request to a read that has them all."""
        requests, traces = bodies(count)
        began_s = asked_s = time.perf_counter()
        send(str(self._client.base_url), requests, {"Content-Type": "application/x-protobuf"})
        for number, trace_id in enumerate(traces):
            asked_s = time.perf_counter()
            while len(self.read(trace_id)) < min(PER_TRACE, count - number * PER_TRACE):
                time.sleep(POLL_S)
                asked_s = time.perf_counter()
        return asked_s - began_s

    def page(self, trace_id: str) -> str:
        """The address at which people look at the trace."""
        project = self._client.get("/default").raise_for_status().json()["data"]["id"]
        return str(self._client.base_url.join(f"/projects/{project}/traces/{trace_id}"))

    def _send(self, spans: list[dict[str, Any]]) -> None:
        for at in range(0, len(spans), PAGE):
            self._client.post("/default/spans", json={"data": spans[at : at + PAGE]}).raise_for_status()

    def read(self, trace_id: str) -> list[dict[str, Any]]:
        """All spans of the trace that can be read, page by page."""
        found: list[dict[str, Any]] = []
        query = {"trace_id": trace_id, "limit": str(PAGE)}
        while True:
            page = self._client.get("/default/spans", params=query).raise_for_status().json()
            found += page["data"]
            if not page["next_cursor"]:
                return found
            query["cursor"] = page["next_cursor"]

    def wait_for(self, trace_id: str, count: int) -> float:
        """Seconds until a read that brings all so many spans begins."""
        began_s = asked_s = time.perf_counter()
        # The last one first, and not too often: whoever asks for everything again and again slows it down.
        last = {"trace_id": trace_id, "name": f"step-{(count - 1) % 20}", "limit": "1", "order": "desc"}
        while not self._has_last(last, count) or len(self.read(trace_id)) < count:
            time.sleep(POLL_S)
            asked_s = time.perf_counter()
        return asked_s - began_s

    def _has_last(self, query: dict[str, str], count: int) -> bool:
        page = self._client.get("/default/spans", params=query).raise_for_status().json()["data"]
        return any(span["attributes"].get("number") == count - 1 for span in page)


def _span(trace_id: str, number: int) -> dict[str, Any]:
    start = BEGAN + timedelta(milliseconds=12 * number)
    return {
        "name": f"step-{number % 20}",
        "context": {"trace_id": trace_id, "span_id": uuid4().hex[:16]},
        "span_kind": "CHAIN",
        "start_time": start.isoformat(),
        "end_time": (start + timedelta(milliseconds=12)).isoformat(),
        "status_code": "OK",
        "attributes": {"input.value": SENTENCE * 4, "output.value": SENTENCE * 4, "number": number},
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    phoenix = Phoenix(Path(sys.argv[1]))
    # The server must not outlive this process, however that is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    started: list[float] = []

    def work(message: Message) -> Message:
        if message["do"] == "start" or not started:
            started.append(phoenix.start())
        match message["do"]:
            case "start":
                return {"s": started[-1]}
            case "write":
                trace_id = phoenix.write(message["spans"])
                return {"trace_id": trace_id, "s": phoenix.wait_for(trace_id, message["spans"])}
            case "write_tree":
                trace_id = phoenix.write_tree(message["spans"])
                phoenix.wait_for(trace_id, message["spans"])
                return {"page": phoenix.page(trace_id)}
            case "send":
                return {"s": phoenix.send(message["spans"])}
            case "read":
                began_s = time.perf_counter()
                found = phoenix.read(message["trace_id"])
                spent_ms = (time.perf_counter() - began_s) * 1000
                if len(found) != message["spans"]:
                    raise ValueError(f"{len(found)} of {message['spans']} spans came")
                return {"ms": spent_ms}
            case "memory":
                return {"mb": phoenix.memory() / 1e6}
            case other:
                raise ValueError(f"there is no {other!r} to do")

    try:
        answer(work)
    finally:
        phoenix.stop()


if __name__ == "__main__":
    main()
