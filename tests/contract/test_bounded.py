"""A hostile request fails for its own caller, and what holds up the event loop is told.

That others are served meanwhile is in `tests/gains/test_stalls.py`.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.wire import http_for, refusal
from tests.flows import doubling
from tests.servers import server_with
from tests.waiting import eventually

FLOW = """
slug: victim
inputs: {type: object, properties: {message: {type: string}}}
steps:
- {id: answer, type: llm, model: echo, prompt: hi}
- {id: work, type: code, code: 'return {}'}
"""
PATH = "/seq/acme/demo/victim"
LIMIT_MS = 500


def backtracking(items: int) -> dict[str, Any]:
    pattern = {"items": {"not": {"pattern": "^(?:a|a)*(?=b)c$"}}}
    values = ["a" * 15 + "c"] * items
    return {"type": "object", "properties": {"l": {**pattern, "default": values}}, "required": ["l"]}


def override(step: str, **fields: Any) -> dict[str, Any]:
    return {"message": "x", "blockOverrides": {step: fields}}


server = server_with(FLOW, capture="full", check_time_limit_ms=LIMIT_MS)


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        client.post(f"{PATH}/execute", json={"message": "x"})
        yield client


HOSTILE: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "references that double": (override("answer", output_schema=doubling(40)), (500, "STEP_FAILED"), "ms"),
    "a pattern that goes back": (
        override("answer", output_schema=backtracking(1000)),
        (500, "STEP_FAILED"),
        "check_time_limit_ms",
    ),
    "much code": (override("work", code="a = 1\n" * 700_000), (422, "INVALID_REQUEST"), "flow_limit_bytes"),
    "a long prompt": (
        override("answer", prompt="{{ message }}" * 700_000),
        (422, "INVALID_REQUEST"),
        "flow_limit_bytes",
    ),
    "numbers that take long to read": (
        {"message": "x", "parameters": {"a": [1e300] * 200_000}},
        (422, "INVALID_REQUEST"),
        "body_values_limit",
    ),
    "a large schema": (
        override("answer", output_schema={"properties": {f"p{n}": {"minLength": 1} for n in range(12_000)}}),
        (422, "INVALID_REQUEST"),
        "schema_limit_bytes",
    ),
    "many steps that are not there": (
        {"message": "x", "blockOverrides": {f"answe{n}": {"prompt": "x"} for n in range(20_000)}},
        (422, "INVALID_REQUEST"),
        "and 19,995 more",
    ),
    "tools that double": (
        {
            "message": "x",
            "tools": [{"type": "function", "function": {"name": "t", "parameters": doubling(40)}}],
        },
        (500, "STEP_FAILED"),
        "check_time_limit_ms",
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_request_is_refused(http: httpx2.Client, attack: str) -> None:
    body, expected, told = HOSTILE[attack]
    answer = http.post(f"{PATH}/execute", json=body)
    assert refusal(answer) == expected
    assert told in answer.json()["detail"]["message"]


def test_a_pushed_file_is_checked_off_the_loop_within_its_time_limit(http: httpx2.Client) -> None:
    with running_server(flow_check_time_limit_ms=200) as impatient, http_for(impatient, impatient.key) as own:
        steps = "".join(f"- {{id: a{n}, type: passthrough}}\n" for n in range(9_000))
        answer = own.put("/flows/acme/demo/large", content=f"slug: large\nsteps:\n{steps}".encode())
        assert refusal(answer) == (422, "INVALID_REQUEST")
        assert "flow_check_time_limit_ms" in answer.json()["detail"]["message"]
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
