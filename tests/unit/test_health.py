"""What a server says of itself: its health, what it counts, and rows of failures in its log."""

import asyncio
import logging
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from runglass.config.settings import Settings
from runglass.errors import StoreError
from runglass.log.events import StepModelCall
from runglass.log.measurements import MOST_NAMES, OTHER, Measurements
from runglass.log.trace import ModelCall
from runglass.runtime.composition import open_runtime
from runglass.runtime.health import HealthCheck
from runglass.runtime.metrics.collector import MOST_PROJECTS, bounded
from runglass.support.logs import FailureLog, OneASecond, plain_cause


async def test_a_disk_that_is_nearly_full_and_a_bus_that_is_away_degrade_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=99_000_000))
    async with open_runtime(Settings(data=tmp_path)) as runtime:
        runtime.bus.fault = "no wake-ups come"
        health = await HealthCheck(runtime, wait_s=60.0).report()
    assert (health.status, health.reasons) == ("degraded", ["the disk has 99 MB left", "no wake-ups come"])


def model_call(provider: str | None) -> StepModelCall:
    call = ModelCall(number=1, model="m", provider=provider)
    return StepModelCall(execution_id="r", step_id="s", attempt=1, model_call=call)


def test_providers_that_callers_make_up_are_counted_together() -> None:
    found = Measurements()
    for number in range(MOST_NAMES + 100):
        found.note([model_call(f"made-up-{number}")])
    found.note([model_call("x" * 1000)])
    found.note([model_call(None)])
    assert len(found.model_calls) == MOST_NAMES + 1
    assert found.model_calls[OTHER, "ok"] == 102


def test_projects_beyond_the_busiest_are_counted_together() -> None:
    runs = {(f"acme/p{number}", "running"): number + 1 for number in range(MOST_PROJECTS + 5)}
    runs["acme/p0", "paused"] = 1000
    counted = bounded(runs)
    assert len({project for project, _ in counted}) == MOST_PROJECTS + 1
    assert sum(counted.values()) == sum(runs.values())
    assert counted["acme/p0", "paused"] == 1000
    assert counted[OTHER, "running"] == 2 + 3 + 4 + 5 + 6


log = logging.getLogger("runglass.test")


def test_a_row_of_failures_is_told_at_its_begin_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """What is no failure of the store goes on, and is no end of the row."""
    failures = FailureLog(log, "looking failed")
    with caplog.at_level(logging.INFO, logger="runglass"):
        for failure in (None, "away", "still away", "starting", None, None, "away again"):
            with failures:
                if failure is not None:
                    raise StoreError(failure)
        for other in (asyncio.CancelledError, ValueError):
            with pytest.raises(other), failures:
                raise other
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("WARNING", "looking failed, and is retried: away"),
        ("INFO", "looking failed for a while, and works again (failures: 3)"),
        ("WARNING", "looking failed, and is retried: away again"),
    ]


def test_an_error_of_a_kind_is_told_once_a_second() -> None:
    only, told = OneASecond(), list[str]()

    def say(at: float, number: int, *, line: int = 1, level: int = logging.ERROR) -> None:
        record = logging.LogRecord("runglass.x", level, "x.py", line, "run %d failed", (number,), None)
        record.created = at
        if only.filter(record):
            told.append(record.getMessage())

    for number in range(3):
        say(10 + number / 4, number)
        say(10, 10 + number, level=logging.WARNING)
    say(10.5, 7, line=2)
    say(11, 3)
    say(12.5, 4)
    warnings = [f"run {number} failed" for number in (10, 11, 12)]
    errors = ["run 7 failed", "run 3 failed (left out since: 2 alike)", "run 4 failed"]
    assert told == ["run 0 failed", *warnings, *errors]


def certificate_fault(number: int) -> ssl.SSLCertVerificationError:
    """By the number that OpenSSL has for it."""
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = number, "of OpenSSL"
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "x"), "nobody listens there (connection refused)"),
        (socket.gaierror(-2, "Unknown name"), "the name of the host is not known (Unknown name)"),
        (TimeoutError(), "there was no answer in time"),
        (OSError("no route\nHINT: none"), "no route"),
        (certificate_fault(9), "its certificate is not valid yet"),
        (certificate_fault(10), "its certificate has expired"),
    ],
)
def test_the_cause_of_a_lost_connection_is_a_plain_sentence(error: Exception, told: str) -> None:
    assert plain_cause(error) == told
