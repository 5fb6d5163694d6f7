"""What carries wake-ups between processes: one connection after the other, each until it is lost.

A carrier neither reconnects nor joins nor waits; `process_bus.py` does that for all kinds.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
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
