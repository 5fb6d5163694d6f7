"""A run whose check never ends and whose server is killed meanwhile is tried so often, and no more."""

import json
from pathlib import Path

import httpx2
import pytest

from runglass.cli import main
from tests.e2e.command import Process, started
from tests.e2e.test_workers import WAIT_S, followed
from tests.flows import doubling

STEP = {"id": "answer", "type": "llm", "model": "echo", "prompt": "hi", "output_schema": doubling(40)}


def test_a_run_that_outlives_no_process_is_ended_by_a_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = tmp_path / "flows" / "acme" / "shop" / "f.json"
    flow.parent.mkdir(parents=True)
    flow.write_text(json.dumps({"slug": "f", "steps": [STEP]}))
    command = ("serve", "--port", "0", "--data", tmp_path / "data", "--flows", tmp_path / "flows")
    env = {"RUNGLASS_CHECK_TIME_LIMIT_MS": "600000", "RUNGLASS_CRASH_RETRIES": "1"}
    key = run = ""

    def client(server: Process) -> httpx2.Client:
        url = server.line().split()[1]
        return httpx2.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=WAIT_S
        )

    for attempt in (1, 2):
        with started(*command, env=env) as server:
            if not key:
                server.line_of_stderr_with("acme/shop/f", "version 1")
                main(["keys", "create", "--create", "acme/shop", "--data", str(tmp_path / "data")])
                key = capsys.readouterr().out.strip()
            with client(server) as http:
                run = run or http.post("/seq/acme/shop/f/jobs", json={}).json()["executionId"]
                followed(http, run, until=("answer", attempt))
                # The check goes on in its process, and everybody else is served.
                assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "running"
                server.kill()
    with started(*command, env=env) as server, client(server) as http:
        codes = [event["error"]["code"] for event in followed(http, run) if "error" in event]
        assert codes == ["WORKER_LOST"] * 3, "two attempts, and the run"


def test_a_check_that_never_ends_keeps_no_server_from_stopping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The very request that froze a server, which then did not hear SIGTERM any more."""
    flow = tmp_path / "flows" / "acme" / "shop" / "f.json"
    flow.parent.mkdir(parents=True)
    flow.write_text(json.dumps({"slug": "f", "steps": [{**STEP, "output_schema": {"type": "object"}}]}))
    data = tmp_path / "data"
    env = {"RUNGLASS_CHECK_TIME_LIMIT_MS": "600000", "RUNGLASS_STOP_GRACE_S": "0"}
    with started("serve", "--port", "0", "--data", data, "--flows", tmp_path / "flows", env=env) as server:
        url = server.line().split()[1]
        server.line_of_stderr_with("acme/shop/f", "version 1")
        main(["keys", "create", "--create", "acme/shop", "--role", "run", "--data", str(data)])
        headers = {"Authorization": f"Bearer {capsys.readouterr().out.strip()}"}
        with httpx2.Client(base_url=f"{url}/api/v1", headers=headers, timeout=WAIT_S) as http:
            overrides = {"answer": {"output_schema": doubling(40)}}
            job = http.post("/seq/acme/shop/f/jobs", json={"blockOverrides": overrides})
            assert job.status_code == 202
            run = job.json()["executionId"]
            followed(http, run, until=("answer", 1))
        # The check goes on for longer than this waits.
        assert server.terminate() == 0
