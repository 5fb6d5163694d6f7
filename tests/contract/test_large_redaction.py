"""Megabytes with secrets in them, from outside: what is kept is what the rules say, and nobody else waits."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from runglass.engine.capture.snapshots import shortened
from runglass.redact import Redactor
from runglass.testing import running_server
from tests.contract.test_owed_answers import expire
from tests.contract.wire import http_for, refusal

COPY = "slug: copy\nsteps:\n- {id: copy, type: passthrough}\n"
GROW = """
slug: grow
steps:
- id: make
  type: code
  code: |
    row = {"password": "hunter2-" + word, "note": "mail " + word + "@example.com or ACME-4711", "n": 1}
    return {"rows": [row for _ in range(20000)]}
- {id: copy, type: passthrough}
- id: fail
  type: code
  code: |
    raise ValueError("I know " + rows[0]["password"] + " and ACME-4711")
"""
SECRETS = ("hunter2", "ACME-4711", "@example.com")
SETTINGS: dict[str, Any] = {"capture": "redacted", "redact_patterns": ["ACME-[0-9]+"]}
PATH = "/seq/acme/demo"


def kept_of(value: dict[str, Any]) -> bytes:
    """The snapshot that a trace must have of the value, by the redaction rules alone."""
    redactor = Redactor(extra_patterns=SETTINGS["redact_patterns"])
    return shortened(msgspec.json.encode(value), value, limit_bytes=262_144, redactor=redactor)[0]


def grown(word: str) -> dict[str, Any]:
    note = f"mail {word}@example.com or ACME-4711"
    return {"rows": [{"password": f"hunter2-{word}", "note": note, "n": 1}] * 20_000}


def slow_text() -> dict[str, Any]:
    """A text that takes a second or more to redact."""
    return {"text": "+49 170 1234567, password: hunter2\n" * 60_000}


def trace_of(http: httpx2.Client, run: str) -> httpx2.Response:
    return http.get(f"/flow-runs/{run}/trace")


def test_secrets_in_megabytes_are_in_no_trace_and_no_file(tmp_path: Path) -> None:
    with running_server(data=tmp_path, **SETTINGS) as server, http_for(server, server.key) as http:
        server.push(GROW)
        answer = http.post(f"{PATH}/grow/execute", json={"parameters": {"word": "w0rd"}})
        assert refusal(answer) == (500, "STEP_FAILED")
        trace = trace_of(http, http.get("/flow-runs?limit=1").json()["runs"][0]["id"])
        steps = {step["stepId"]: step for step in trace.json()["steps"]}
        kept = kept_of(grown("w0rd"))
        # The output of two steps, and the input of the two behind them.
        assert trace.content.count(kept) == 4
        assert (
            steps["fail"]["errorContext"]["message"]
            == "ValueError: I know [redacted] and [redacted] (line 1)"
        )
        assert not any(secret in trace.text for secret in SECRETS)
        expire(server)
    held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"[redacted]" in held
    # The flow itself is stored, and says of the first two what they are before a word is put behind them.
    assert not any(secret in held for secret in (b"hunter2-w0rd", b"w0rd@example.com"))


@contextmanager
def killing() -> Iterator[list[int]]:
    """Somebody who kills the processes that redact as soon as they go on with it; their ids."""
    killed: list[int] = []
    over, before = threading.Event(), redacting()

    def hunt() -> None:
        while not over.wait(0.01):
            for pid, ticks in redacting().items():
                if ticks > before.get(pid, ticks) + 5:
                    # One that was killed a moment ago may still have been listed.
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    thread = threading.Thread(target=hunt)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def redacting() -> dict[int, int]:
    """Those that redact, forked from a child of this process: by id how long, in ticks of the processor."""
    found, parents = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text().rpartition(") ")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            # It has ended meanwhile.
            continue
        if b"runglass.engine.capture.redaction_worker" in command and status[0] != "Z":
            found[int(entry.name)], parents[int(entry.name)] = int(status[11]), int(status[1])
    return {pid: ticks for pid, ticks in found.items() if parents.get(parents[pid]) == os.getpid()}


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes as Linux tells them")
def test_a_killed_process_leaks_nothing_and_the_run_goes_on(tmp_path: Path) -> None:
    with running_server(data=tmp_path, **SETTINGS) as server, http_for(server, server.key) as http:
        server.push(COPY)
        # It has the processes started.
        http.post(f"{PATH}/copy/execute", json={"parameters": {"text": "x" * 1_000_000}})
        with killing() as killed:
            answer = http.post(f"{PATH}/copy/execute", json={"parameters": slow_text()})
        assert answer.status_code == 200
        assert killed
        run = http.get("/flow-runs?limit=1").json()["runs"][0]
        # What is redacted first.
        told = trace_of(http, run["id"]).json()["flowRun"]["input"]
        assert "could not be redacted" in told["inputs"]["…"]
        expire(server)
    held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"could not be redacted" in held
    assert b"hunter2" not in held
