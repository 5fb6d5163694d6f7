"""A provider that is busy says when to come again, and is not asked before, whatever dies meanwhile."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import fill, served

RETRY_AFTER_S = 5
"""Longer than a start takes, and no longer than `max_delay_ms`."""
STEP = {
    "id": "ask",
    "type": "llm",
    "model": "busy:small",
    "prompt": "hi",
    "retry": {"max_attempts": 2, "initial_delay_ms": 0},
}


class Busy(ThreadingHTTPServer):
    """An OpenAI-compatible server that refuses the first request; `asked_s` is when each came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: Busy

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked_s.append(time.monotonic())
        is_first = len(self.server.asked_s) == 1
        self.send_response(429 if is_first else 400)
        body = json.dumps({"error": {"message": "busy" if is_first else "no"}}).encode()
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if is_first:
            self.send_header("retry-after", str(RETRY_AFTER_S))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def busy() -> Iterator[Busy]:
    with Busy() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def test_the_wait_that_a_provider_asked_for_outlives_its_server(busy: Busy, tmp_path: Path) -> None:
    """Also where no content is kept."""
    key = fill(tmp_path, {"slug": "f", "capture": "off", "steps": [STEP]})
    env = {"RUNGLASS_PROVIDERS": json.dumps({"busy": f"http://127.0.0.1:{busy.server_port}/v1"})}
    with served(tmp_path, key, env=env) as (server, http):
        run = http.post("/seq/acme/shop/f/jobs", json={}).json()["executionId"]
        with http.stream("GET", f"/flow-runs/{run}/trace/stream") as events:
            assert any(line == "event: step_retrying" for line in events.iter_lines())
        server.kill()
    with served(tmp_path, key, env=env) as (_, http):
        with http.stream("GET", f"/flow-runs/{run}/trace/stream") as events:
            assert any(line == "event: flow_failed" for line in events.iter_lines())
        first = http.get(f"/flow-runs/{run}/steps/ask/trace", params={"attempt": "1"}).json()
    assert first["errorContext"]["retryAfterMs"] == RETRY_AFTER_S * 1000
    assert len(busy.asked_s) == 2
    # What is counted begins when the refusal is recorded, a moment after the provider was asked.
    assert busy.asked_s[1] - busy.asked_s[0] >= RETRY_AFTER_S
