"""What a run keeps beyond its capture mode: `capture_failed` if it fails, or as one of `capture_sample`.

And of megabytes with secrets in them: what the rules say.
"""

from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from runglass.engine.capture.snapshots import shortened
from runglass.log.events import decode_event
from runglass.log.fold import fold
from runglass.redact import Redactor
from runglass.testing import RunningServer
from tests.contract.test_owed_answers import expire
from tests.contract.test_retention import tidy
from tests.contract.wire import ANYTHING, Frame, execute, http_for, log_of, ran, stored_run, trace_of
from tests.servers import served, server_on, server_with

FLOW = """
slug: {slug}
{fields}
steps:
  - {{id: first, type: code, code: 'return {{"said": "mail jane@example.com"}}'}}
  - {{id: last, type: code, input: {{}}, code: 'raise ValueError("no")'}}
"""
LARGE = """
slug: large
steps:
  - id: each
    type: loop
    over: "list(range(20))"
    steps: [{id: grow, type: code, input: {}, code: 'return {"text": "x" * 250_000}'}]
  - {id: small, type: code, input: {}, code: 'return {"n": 1}'}
  - {id: last, type: code, input: {}, code: 'raise ValueError("no")'}
"""

CALLS = count()
KINDS = {"as-others": "", "not": "capture_failed: off", "sampled": "capture_sample: 1"}

server = server_with(
    LARGE,
    *(FLOW.format(slug=slug, fields=fields) for slug, fields in KINDS.items()),
    capture_failed="full",
)


def failed(http: httpx2.Client, slug: str) -> str:
    # Each call is another one: the repeat of a failed call would be told the same run.
    return ran(http, slug, parameters={"call": next(CALLS)})


def first_output(http: httpx2.Client, run: str) -> Any:
    return trace_of(http, run)["steps"][0].get("outputContext")


def trace_and_log(http: httpx2.Client, run: str) -> tuple[httpx2.Response, list[Frame]]:
    """The trace of a run and its events, of which the trace is the fold."""
    trace, log = http.get(f"/flow-runs/{run}/trace"), log_of(http, run)
    folded = fold(decode_event(msgspec.json.encode(frame.data)) for frame in log)
    assert msgspec.json.encode(folded) == trace.content
    return trace, log


def set_capture(server: RunningServer, *values: Any) -> None:
    project = server.call(server.runtime.store.ensure_project("acme", "demo"))
    server.call(server.runtime.store.set_capture(project.id, *values))


def test_the_flow_comes_before_the_project_and_that_before_the_server(
    server: RunningServer, http: httpx2.Client
) -> None:
    said = {"said": "mail jane@example.com"}
    assert first_output(http, failed(http, "as-others")) == said
    assert first_output(http, failed(http, "not")) is None
    set_capture(server, None, "redacted")
    redacted = first_output(http, failed(http, "as-others"))
    assert redacted["said"].startswith("mail ")
    assert redacted != said
    set_capture(server, "off", "full")
    assert first_output(http, failed(http, "as-others")) is None
    set_capture(server, None)
    assert first_output(http, failed(http, "as-others")) == said


def test_all_outputs_together_are_bounded_and_the_newest_are_kept(http: httpx2.Client) -> None:
    trace, log = trace_and_log(http, failed(http, "large"))
    kept = [step for step in trace.json()["steps"] if "outputContext" in step]
    assert [step.get("loopIndex") for step in kept] == [*range(4, 20), None]
    event = log[-3]
    assert (event.event, len(event.data["outputs"]), event.data["leftOut"]) == ("content_kept", 17, 4)


def test_it_goes_with_other_content(store_kind: str) -> None:
    with (
        server_on(store_kind, capture_failed="full", content_retention_days=0) as short,
        http_for(short, short.key) as there,
    ):
        short.push(FLOW.format(slug="as-others", fields=""))
        run = failed(there, "as-others")
        for is_there in (True, False):
            trace, log = trace_and_log(there, run)
            assert ("jane" in trace.text) is is_there
            assert ("jane" in str([frame.data for frame in log])) is is_there
            tidy(short)


def test_a_run_of_the_sample_is_kept_whole_where_its_mode_allows_that(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = failed(http, "sampled")
    assert stored_run(server, run).capture == "full"
    assert first_output(http, run) == {"said": "mail jane@example.com"}
    assert "content_kept" not in http.get(f"/flow-runs/{run}/trace/stream").text
    assert stored_run(server, failed(http, "as-others")).capture == "metadata_only"
    for mode in ("off", "redacted"):
        set_capture(server, mode)
        assert stored_run(server, failed(http, "sampled")).capture == mode
    set_capture(server, None)


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
    with served(GROW, data=tmp_path, **SETTINGS) as (server, http):
        trace = http.get(f"/flow-runs/{ran(http, 'grow', parameters={'word': 'w0rd'})}/trace")
        assert trace.json()["flowRun"]["status"] == "failed"
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


def test_a_run_whose_input_takes_too_long_to_redact_goes_on_and_keeps_none_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A larger one has more time: the limit is for each begun megabyte."""
    limits = {"redaction_time_limit_ms": 1}
    with served(ANYTHING, data=tmp_path, **SETTINGS, **limits) as (server, http):
        given = {"text": "+49 170 1234567, password: hunter2\n" * 60_000}
        told = trace_of(http, execute(http, "anything", parameters=given))["flowRun"]["input"]
        assert "more than 3 ms to redact (setting redaction_time_limit_ms)" in told["inputs"]["…"]
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        expire(server)
    assert b"hunter2" not in bytes_in(tmp_path)
