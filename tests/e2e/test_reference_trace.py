"""The trace of a run that outlived its server is what its events add up to, by a fold that is not its own."""

import json
import socket
from pathlib import Path

import httpx2
import pytest

from runglass.cli import main
from tests.contract.test_reference_trace import check
from tests.e2e.command import Process, started

FLOW = {
    "slug": "f",
    "steps": [
        {"id": "first", "type": "passthrough"},
        {"id": "ask", "type": "llm", "model": "silent:model", "prompt": "hi", "on_error": "continue"},
        {"id": "last", "type": "passthrough"},
    ],
}


def test_a_run_whose_server_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While it waited for a model that never answers."""
    flow = tmp_path / "flows" / "acme" / "shop" / "f.json"
    flow.parent.mkdir(parents=True)
    flow.write_text(json.dumps(FLOW))
    command = ("serve", "--port", "0", "--data", tmp_path / "data", "--flows", tmp_path / "flows")
    key = ""

    def client(server: Process) -> httpx2.Client:
        url = server.line().split()[1]
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        providers = {"silent": f"http://127.0.0.1:{silent.getsockname()[1]}/v1"}
        env = {"RUNGLASS_PROVIDERS": json.dumps(providers), "RUNGLASS_CRASH_RETRIES": "0"}
        with started(*command, env=env) as server:
            server.line_of_stderr_with("acme/shop/f", "version 1")
            main(["keys", "create", "acme/shop", "--data", str(tmp_path / "data")])
            key = capsys.readouterr().out.strip()
            with client(server) as http:
                run = http.post("/seq/acme/shop/f/jobs", json={}).json()["executionId"]
                begins = ("step_started", "ask")
                is_asking = lambda e: (e["eventType"], e.get("stepId")) == begins  # noqa: E731
                assert check(http, run, until=is_asking) == "running"
                asked, _ = silent.accept()
                with asked:
                    server.kill()
        with started(*command, env=env) as server, client(server) as http:
            assert check(http, run) == "completed"
            attempt = http.get(f"/flow-runs/{run}/steps/ask/trace").json()
            assert attempt["errorContext"]["code"] == "WORKER_LOST"
            assert [call["costUnknown"] for call in attempt["modelCalls"]] == ["no_usage"]
