"""A run whose check never ends and whose server is killed meanwhile is tried so often, and no more."""

from pathlib import Path

from tests.e2e.command import fill, served
from tests.e2e.test_workers import followed
from tests.flows import doubling

STEP = {"id": "answer", "type": "llm", "model": "echo", "prompt": "hi", "output_schema": doubling(40)}


def test_a_run_that_outlives_no_process_is_ended_by_a_start(tmp_path: Path) -> None:
    key, run = fill(tmp_path, {"slug": "f", "steps": [STEP]}), ""
    env = {"RUNGLASS_CHECK_TIME_LIMIT_MS": "600000", "RUNGLASS_CRASH_RETRIES": "1"}
    for attempt in (1, 2):
        with served(tmp_path, key, env=env) as (server, http):
            run = run or http.post("/seq/acme/shop/f/jobs", json={}).json()["executionId"]
            followed(http, run, until=("answer", attempt))
            # The check goes on in its process, and everybody else is served.
            assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "running"
            server.kill()
    with served(tmp_path, key, env=env) as (_, http):
        codes = [event["error"]["code"] for event in followed(http, run) if "error" in event]
        assert codes == ["WORKER_LOST"] * 3, "two attempts, and the run"


def test_a_check_that_never_ends_keeps_no_server_from_stopping(tmp_path: Path) -> None:
    """The very request that froze a server, which then did not hear SIGTERM any more."""
    key = fill(tmp_path, {"slug": "f", "steps": [{**STEP, "output_schema": {"type": "object"}}]})
    env = {"RUNGLASS_CHECK_TIME_LIMIT_MS": "600000", "RUNGLASS_STOP_GRACE_S": "0"}
    with served(tmp_path, key, env=env) as (server, http):
        overrides = {"answer": {"output_schema": doubling(40)}}
        job = http.post("/seq/acme/shop/f/jobs", json={"blockOverrides": overrides})
        assert job.status_code == 202
        followed(http, job.json()["executionId"], until=("answer", 1))
        # The check goes on for longer than this waits.
        assert server.terminate() == 0
