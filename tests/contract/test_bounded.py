"""A hostile request may fail for its own caller, but never delays other callers: nothing stalls the loop."""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.wire import http_for, refusal
from tests.flows import doubling

FLOW = """
slug: victim
inputs: {type: object, properties: {message: {type: string}}}
steps:
- {id: answer, type: llm, model: echo, prompt: hi}
- {id: work, type: code, code: 'return {}'}
"""
PATH = "/seq/acme/demo/victim"
LIMIT_MS = 500
SLOW_TURN_MS = 100
"""What the process itself must have computed for a stall to be its own, on a machine that others use too."""


def backtracking(items: int) -> dict[str, Any]:
    pattern = {"items": {"not": {"pattern": "^(?:a|a)*(?=b)c$"}}}
    values = ["a" * 15 + "c"] * items
    return {"type": "object", "properties": {"l": {**pattern, "default": values}}, "required": ["l"]}


def override(step: str, **fields: Any) -> dict[str, Any]:
    return {"message": "x", "blockOverrides": {step: fields}}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(capture="full", check_time_limit_ms=LIMIT_MS) as running:
        running.push(FLOW)
        yield running


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        client.post(f"{PATH}/execute", json={"message": "x"})
        yield client


@contextmanager
def neighbour(server: RunningServer) -> Iterator[list[float]]:
    """A caller that asks for the list of runs all the time, and once at least; the seconds of each answer."""
    took: list[float] = []
    over = threading.Event()

    def poll() -> None:
        with http_for(server, server.key) as client:
            while not took or not over.wait(0.01):
                began = time.monotonic()
                assert client.get("/flow-runs?limit=1").status_code == 200
                took.append(time.monotonic() - began)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


def own_stalls(records: list[logging.LogRecord]) -> list[str]:
    told = [record.getMessage() for record in records if record.name == "runglass.server.http.loop_watch"]
    return [line for line in told if int(re.findall(r"(\d+) ms", line)[1]) > SLOW_TURN_MS]


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
def test_a_hostile_request_is_refused_and_a_neighbour_served(
    server: RunningServer, http: httpx2.Client, caplog: pytest.LogCaptureFixture, attack: str
) -> None:
    body, expected, told = HOSTILE[attack]
    content = json.dumps(body).encode()
    with neighbour(server) as took:
        answer = http.post(f"{PATH}/execute", content=content)
    assert refusal(answer) == expected
    assert told in answer.json()["detail"]["message"]
    assert len(took) > 0
    assert own_stalls(caplog.records) == []


@pytest.mark.parametrize(
    "body",
    [override("answer", prompt="{{ message }}" * 70_000), {"parameters": {"rows": [[]] * 300_000}}],
    ids=["a prompt of a megabyte", "many lists"],
)
def test_a_large_request_that_is_allowed_does_not_stall_the_loop(
    caplog: pytest.LogCaptureFixture, body: dict[str, Any]
) -> None:
    content = json.dumps({"message": "x", **body}).encode()
    with running_server(check_time_limit_ms=60_000) as patient, http_for(patient, patient.key) as client:
        patient.push(FLOW)
        client.post(f"{PATH}/execute", json={"message": "x"})
        with neighbour(patient):
            answer = client.post(f"{PATH}/execute", content=content)
    assert answer.status_code == 200, answer.text[:300]
    assert own_stalls(caplog.records) == []


FAILING = """
slug: failing-{name}
steps:
- {step}
"""
FAILURES = {
    "step": "{id: work, type: code, code: 'raise ValueError(\"no\")'}",
    "loop": "{id: each, type: loop, over: '1', steps: [{id: inner, type: passthrough}]}",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_with_many_keys_in_its_input_does_not_stall_the_loop(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """What the input tells by its keys must not come back in the error: each of them has to be judged."""
    with running_server(capture="redacted") as own, http_for(own, own.key) as client:
        own.push(FAILING.format(name=name, step=FAILURES[name]))
        given = {f"k{number}x": "value" for number in range(60_000)} | {"password": "hunter2"}
        content = json.dumps({"parameters": given}).encode()
        caplog.clear()
        with neighbour(own):
            answer = client.post(f"/seq/acme/demo/failing-{name}/execute", content=content)
        assert refusal(answer) == (500, "STEP_FAILED")
    # Other lines tell of the JSON, whose decoding nothing interrupts.
    assert [line for line in own_stalls(caplog.records) if ".redaction." in line] == []


def test_a_pushed_file_is_checked_off_the_loop_within_its_time_limit(http: httpx2.Client) -> None:
    with running_server(flow_check_time_limit_ms=200) as impatient, http_for(impatient, impatient.key) as own:
        steps = "".join(f"- {{id: a{n}, type: passthrough}}\n" for n in range(9_000))
        answer = own.put("/flows/acme/demo/large", content=f"slug: large\nsteps:\n{steps}".encode())
        assert refusal(answer) == (422, "INVALID_REQUEST")
        assert "flow_check_time_limit_ms" in answer.json()["detail"]["message"]
        assert own.put("/flows/acme/demo/victim", content=FLOW.encode()).status_code == 200


def test_the_loop_watch_logs_the_task_that_blocked_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def hold_up() -> None:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass

    with running_server(stall_log_ms=50) as server:
        server.call(hold_up())
    told = [record.getMessage() for record in caplog.records if "stood still" in record.getMessage()]
    assert any("task 'Task-" in line for line in told)


def test_stalls_that_the_process_did_not_make_are_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wait() -> None:
        # The loop sleeps as it does where the machine gives the processor to others.
        time.sleep(0.2)

    async def wait_on_the_loop() -> None:
        wait()

    with running_server(stall_log_ms=50) as server, caplog.at_level(logging.INFO):
        for _ in range(4):
            server.call(wait_on_the_loop())
            time.sleep(0.1)
    told = [record for record in caplog.records if "stood still" in record.getMessage()]
    waiting = [record for record in told if record.levelno == logging.INFO]
    assert len(waiting) == 1
