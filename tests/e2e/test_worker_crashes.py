"""A run whose check never ends and whose server is killed meanwhile is tried so often, and no more."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runglass.cli import main
from tests.e2e.command import Process, started
from tests.flows import doubling

STEP = {"id": "answer", "type": "llm", "model": "echo", "prompt": "hi", "output_schema": doubling(40)}
WAIT_S = 60.0


def until(found: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    pytest.fail(f"{what} did not come about in {WAIT_S:g} s")


def steps_of(http: httpx2.Client, run: str) -> list[dict[str, Any]]:
    answer = http.get(f"/flow-runs/{run}/steps/answer/trace", params={"attempt": "all"})
    attempts: list[dict[str, Any]] = answer.json().get("attempts", [])
    return attempts


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
                main(["keys", "create", "acme/shop", "--data", str(tmp_path / "data")])
                key = capsys.readouterr().out.strip()
            with client(server) as http:
                run = run or http.post("/seq/acme/shop/f/jobs", json={}).json()["executionId"]
                until(lambda: len(steps_of(http, run)) == attempt, f"attempt {attempt}")  # noqa: B023
                # The check goes on in its process, and everybody else is served.
                assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "running"
                server.kill()
    with started(*command, env=env) as server, client(server) as http:
        until(lambda: http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "failed", "the end")
        codes = [step["errorContext"]["code"] for step in steps_of(http, run)]
        assert codes == ["WORKER_LOST", "WORKER_LOST"]


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
        main(["keys", "create", "acme/shop", "--role", "run", "--data", str(data)])
        headers = {"Authorization": f"Bearer {capsys.readouterr().out.strip()}"}
        with httpx2.Client(base_url=f"{url}/api/v1", headers=headers, timeout=WAIT_S) as http:
            overrides = {"answer": {"output_schema": doubling(40)}}
            job = http.post("/seq/acme/shop/f/jobs", json={"blockOverrides": overrides})
            assert job.status_code == 202
            run = job.json()["executionId"]
            until(lambda: http.get(f"/seq/acme/shop/f/jobs/{run}").json()["status"] == "running", "the run")
        # The check goes on for longer than this waits.
        assert server.terminate() == 0
