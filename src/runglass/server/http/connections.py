"""A connection as `ConnectionLimiter` sees it, and the connections that share a limit."""

from collections import OrderedDict
from typing import Protocol

NEW_COUNTS = 10
"""A connection that has had a request may be idle this many times as long as one that has not."""


class Connection(Protocol):
    """A connection, for `ConnectionLimiter`."""

    group: "AddressConnections"
    """The connections of the same address, from `ConnectionLimiter.group_of`."""
    since: float
    """When the unfinished head or body began, or the last answer ended, by the clock of the limiter."""
    body_bytes: int
    """The bytes of that body that have come."""

    def reading_is_paused(self) -> bool: ...
    def unsent_bytes(self) -> int: ...
    def taken_bytes(self) -> int: ...
    def abort(self) -> None: ...
    def end_idle(self) -> None: ...
    def end_late_head(self) -> None: ...
    def end_late_body(self) -> None: ...


class AddressConnections:
    """The connections that share one limit."""

    __slots__ = ("address", "idle", "new", "open")

    def __init__(self, address: str) -> None:
        self.address = address
        self.open = 0
        self.new: OrderedDict[Connection, float] = OrderedDict()
        """Connections without a request so far, the oldest first, with their start by the monotonic clock."""
        self.idle: OrderedDict[Connection, float] = OrderedDict()
        """Connections between two requests, each with the end of its last response."""

    @property
    def busy(self) -> int:
        return self.open - len(self.idle) - len(self.new)

    def least_needed(self, now: float) -> Connection:
        """The connection that has been without a request for longest."""
        new, idle = next(iter(self.new.items()), None), next(iter(self.idle.items()), None)
        if new is None or (idle is not None and now - idle[1] > NEW_COUNTS * (now - new[1])):
            assert idle is not None, "there is one more than may be busy"
            return idle[0]
        return new[0]
