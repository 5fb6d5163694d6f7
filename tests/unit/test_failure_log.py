"""Failures in a row are told once, and so is their end."""

import logging

import pytest

from runglass.errors import StoreError
from runglass.support.logs import FailureLog

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
        ("WARNING", "looking failed, and is tried again and again: away"),
        ("INFO", "looking failed for a while, and works again (failures: 3)"),
        ("WARNING", "looking failed, and is tried again and again: away again"),
    ]
