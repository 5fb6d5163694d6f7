"""Work on what callers send never keeps the event loop from other callers for long."""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.test_large_redaction import COPY, SETTINGS, slow_text
from tests.contract.test_limits import FLOW, HOSTILE, LIMIT_MS, PATH, override
from tests.contract.wire import http_for, refusal

LOOP_WATCH = "runglass.server.http.loop_watch"
SLOW_TURN_MS = 100
"""What the process itself must have computed for a stall to be its own, on a machine that others use too."""


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


@pytest.fixture(autouse=True)
def _stalls_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOOP_WATCH)


def own_stalls(records: list[logging.LogRecord]) -> list[str]:
    told = [record.getMessage() for record in records if record.name == LOOP_WATCH]
    return [line for line in told if int(re.findall(r"(\d+) ms", line)[1]) > SLOW_TURN_MS]


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_request_does_not_stall_the_loop(caplog: pytest.LogCaptureFixture, attack: str) -> None:
    content = json.dumps(HOSTILE[attack][0]).encode()
    with (
        running_server(capture="full", check_time_limit_ms=LIMIT_MS, stall_log_ms=100) as server,
        http_for(server, server.key) as http,
    ):
        server.push(FLOW)
        http.post(f"{PATH}/execute", json={"message": "x"})
        with neighbour(server):
            answer = http.post(f"{PATH}/execute", content=content, headers={"Idempotency-Key": "once"})
            assert answer.status_code in (422, 500)
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
    with (
        running_server(check_time_limit_ms=60_000, stall_log_ms=100) as patient,
        http_for(patient, patient.key) as client,
    ):
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
    with running_server(capture="redacted", stall_log_ms=100) as own, http_for(own, own.key) as client:
        own.push(FAILING.format(name=name, step=FAILURES[name]))
        given = {f"k{number}x": "value" for number in range(60_000)} | {"password": "hunter2"}
        content = json.dumps({"parameters": given}).encode()
        caplog.clear()
        with neighbour(own):
            answer = client.post(f"/seq/acme/demo/failing-{name}/execute", content=content)
        assert refusal(answer) == (500, "STEP_FAILED")
    # Other lines tell of the JSON, whose decoding nothing interrupts.
    assert [line for line in own_stalls(caplog.records) if ".redaction." in line] == []


def test_a_large_redaction_does_not_stall_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    with running_server(stall_log_ms=100, **SETTINGS) as server, http_for(server, server.key) as http:
        server.push(COPY)
        content = json.dumps({"parameters": slow_text()}).encode()
        http.post("/seq/acme/demo/copy/execute", json={"parameters": {}})
        caplog.clear()
        with neighbour(server) as took:
            began = time.monotonic()
            answer = http.post("/seq/acme/demo/copy/execute", content=content)
            lasted = time.monotonic() - began
        assert answer.status_code == 200
    assert own_stalls(caplog.records) == []
    # It took long, and all the while others were served.
    assert lasted > 0.5
    assert len(took) > 10
