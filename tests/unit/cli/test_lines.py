"""What the terminal and the log show of data that they cannot trust, and of events that they do not know."""

import io
import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import msgspec
import pytest

from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.output import (
    JsonLog,
    clean,
    complain,
    log_to_stderr,
    note,
    one_line,
    stdout,
    warn,
    write_json,
    write_line,
)
from runglass.cli.terminal.table import Column, Row, table_lines
from runglass.log.events import KnownEvent, UnknownEvent, decode_event
from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall, ModelReservation
from runglass.support import logs
from tests.contract.wire import BROKEN, ran
from tests.faulty_store import FaultyStore
from tests.servers import served

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\r\nsecond line\u009b\u202egnp.exe\u2066\u200b\u2028third\u061c\U000e0041\ud800"
)
DANGEROUS = set("\x1b\x07\r\u009b\u202e\u2066\u200b\u2028\u061c\U000e0041\ud800\ufeff\u200f")


ENDED = {"error": {"code": HOSTILE}, "status": "error", "endTimeUnixNano": "1"}
VALUES: dict[object, object] = {
    str: HOSTILE,
    int: 3,
    list[str]: [HOSTILE],
    ModelCall: {"number": 1, **dict.fromkeys(("model", "modelUsed", "finishReason", "requestId"), HOSTILE)},
    ModelReservation: {"number": 1, "model": HOSTILE, "usd": HOSTILE},
    SpanState: {"spanId": "aa", "name": HOSTILE, **ENDED},
}
"""What is in a field of each type; in any other is an empty list, or an error."""


def _event(kind: type[msgspec.Struct]) -> bytes:
    """An event of the type in which every text is hostile."""
    values: dict[str, object] = {"executionId": "run", "seq": 1, "at": "2026-01-01T00:00:00.000Z"}
    for field in msgspec.structs.fields(kind):
        if field.required and field.encode_name not in values:
            error = {"code": HOSTILE, "message": HOSTILE, "text": HOSTILE}
            other = [] if "list" in str(field.type) else error
            values[field.encode_name] = VALUES.get(field.type, other)
    text = json.dumps({"eventType": kind.__struct_config__.tag, **values}, ensure_ascii=False)
    return text.encode(errors="replace")


@pytest.mark.parametrize("kind", get_args(KnownEvent), ids=lambda kind: kind.__struct_config__.tag)
def test_every_event_is_one_line_that_cannot_take_over_the_terminal(
    kind: type[msgspec.Struct], capsys: pytest.CaptureFixture[str]
) -> None:
    event = decode_event(_event(kind))
    assert isinstance(event, kind)
    write_line(stdout(), EventLines().line(event))
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert not DANGEROUS & set(shown)


@pytest.mark.parametrize("say", [note, warn, complain, partial(write_line, stdout())])
def test_nothing_that_is_said_takes_over_the_terminal(
    say: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    say(HOSTILE)
    shown = "".join(capsys.readouterr())
    assert "second line" in shown
    assert not DANGEROUS & set(shown)
    assert "\ufffd" in shown


def test_what_people_write_with_joiners_stays() -> None:
    family, persian = (
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
        "\u0645\u06cc\u200c\u062e\u0648",
    )
    assert clean(f"{family} {persian} é\t\n") == f"{family} {persian} é\t\n"


@pytest.mark.parametrize("indent", [0, 2])
def test_json_on_a_terminal_escapes_what_is_not_seen(monkeypatch: pytest.MonkeyPatch, indent: int) -> None:
    value = {"name\u202e": "é\x1b[2J\u009b\x7f\u2066\u200d\U000e0041"}

    def written(*, is_terminal: bool) -> str:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="utf-8")
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        write_json(value, indent=indent)
        return raw.getvalue().decode()

    seen = written(is_terminal=True)
    assert not {"\x1b", "\x7f", "\u009b", "\u202e", "\u2066", "\U000e0041"} & set(seen)
    assert "\\u202e" in seen
    assert "é" in seen
    piped = written(is_terminal=False)
    assert "\u202e" in piped
    assert json.loads(seen) == json.loads(piped) == value


def test_what_is_logged_takes_over_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, log = logging.getLogger(), logging.getLogger("runglass.test")
    monkeypatch.setattr(root, "handlers", [])
    log_to_stderr("info")
    # What cannot be encoded would not be written at all if it were not made clean, and would hide the rest.
    for text in (HOSTILE, HOSTILE.replace("\ud800", "")):
        log.warning("%s", text)
    log.warning("%s", "no path a\n2026-01-01 ERROR forged")
    shown = capsys.readouterr().err
    assert shown.count("owned") == 2
    assert not DANGEROUS & set(shown)
    # A further line of a message does not begin where those of the log do.
    assert "\n    2026-01-01 ERROR forged" in shown


def test_an_event_of_a_type_that_is_not_known_is_shown_as_it_is() -> None:
    event = decode_event(b'{"eventType":"step_dreamt","executionId":"run","seq":9,"at":"","about":"sheep"}')
    assert isinstance(event, UnknownEvent)
    line = EventLines().line(event).plain
    assert "step_dreamt" in line
    assert "sheep" in line


def test_text_of_flows_is_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    write_line(stdout(), "[red]not red[/red] :smile:")
    assert capsys.readouterr().out == "[red]not red[/red] :smile:\n"
    assert one_line("a\n\tb\x1bc" + "x" * 50, limit=10) == "a b\ufffdcxxxx…"


def test_a_cell_of_a_table_is_one_line() -> None:
    long = "x" * 300
    lines = [line.plain for line in table_lines((Column("name"),), [Row.of("a\nb\u2028c"), Row.of(long)])]
    assert lines == ["name", "a b\ufffdc", long]


def logged(message: str, *, failure: bool = False) -> dict[str, Any]:
    about = sys.exc_info() if failure else None
    record = logging.LogRecord("runglass.x", logging.WARNING, "x.py", 1, message, (), about)
    text = JsonLog().format(record)
    assert text.isascii()
    assert "\n" not in text
    told: dict[str, Any] = json.loads(text)
    return told


def test_a_failure_and_hostile_text_stay_on_one_line() -> None:
    try:
        raise ValueError("first\n2026 ERROR forged \x1b[31m\ud800")
    except ValueError:
        told = logged('quote " and\nline \u202e', failure=True)
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
        assert logged(message)["runId"] == run_id
        assert "project" not in logged(message)
    record = logging.makeLogRecord({"msg": f"run {run_id} is lost", "project_id": 7})
    assert json.loads(JsonLog().format(record))["project"] == "acme/shop"


def test_what_a_server_logs_names_the_request_and_the_run_and_has_no_content(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caplog.handler, "formatter", JsonLog())
    headers = {"X-Request-Id": "mine-1"}
    with served(BROKEN.replace("it broke", "a secret sk-1234567890abcdef")) as (server, http):
        ran(http, "broken", headers=headers)
        FaultyStore(server.runtime.store).fail("runs", ZeroDivisionError("a fault of the server"))
        assert http.get("/flow-runs", headers=headers).status_code == 500
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (failed,) = [each for each in lines if "a fault of the server" in each.get("failure", "")]
    assert failed["requestId"] == "mine-1"
    assert failed["project"] == "acme/demo"
    assert "sk-1234567890abcdef" not in json.dumps(lines)
