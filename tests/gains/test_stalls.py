"""Work on what callers send never keeps the event loop from other callers for long."""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from runglass.testing import RunningServer
from tests.contract.test_limits import FLOW, HOSTILE, LIMIT_MS, override
from tests.contract.wire import http_for, refusal
from tests.servers import served

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


class Sent(NamedTuple):
    """What is sent to `slug`, whose flow is that and has run once before, on a server with these settings."""

    settings: dict[str, Any]
    flow: str
    slug: str
    body: dict[str, Any]
    statuses: tuple[int, ...] = (200,)


COPY = "slug: copy\nsteps:\n- {id: copy, type: passthrough}\n"
SLOW_TEXT = "+49 170 1234567, password: hunter2\n" * 60_000
"""Takes a second or more to redact."""
FAILING = "slug: failing\nsteps:\n- {step}\n"
FAILURES = {
    "step": "{id: work, type: code, code: 'raise ValueError(\"no\")'}",
    "loop": "{id: each, type: loop, over: '1', steps: [{id: inner, type: passthrough}]}",
}
MANY_KEYS = {f"k{number}x": "value" for number in range(60_000)} | {"password": "hunter2"}
LIMITED = {"capture": "full", "check_time_limit_ms": LIMIT_MS}
PATIENT = {"check_time_limit_ms": 60_000}
LARGE = {
    "a prompt of a megabyte": override("answer", prompt="{{ message }}" * 70_000),
    "many lists": {"message": "x", "parameters": {"rows": [[]] * 300_000}},
}
SENT: dict[str, Sent] = {
    **{
        name: Sent(LIMITED, FLOW, "victim", body, statuses=(422, 500)) for name, (body, *_) in HOSTILE.items()
    },
    **{name: Sent(PATIENT, FLOW, "victim", body) for name, body in LARGE.items()},
    # What an input tells by its keys must not come back in the error: each of them has to be judged.
    **{
        f"many keys, and a failure of a {name}": Sent(
            {"capture": "redacted"},
            FAILING.format(step=step),
            "failing",
            {"parameters": MANY_KEYS},
            statuses=(500,),
        )
        for name, step in FAILURES.items()
    },
    "a large redaction": Sent({"capture": "redacted"}, COPY, "copy", {"parameters": {"text": SLOW_TEXT}}),
}


@pytest.mark.parametrize("name", SENT)
def test_what_a_caller_sends_does_not_stall_the_loop(caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.DEBUG, LOOP_WATCH)
    settings, flow, slug, body, statuses = SENT[name]
    path, content = f"/seq/acme/demo/{slug}/execute", json.dumps(body).encode()
    with served(flow, stall_log_ms=100, **settings) as (server, http):
        http.post(path, json={"message": "x"})
        caplog.clear()
        with neighbour(server) as took:
            began = time.monotonic()
            answer = http.post(path, content=content, headers={"Idempotency-Key": "once"})
            lasted = time.monotonic() - began
    assert answer.status_code in statuses, answer.text[:300]
    told = [record.getMessage() for record in caplog.records if record.name == LOOP_WATCH]
    stalls = [line for line in told if int(re.findall(r"(\d+) ms", line)[1]) > SLOW_TURN_MS]
    if body.get("parameters") is MANY_KEYS:
        assert refusal(answer) == (500, "STEP_FAILED")
        # Other lines tell of the JSON, whose decoding nothing interrupts.
        stalls = [line for line in stalls if ".redaction." in line]
    assert stalls == []
    if name == "a large redaction":
        assert lasted > 0.5, "it took long, and all the while others were served"
        assert len(took) > 10
