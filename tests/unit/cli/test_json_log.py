"""The log as JSON."""

import json
import logging
import sys
from typing import Any

import pytest

from runglass.cli.terminal.output import JsonLog
from runglass.support import logs
from runglass.testing import running_server
from tests.contract.wire import http_for
from tests.faulty_store import FaultyStore

FAILS = """
slug: fails
steps: [{id: bad, type: code, code: 'raise ValueError("a secret sk-1234567890abcdef")'}]
"""


def line(message: str, *arguments: object, failure: bool = False) -> dict[str, Any]:
    about = sys.exc_info() if failure else None
    record = logging.LogRecord("runglass.x", logging.WARNING, "x.py", 1, message, arguments, about)
    text = JsonLog().format(record)
    assert text.isascii()
    assert "\n" not in text
    told: dict[str, Any] = json.loads(text)
    return told


def test_a_failure_and_hostile_text_stay_on_one_line() -> None:
    try:
        raise ValueError("first\n2026 ERROR forged \x1b[31m\ud800")
    except ValueError:
        told = line('quote " and\nline \u202e', failure=True)
    assert told["message"] == 'quote " and\nline \u202e'
    assert "ValueError: first\n2026 ERROR forged" in told["failure"]


def test_a_line_about_a_run_names_it_and_its_project(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = "0198c0de-0000-7000-8000-0000000000aa"
    monkeypatch.setitem(logs.project_names, 7, "acme/shop")
    for message in (
        f"run {run_id} is lost",
        f"what is stored of run '{run_id}' is damaged",
        f"GET /jobs/{run_id}",
    ):
        assert line(message)["runId"] == run_id
        assert "project" not in line(message)
    record = logging.makeLogRecord({"msg": f"run {run_id} is lost", "project_id": 7})
    assert json.loads(JsonLog().format(record))["project"] == "acme/shop"


def test_what_a_server_logs_names_the_request_and_the_run_and_has_no_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonLog().format(record)))

    log, handler = logging.getLogger("runglass"), Kept()
    log.addHandler(handler)
    try:
        with running_server() as server:
            server.push(FAILS)
            with http_for(server, server.key) as http:
                headers = {"X-Request-Id": "mine-1"}
                http.post("/seq/acme/demo/fails/execute", json={"parameters": {}}, headers=headers)
                FaultyStore(server.runtime.store).fail("runs", ZeroDivisionError("a fault of the server"))
                answer = http.get("/flow-runs", headers=headers)
                assert answer.status_code == 500
                assert answer.headers["x-request-id"] == "mine-1"
                insane = http.get("/flow-runs/x", headers={"X-Request-Id": "a b\tc"})
                assert insane.headers["x-request-id"] != "a b\tc"
    finally:
        log.removeHandler(handler)
    (failed,) = [each for each in lines if "a fault of the server" in each.get("failure", "")]
    assert failed["requestId"] == "mine-1"
    assert failed["project"] == "acme/demo"
    assert "sk-1234567890abcdef" not in json.dumps(lines)
