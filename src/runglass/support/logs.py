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


_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_SIGNERS = frozenset({18, 19, 20, 21})
"""OpenSSL's numbers for a certificate, or one above it, that no CA at hand has signed."""
_OTHER_NAMES = frozenset({62, 64})
"""And for one of another host, or of another address."""


def plain_cause(error: Exception) -> str:
    """Why there is no connection. Drivers add hints in lines of their own, which are left out."""
    match error:
        case ssl.SSLCertVerificationError():
            return _of_certificate(error)
        case ssl.SSLError():
            return f"TLS does not come about ({error.reason or error})"
        case TimeoutError() if not str(error):
            return "there was no answer in time"
        case ConnectionRefusedError():
            return "nobody listens there (connection refused)"
        case socket.gaierror():
            return f"the name of the host is not known ({error.strerror})"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    number = error.verify_code
    if number == _EXPIRED:
        return "its certificate has expired"
    if number == _NOT_YET_VALID:
        return "its certificate is not valid yet"
    if number in _UNKNOWN_SIGNERS:
        return f"its certificate is signed by none of the CAs that are trusted here ({error.verify_message})"
    if number in _OTHER_NAMES:
        return f"its certificate is for another host ({error.verify_message.rstrip('.')})"
    return f"its certificate is refused ({error.verify_message})"
