"""What a process tells in its log: why a connection failed, a row of failures once, and whose line it is."""

import logging
import socket
import ssl
from contextvars import ContextVar

from runglass.errors import StoreError

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id that the request's answer has as X-Request-Id, where the code that writes a line need not know."""
run_id: ContextVar[str] = ContextVar("run_id", default="")
"""The run whose segment goes on in this task."""


project_names: dict[int, str] = {}
"""ORG/PROJECT of each project that this process has read, by id: a line asks no store."""


class FailureLog:
    """Of something that is done again and again: `what` says that it could not be done.

    As a context manager around one try it tells how that ended. A failure of the store goes no further.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._failures = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None:
            self.worked()
        elif isinstance(error, StoreError):
            self.failed(error)
            return True
        return False

    def failed(self, error: object) -> None:
        """Tells of the failure, if the time before was none."""
        if not self._failures:
            self._log.warning("%s, and is retried: %s", self._what, error)
        self._failures += 1

    def worked(self) -> None:
        """Tells how often it had failed before, if it had."""
        if self._failures:
            self._log.info("%s for a while, and works again (failures: %d)", self._what, self._failures)
        self._failures = 0


class OneASecond(logging.Filter):
    """Lets one error of a kind pass in a second, and says with the next one how many were left out.

    Of a kind are those of one line of code with one type of exception.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[str, int, type | None], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno < logging.ERROR:
            return True
        kind = record.pathname, record.lineno, record.exc_info[0] if record.exc_info else None
        at, left_out = self._passed.get(kind, (-1.0, 0))
        if record.created - at < 1:
            self._passed[kind] = at, left_out + 1
            return False
        self._passed[kind] = record.created, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (left out since: {left_out} alike)", ()
        return True


_CERTIFICATE_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    **dict.fromkeys((18, 19, 20, 21), "is signed by none of the CAs that are trusted here ({})"),
    **dict.fromkeys((62, 64), "is for another host ({})"),
}
"""By OpenSSL's numbers, what is wrong with a certificate, or with one above it."""


def plain_cause(error: Exception) -> str:
    """Why there is no connection. Drivers add hints in lines of their own, which are left out."""
    match error:
        case ssl.SSLCertVerificationError():
            fault = _CERTIFICATE_FAULTS.get(error.verify_code, "is refused ({})")
            return f"its certificate {fault.format(error.verify_message.rstrip('.'))}"
        case ssl.SSLError():
            return f"TLS does not come about ({error.reason or error})"
        case TimeoutError() if not str(error):
            return "there was no answer in time"
        case ConnectionRefusedError():
            return "nobody listens there (connection refused)"
        case socket.gaierror():
            return f"the name of the host is not known ({error.strerror})"
    return next(iter(str(error).splitlines()), "") or type(error).__name__
