"""A server that is killed while it sends runs on as spans: each run comes, and comes as the same spans."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.collector import collecting
from tests.e2e.command import fill, served
from tests.http_server import Reply
from tests.waiting import eventually

FLOW = {
    "slug": "f",
    "steps": [
        {"id": "each", "type": "loop", "over": "[1, 2, 3]", "steps": [{"id": "keep", "type": "passthrough"}]},
        {"id": "ask", "type": "llm", "model": "echo", "prompt": "hi"},
    ],
}
SPANS = 1 + 1 + 3 * 2 + 2
"""Of one run: its own, the loop, each iteration with its step, the other step and its call of a model."""


def test_a_killed_server_sends_each_run_after_all(tmp_path: Path) -> None:
    key, runs = fill(tmp_path, FLOW), []

    def sending() -> bool:
        with closing(sqlite3.connect(tmp_path / "runglass.db")) as db:
            return bool(db.execute("SELECT 1 FROM sent_run").fetchall())

    with collecting() as collector:
        env = {"RUNGLASS_OTLP_ENDPOINT": collector.endpoint}
        for kill in range(3):
            collector.gate.clear()
            with served(tmp_path, key, env=env) as (server, http):
                eventually(sending)
                asked = len(collector.requests)
                for _ in range(3):
                    answer = http.post("/seq/acme/shop/f/execute", json={})
                    runs.append(answer.json()["executionId"])
                collector.wait_for(asked + 1)
                # What is on its way is taken by the receiver, or not, and the server never hears of it.
                collector.replies = [Reply(503)] if kill == 1 else []
                server.kill()
            collector.gate.set()
        with served(tmp_path, key, env=env):
            eventually(lambda: all(len(collector.spans(run)) >= SPANS for run in runs))
    for run in runs:
        spans = collector.spans(run)
        told = {span.span_id: span.SerializeToString() for span in spans}
        assert len(told) == SPANS
        assert {span.SerializeToString() for span in spans} == set(told.values()), "always the same"
