"""A connection as `ConnectionLimiter` sees it, the connections that share a limit, and what limit they have.

There are as many as the file descriptors of this process allow: a server without a free one can accept no
connection, open no file of its store and call no model.
"""

import logging
import resource
from collections import OrderedDict
from typing import NamedTuple, Protocol

from runglass.config.settings import Settings

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 20_000
"""The default limit goes no higher, however many descriptors there are: each connection also costs memory."""

MOST_DESCRIPTORS = 1 << 20
"""The most descriptors that are asked for. Some systems know no limit, and refuse an infinite one."""

RESERVE = 16
"""Connections beyond the limits, of `/health` and of requests that are still being read."""


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


class ConnectionLimits(NamedTuple):
    """The most connections with a request under way: in all, and of one address."""

    in_all: int
    per_address: int


def raise_descriptor_limit() -> None:
    """Lets the process open as many files as the system allows it; by default that is a fraction."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:
        log.warning("the limit of %d file descriptors cannot be raised to %d: %s", soft, wanted, error)


def connection_limits(settings: Settings) -> ConnectionLimits:
    """The limits in force: those of the settings, as far as the file descriptors of this process allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    # For the store, the workers and the calls of models.
    kept_back = min(max(descriptors // 4, 64), 2048)
    possible = max(1, descriptors - kept_back - RESERVE)
    in_all = settings.max_connections or min(possible, MOST_CONNECTIONS)
    if in_all > possible:
        log.warning(
            "max_connections is %d, but the limit of %d file descriptors allows %d; raise it (ulimit -n)",
            in_all,
            descriptors,
            possible,
        )
        in_all = possible
    # One address gets nine tenths, so that others always find a place.
    per_address = settings.max_connections_per_address or max(1, in_all * 9 // 10)
    return ConnectionLimits(in_all, min(per_address, in_all))
