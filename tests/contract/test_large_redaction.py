"""Megabytes with secrets in them, from outside: what is kept is what the rules say."""

from pathlib import Path
from typing import Any

import msgspec

from runglass.engine.capture.snapshots import shortened
from runglass.redact import Redactor
from runglass.testing import running_server
from tests.contract.test_owed_answers import expire
from tests.contract.wire import detail, http_for, refusal

GROW = """
slug: grow
steps:
- id: make
  type: code
  timeout_ms: 60000
  code: |
    row = {"password": "hunter2-" + word, "note": "mail " + word + "@example.com or ACME-4711", "n": 1}
    return {"rows": [row for _ in range(20000)]}
- {id: copy, type: passthrough}
- id: fail
  type: code
  timeout_ms: 60000
  code: |
    raise ValueError("I know " + rows[0]["password"] + " and ACME-4711")
"""
SECRETS = ("hunter2", "ACME-4711", "@example.com")
SETTINGS: dict[str, Any] = {"capture": "redacted", "redact_patterns": ["ACME-[0-9]+"]}


def bytes_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_secrets_in_megabytes_are_in_no_trace_and_no_file(tmp_path: Path) -> None:
    with running_server(data=tmp_path, **SETTINGS) as server, http_for(server, server.key) as http:
        server.push(GROW)
        answer = http.post("/seq/acme/demo/grow/execute", json={"parameters": {"word": "w0rd"}})
        assert refusal(answer) == (500, "STEP_FAILED")
        trace = http.get(f"/flow-runs/{detail(answer)['executionId']}/trace")
        made = {"password": "hunter2-w0rd", "note": "mail w0rd@example.com or ACME-4711", "n": 1}
        grown = {"rows": [made] * 20_000}
        # The output of two steps, and the input of the two behind them, are what the redaction rules leave.
        redactor = Redactor(extra_patterns=SETTINGS["redact_patterns"])
        kept = shortened(msgspec.json.encode(grown), grown, limit_bytes=262_144, redactor=redactor)[0]
        assert trace.content.count(kept) == 4
        (error,) = (step["errorContext"] for step in trace.json()["steps"] if step["stepId"] == "fail")
        assert error["message"] == "ValueError: I know [redacted] and [redacted] (line 1)"
        assert not any(secret in trace.text for secret in SECRETS)
        expire(server)
    held = bytes_in(tmp_path)
    assert b"[redacted]" in held
    # The flow itself is stored, and says of the first two what they are before a word is put behind them.
    assert not any(secret in held for secret in (b"hunter2-w0rd", b"w0rd@example.com"))


def test_a_run_whose_input_takes_too_long_to_redact_goes_on_and_keeps_none_of_it(tmp_path: Path) -> None:
    limits = {"redaction_time_limit_ms": 1}
    with running_server(data=tmp_path, **SETTINGS, **limits) as server, http_for(server, server.key) as http:
        server.push("slug: copy\nsteps:\n- {id: copy, type: passthrough}\n")
        given = {"text": "+49 170 1234567, password: hunter2\n" * 10_000}
        answer = http.post("/seq/acme/demo/copy/execute", json={"parameters": given})
        assert answer.status_code == 200
        told = http.get(f"/flow-runs/{answer.json()['executionId']}/trace").json()["flowRun"]["input"]
        assert "could not be redacted" in told["inputs"]["…"]
        expire(server)
    assert b"hunter2" not in bytes_in(tmp_path)
