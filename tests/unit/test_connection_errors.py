"""What the failure of a connection is called in a message."""

import errno
import socket

import pytest

from runglass.support.logs import plain_cause

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 5432)")
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (REFUSED, "nobody listens there (connection refused)"),
        (UNKNOWN, "the name of the host is not known (Name or service not known)"),
        (TimeoutError(), "there was no answer in time"),
        (OSError("no route\nHINT: none"), "no route"),
        (OSError(), "OSError"),
    ],
    ids=["refused", "unknown", "silent", "hint", "nothing"],
)
def test_the_cause_is_a_plain_sentence(error: Exception, told: str) -> None:
    assert plain_cause(error) == told
