"""Failures of a store as the log of a process tells them: a row of them is told once, and so is its end."""

import logging

from runglass.errors import StoreError


class FailureLog:
    """Of something that is done again and again: `what` says that it could not be done."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._failures = 0

    def failed(self, error: StoreError) -> None:
        """Tells of the failure, if the time before was none."""
        if not self._failures:
            self._log.warning("%s, and is tried again and again: %s", self._what, error)
        self._failures += 1

    def worked(self) -> None:
        """Tells how often it had failed before, if it had."""
        if self._failures:
            self._log.info("%s for a while, and works again (failures: %d)", self._what, self._failures)
        self._failures = 0
