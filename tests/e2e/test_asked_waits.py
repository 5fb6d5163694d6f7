"""A provider that is busy says when to come again, and is not asked before, whatever dies meanwhile."""

import json
import time
from pathlib import Path

from tests.e2e.command import fill, served
from tests.http_server import Reply, answering

RETRY_AFTER_S = 5
"""Longer than a start takes, and no longer than `max_delay_ms`."""
STEP = {
    "id": "ask",
    "type": "llm",
    "model": "busy:small",
    "prompt": "hi",
    "retry": {"max_attempts": 2, "initial_delay_ms": 0},
}
JSON = {"content-type": "application/json"}


def test_the_wait_that_a_provider_asked_for_outlives_its_server(tmp_path: Path) -> None:
    """Also where no content is kept."""
    asked_s: list[float] = []

    def busy(_: object) -> Reply:
        """Refuses the first request of a model."""
        asked_s.append(time.monotonic())
        if len(asked_s) == 1:
            return Reply(429, {**JSON, "retry-after": str(RETRY_AFTER_S)}, b'{"error": {"message": "busy"}}')
        return Reply(400, JSON, b'{"error": {"message": "no"}}')

    key = fill(tmp_path, {"slug": "f", "capture": "off", "steps": [STEP]})
    with answering(busy) as address:
        env = {"RUNGLASS_PROVIDERS": json.dumps({"busy": f"{address}/v1"})}
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
    assert len(asked_s) == 2
    # What is counted begins when the refusal is recorded, a moment after the provider was asked.
    assert asked_s[1] - asked_s[0] >= RETRY_AFTER_S
