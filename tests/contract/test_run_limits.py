"""What one run and one project may take, as callers meet it: iterations, outputs, log, data, memory."""

from typing import Any

import httpx2

from runglass.testing import running_server
from tests.contract.wire import detail, http_for, refusal
from tests.servers import server_with
from tests.waiting import eventually

LOOP = "slug: loop\nsteps: [{id: each, type: loop, over: items, steps: [{id: work, type: passthrough}]}]"
GROW = """
slug: grow
steps:
  - {id: each, type: loop, over: items, steps: [{id: work, type: code, code: 'return {"text": "x" * 50000}'}]}
"""


server = server_with(LOOP, GROW, run_iterations=20, run_output_bytes=900_000)


def run(http: httpx2.Client, slug: str, items: int) -> httpx2.Response:
    body = {"parameters": {"items": list(range(items))}}
    return http.post(f"/seq/acme/demo/{slug}/execute", json=body)


def limit_of(answer: httpx2.Response) -> dict[str, Any]:
    """The error of a run that failed, and that it says how the limit can be raised."""
    assert refusal(answer) == (500, "STEP_FAILED")
    error: dict[str, Any] = detail(answer)["error"]
    assert error["code"] == "RUN_LIMIT"
    assert f"(setting {error['setting']})" in error["message"]
    assert f"{error['value']:,}" in error["message"]
    return error


def steps_of(http: httpx2.Client, answer: httpx2.Response) -> list[dict[str, Any]]:
    body = answer.json()
    run_id = body.get("executionId") or body["detail"]["executionId"]
    steps: list[dict[str, Any]] = http.get(f"/flow-runs/{run_id}/trace").json()["steps"]
    return steps


def test_a_loop_with_too_many_items_is_refused_before_its_first_iteration(http: httpx2.Client) -> None:
    assert run(http, "loop", 20).status_code == 200
    answer = run(http, "loop", 21)
    assert limit_of(answer)["setting"] == "run_iterations"
    assert {step["stepId"] for step in steps_of(http, answer)} == {"each"}


def test_outputs_of_a_run_end_where_their_limit_is(http: httpx2.Client) -> None:
    answer = run(http, "grow", 20)
    assert limit_of(answer)["setting"] == "run_output_bytes"
    completed = [step for step in steps_of(http, answer) if step["status"] == "completed"]
    assert 50_000 * len(completed) <= 900_000 < 50_100 * (len(completed) + 1)


def test_a_log_that_is_too_long_ends_the_run_at_the_next_step() -> None:
    with running_server(run_log_bytes=5000) as server, http_for(server, server.key) as http:
        server.push(LOOP)
        answer = run(http, "loop", 50)
        assert limit_of(answer)["setting"] == "run_log_bytes"
        run_id = detail(answer)["executionId"]
        assert http.get(f"/flow-runs/{run_id}/trace").json()["flowRun"]["status"] == "failed"
        assert 3 < len(steps_of(http, answer)) < 20


def test_a_full_project_starts_nothing_until_runs_are_deleted() -> None:
    with running_server(project_data_bytes=30_000) as server, http_for(server, server.key) as http:
        server.push(LOOP)
        server.push(LOOP, project="other")
        runs = []
        while (answer := run(http, "loop", 5)).status_code == 200:
            runs.append(answer.json()["executionId"])
            assert len(runs) < 20
        assert refusal(answer) == (503, "UNAVAILABLE")
        for part in ("project_data_bytes", "30,000", "runglass runs delete", "retention_days"):
            assert part in detail(answer)["message"]
        with http_for(server, server.make_key("acme", "other")) as other:
            beside = other.post("/seq/acme/other/loop/execute", json={"parameters": {"items": [1]}})
            assert beside.status_code == 200
        assert http.delete(f"/flow-runs/{runs[0]}?purge=true").status_code < 300
        assert run(http, "loop", 5).status_code == 200


def test_a_step_that_memory_has_no_room_for_fails_and_others_go_on() -> None:
    limits = {"memory_limit_bytes": 1 << 20, "run_memory_bytes": 0}
    with running_server(**limits) as server, http_for(server, server.key) as http:
        server.push(LOOP)
        server.push(
            "slug: hoard\nsteps: [{id: each, type: loop, over: items, steps: [{id: pair, type: parallel,"
            ' branches: {a: [{id: text, type: code, code: \'return {"text": "x" * 60000}\'}]}}]}]'
        )
        answer = run(http, "hoard", 50)
        assert limit_of(answer)["setting"] == "memory_limit_bytes"
        eventually(lambda: server.runtime.engine.limits.memory.held == 0)
        assert run(http, "loop", 50).status_code == 200
