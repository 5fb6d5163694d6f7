"""How many connections the file descriptors of this process allow.

A server without a free descriptor can accept no connection, open no file of its store and call no model.
"""

import logging
import resource
from typing import NamedTuple

from runglass.config.settings import Settings

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 20_000
"""The default limit goes no higher, however many descriptors there are: each connection also costs memory."""

MOST_DESCRIPTORS = 1 << 20
"""The most descriptors that are asked for. Some systems know no limit, and refuse an infinite one."""

RESERVE = 16
"""Connections beyond the limits, of `/health` and of requests that are still being read."""


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
    possible = max(1, descriptors - _kept_back(descriptors) - RESERVE)
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


def _kept_back(descriptors: int) -> int:
    """The descriptors for the store, the workers and the calls of models."""
    return min(max(descriptors // 4, 64), 2048)
