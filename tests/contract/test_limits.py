"""What callers may take, as they meet it: requests, money, iterations, outputs, log, data, memory, time.

That others are served while a hostile request is refused is in `tests/gains/test_stalls.py`.
"""

import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx2
import pytest

from runglass.limits.limits import Rates
from runglass.testing import RunningServer, running_server
from tests.contract.test_viewer import signed_in
from tests.contract.wire import ANYTHING, detail, execute, frames, http_for, refusal, set_budget
from tests.flows import doubling
from tests.servers import served, server_with
from tests.waiting import eventually

PER_MINUTE = 11
LIMIT_MS = 500
FLOW = """
slug: victim
inputs: {type: object, properties: {message: {type: string}}}
steps:
- {id: answer, type: llm, model: echo, prompt: hi}
- {id: work, type: code, code: 'return {}'}
"""
PATH = "/seq/acme/demo/victim"
LOOP = "slug: loop\nsteps: [{id: each, type: loop, over: items, steps: [{id: work, type: passthrough}]}]"
GROW = """
slug: grow
steps:
  - {id: each, type: loop, over: items, steps: [{id: work, type: code, code: 'return {"text": "x" * 50000}'}]}
"""

server = server_with(
    *(FLOW, LOOP, GROW),
    capture="full",
    check_time_limit_ms=LIMIT_MS,
    run_iterations=20,
    run_output_bytes=900_000,
)


minute = server_with(ANYTHING, rate_limit_per_minute=PER_MINUTE)


@pytest.fixture(scope="module", autouse=True)
def _one_minute() -> Iterator[None]:
    """For limits of rate the clock stands still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runglass.limits.limits.Rates", partial(Rates, clock=lambda: 0.0))
        yield


def test_a_key_has_so_many_requests_a_minute_whatever_their_path_and_a_stream_is_one(
    minute: RunningServer,
) -> None:
    with http_for(minute, minute.make_key("acme", "demo")) as http:
        run = execute(http, "anything")
        assert http.get(f"/flow-runs/{run}/trace/stream").text.count("event: ") > 2
        statuses = [http.get("/flow-runs").status_code for _ in range(PER_MINUTE - 2)]
        assert statuses == [200] * (PER_MINUTE - 2)
        answer = http.post("/seq/acme/demo/anything/execute", json={})
        assert refusal(answer, "11 times a minute") == (429, "RATE_LIMITED")
        assert answer.headers["retry-after"] == "6", "of 5.45 s: who comes a second earlier is refused again"
        for path in ("/flow-runs/x/trace/stream", "/no/such/path"):
            assert refusal(http.get(path)) == (429, "RATE_LIMITED")


def test_open_endpoints_have_no_rate_limit(minute: RunningServer) -> None:
    with http_for(minute, None) as nobody:
        for path in ("/health", "/api/v1/schemas/flow.json"):
            statuses = {nobody.get(f"{minute.address}{path}").status_code for _ in range(PER_MINUTE + 10)}
            assert statuses == {200}


def test_more_keys_do_not_raise_the_limit_of_the_project_and_a_refused_one_takes_nothing_of_it() -> None:
    limits = {"rate_limit_per_minute": 7, "project_rate_limit_per_minute": 20, "max_keys_per_project": 6}
    with served(**limits) as (server, admin):
        minted = [admin.post("/keys", json={"role": "run"}) for _ in range(6)]
        assert [answer.status_code for answer in minted] == [201] * 5 + [403]
        told = ("limit of keys of this project, 6,", "`max_keys_per_project`")
        assert refusal(minted[-1], *told) == (403, "FORBIDDEN")

        def asked(key: int, times: int) -> list[httpx2.Response]:
            with http_for(server, minted[key].json()["key"]) as http:
                return [http.get("/flow-runs") for _ in range(times)]

        eager, others = asked(0, 50), [*asked(1, 7), *asked(2, 1)]
        assert [answer.status_code for answer in eager] == [200] * 7 + [429] * 43
        assert refusal(eager[-1], "this key ", "`rate_limit_per_minute`") == (429, "RATE_LIMITED")
        assert [answer.status_code for answer in others] == [200] * 7 + [429]
        assert refusal(others[-1], "this project, ", "`project_rate_limit_per_minute`")[0] == 429
        with http_for(server, server.make_key("acme", "other")) as other:
            assert other.get("/flow-runs").status_code == 200


def test_a_paused_run_outlives_a_spent_budget(minute: RunningServer) -> None:
    minute.push("slug: two\nsteps: [{id: a, type: passthrough}, {id: b, type: passthrough}]", project="low")
    with http_for(minute, minute.make_key("acme", "low")) as http:
        path = "/seq/acme/low/two/step"
        run = frames(http.post(path, json={}).text)[0].data["executionId"]
        set_budget(minute, "0", project="low")
        body = {"executionId": run, "stepIndex": 1}
        assert refusal(http.post(path, json=body)) == (402, "INSUFFICIENT_CREDITS")
        set_budget(minute, None, project="low")
        assert frames(http.post(path, json=body).text)[-1].event == "flow_completed"


def test_a_session_of_a_browser_counts_against_the_rate_of_its_key(minute: RunningServer) -> None:
    key = minute.make_key("acme", "demo")
    with signed_in(minute, key) as browser, http_for(minute, key) as http:
        statuses = [browser.get("/viewer/me").status_code for _ in range(PER_MINUTE)]
        assert statuses == [200] * (PER_MINUTE - 1) + [429]
        assert refusal(http.get("/viewer/me")) == (429, "RATE_LIMITED")


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
    """The steps of a run that failed."""
    trace = http.get(f"/flow-runs/{detail(answer)['executionId']}/trace").json()
    assert trace["flowRun"]["status"] == "failed"
    steps: list[dict[str, Any]] = trace["steps"]
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
    with served(LOOP, run_log_bytes=5000) as (_, http):
        answer = run(http, "loop", 50)
        assert limit_of(answer)["setting"] == "run_log_bytes"
        assert 3 < len(steps_of(http, answer)) < 20


def test_a_full_project_starts_nothing_until_runs_are_deleted() -> None:
    with served(LOOP, project_data_bytes=30_000) as (server, http):
        server.push(LOOP, project="other")
        runs = []
        while (answer := run(http, "loop", 5)).status_code == 200:
            runs.append(answer.json()["executionId"])
            assert len(runs) < 20
        told = ("project_data_bytes", "30,000", "runglass runs delete", "retention_days")
        assert refusal(answer, *told) == (503, "UNAVAILABLE")
        with http_for(server, server.make_key("acme", "other")) as other:
            beside = other.post("/seq/acme/other/loop/execute", json={"parameters": {"items": [1]}})
            assert beside.status_code == 200
        assert http.delete(f"/flow-runs/{runs[0]}?purge=true").status_code < 300
        assert run(http, "loop", 5).status_code == 200


def test_a_step_that_memory_has_no_room_for_fails_and_others_go_on() -> None:
    with served(LOOP, memory_limit_bytes=1 << 20, run_memory_bytes=0) as (server, http):
        server.push(
            "slug: hoard\nsteps: [{id: each, type: loop, over: items, steps: [{id: pair, type: parallel,"
            ' branches: {a: [{id: text, type: code, code: \'return {"text": "x" * 60000}\'}]}}]}]'
        )
        answer = run(http, "hoard", 50)
        assert limit_of(answer)["setting"] == "memory_limit_bytes"
        eventually(lambda: server.runtime.engine.limits.memory.held == 0)
        assert run(http, "loop", 50).status_code == 200


def override(step: str, **fields: Any) -> dict[str, Any]:
    return {"message": "x", "blockOverrides": {step: fields}}


FAILED, REFUSED = (500, "STEP_FAILED"), (422, "INVALID_REQUEST")
BACKTRACKING = {"items": {"not": {"pattern": "^(?:a|a)*(?=b)c$"}}, "default": ["a" * 15 + "c"] * 1000}
GOING_BACK = {"type": "object", "properties": {"l": BACKTRACKING}, "required": ["l"]}
DOUBLING = {"type": "function", "function": {"name": "t", "parameters": doubling(40)}}
MANY = {"properties": {f"p{n}": {"minLength": 1} for n in range(12_000)}}
HOSTILE: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "references that double": (override("answer", output_schema=doubling(40)), FAILED, "ms"),
    "a pattern that goes back": (
        override("answer", output_schema=GOING_BACK),
        *(FAILED, "check_time_limit_ms"),
    ),
    "tools that double": ({"message": "x", "tools": [DOUBLING]}, FAILED, "check_time_limit_ms"),
    "much code": (override("work", code="a = 1\n" * 700_000), REFUSED, "flow_limit_bytes"),
    "a long prompt": (override("answer", prompt="{{ message }}" * 700_000), REFUSED, "flow_limit_bytes"),
    "numbers that take long to read": (
        {"message": "x", "parameters": {"a": [1e300] * 200_000}},
        *(REFUSED, "body_values_limit"),
    ),
    "a large schema": (override("answer", output_schema=MANY), REFUSED, "schema_limit_bytes"),
    "many steps that are not there": (
        {"message": "x", "blockOverrides": {f"answe{n}": {"prompt": "x"} for n in range(20_000)}},
        *(REFUSED, "and 19,995 more"),
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_request_is_refused(http: httpx2.Client, attack: str) -> None:
    body, expected, told = HOSTILE[attack]
    assert refusal(http.post(f"{PATH}/execute", json=body), told) == expected


def test_a_pushed_file_is_checked_off_the_loop_within_its_time_limit() -> None:
    with served(flow_check_time_limit_ms=200) as (_, own):
        steps = "".join(f"- {{id: a{n}, type: passthrough}}\n" for n in range(9_000))
        answer = own.put("/flows/acme/demo/large", content=f"slug: large\nsteps:\n{steps}".encode())
        assert refusal(answer, "flow_check_time_limit_ms") == (422, "INVALID_REQUEST")
        eventually(lambda: own.put("/flows/acme/demo/victim", content=FLOW.encode()).status_code == 200)


def test_the_loop_watch_logs_the_task_that_blocked_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    def told(level: int) -> bool:
        lines = [record for record in caplog.records if record.levelno == level]
        return any(
            "stood still" in line.getMessage() and "task 'Task-" in line.getMessage() for line in lines
        )

    async def hold_up(seconds: float) -> None:
        """Until the watch, which tells of a stall at its end, must have seen this one."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            pass

    with (
        running_server(stall_log_ms=50) as server,
        caplog.at_level(logging.DEBUG, "runglass.server.http.loop_watch"),
    ):
        while not told(logging.DEBUG):
            server.call(hold_up(0.2))
        while not told(logging.WARNING):
            server.call(hold_up(1.2))
