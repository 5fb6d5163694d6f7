"""Failures in a row are told once, and so is their end."""

import logging
import socket

import pytest

from runglass.errors import StoreError
from runglass.support.logs import FailureLog, OneASecond, plain_cause

log = logging.getLogger("runglass.test")


def test_a_row_of_failures_is_told_at_its_begin_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(log, "looking failed")
    with caplog.at_level(logging.INFO, logger="runglass"):
        failures.worked()
        for reason in ("away", "still away", "starting"):
            failures.failed(StoreError(reason))
        failures.worked()
        failures.worked()
        failures.failed(StoreError("away again"))
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("WARNING", "looking failed, and is retried: away"),
        ("INFO", "looking failed for a while, and works again (failures: 3)"),
        ("WARNING", "looking failed, and is retried: away again"),
    ]


def test_an_error_of_a_kind_is_told_once_a_second() -> None:
    only, told = OneASecond(), list[str]()

    def fail(at: float, number: int, *, line: int = 1, level: int = logging.ERROR) -> None:
        record = logging.LogRecord("runglass.x", level, "x.py", line, "run %d failed", (number,), None)
        record.created = at
        if only.filter(record):
            told.append(record.getMessage())

    for number in range(3):
        fail(10 + number / 4, number)
        fail(10, number, level=logging.WARNING)
    fail(10.5, 7, line=2)
    fail(11, 3)
    fail(12.5, 4)
    errors = ["run 0 failed", "run 7 failed", "run 3 failed (left out since: 2 alike)", "run 4 failed"]
    assert [line for line in told if line in errors and line != "run 0 failed"] == errors[1:]
    assert told.count("run 0 failed") == 2
    assert len(told) == len(errors) + 3


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "x"), "nobody listens there (connection refused)"),
        (socket.gaierror(-2, "Unknown name"), "the name of the host is not known (Unknown name)"),
        (TimeoutError(), "there was no answer in time"),
        (OSError("no route\nHINT: none"), "no route"),
    ],
)
def test_the_cause_of_a_lost_connection_is_a_plain_sentence(error: Exception, told: str) -> None:
    assert plain_cause(error) == told
