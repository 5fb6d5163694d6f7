"""What carries wake-ups between processes, and how a subject is named between them.

A carrier has one connection after the other, each until it is lost; it neither reconnects nor joins nor
waits: `process_bus.py` does that for all kinds.

A subject travels as 12 characters of its hash: of the same length whatever it is, of letters that need no
quoting anywhere, and saying nothing about what it names. Two subjects with one hash wake each other's
listeners, which costs them a look.
"""

from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from hashlib import blake2b
from typing import Protocol, TypeAlias

from runglass.errors import RunglassError

Send: TypeAlias = Callable[[str], Awaitable[None]]
Hear: TypeAlias = Callable[[str], None]

CONNECT_S = 5.0
"""How long connecting may take."""
SEND_S = 5.0
"""How long sending one text may take."""

CLOSE_S = 0.5
"""How long a connection may take to say goodbye."""

KEY_LENGTH = 12
MOST_BYTES = 7_999
"""PostgreSQL takes no longer payload of a NOTIFY."""
MOST_KEYS = MOST_BYTES // KEY_LENGTH - 1
"""Keys beside that of the sender."""
ALL = "*"
"""In place of more keys than one text has room for: all listeners look."""


class BusAway(RunglassError):
    """A carrier could not connect, or its connection was lost. The message has no secrets."""


class Carrier(Protocol):
    """Carries short texts to every process that is connected to the same bus, this one among them."""

    @property
    def name(self) -> str:
        """The address without user and password, for messages."""

    def connect(self, *, hear: Hear, lost: Hear) -> AbstractAsyncContextManager[Send]:
        """A connection until the block ends; gives what sends a text to all.

        `hear` is called with each text that comes, and `lost`, with the reason, once nothing can come any
        more. Raises BusAway, as sending does.
        """


def key_of(subject: str) -> str:
    """What stands for the subject between processes."""
    digest = blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return urlsafe_b64encode(digest).decode("ascii")
