"""A server that is killed while it sends runs on as spans: each run comes, and comes as the same spans."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from runglass.cli import main
from tests.collector import Reply, collecting
from tests.e2e.command import Process, started
from tests.e2e.test_workers import WAIT_S
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


def test_a_killed_server_sends_each_run_after_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = tmp_path / "flows" / "acme" / "shop" / "f.json"
    flow.parent.mkdir(parents=True)
    flow.write_text(json.dumps(FLOW))
    command = ("serve", "--port", "0", "--data", tmp_path / "data", "--flows", tmp_path / "flows")
    key, runs = "", []

    def client(server: Process) -> httpx2.Client:
        url = server.line().split()[1]
        return httpx2.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=WAIT_S
        )

    def sending() -> bool:
        with closing(sqlite3.connect(tmp_path / "data" / "runglass.db")) as db:
            return bool(db.execute("SELECT 1 FROM sent_run").fetchall())

    with collecting() as collector:
        env = {"RUNGLASS_OTLP_ENDPOINT": collector.endpoint}
        for kill in range(3):
            collector.gate.clear()
            with started(*command, env=env) as server:
                if not key:
                    server.line_of_stderr_with("acme/shop/f", "version 1")
                    main(["keys", "create", "--create", "acme/shop", "--data", str(tmp_path / "data")])
                    key = capsys.readouterr().out.strip()
                eventually(sending)
                asked = len(collector.requests)
                with client(server) as http:
                    for _ in range(3):
                        answer = http.post("/seq/acme/shop/f/execute", json={})
                        runs.append(answer.json()["executionId"])
                collector.wait_for(asked + 1)
                # What is on its way is taken by the receiver, or not, and the server never hears of it.
                collector.replies = [Reply(503)] if kill == 1 else []
                server.kill()
            collector.gate.set()
        with started(*command, env=env) as server, client(server):
            eventually(lambda: all(len(collector.spans(run)) >= SPANS for run in runs))
    for run in runs:
        spans = collector.spans(run)
        told = {span.span_id: span.SerializeToString() for span in spans}
        assert len(told) == SPANS
        assert {span.SerializeToString() for span in spans} == set(told.values()), "always the same"
