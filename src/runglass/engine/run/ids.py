"""Ids of new runs: UUIDv7, which begin with a time, so that the order of runs is that of their ids.

The time is that of the store: lists have the runs of all processes in one order, and "since" means the same
to each of them.
"""

import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

from runglass.support.clock import Clock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class RunIds:
    """The ids that one process gives, by its `clock`: each is higher than the one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> str:
        """A new id, with the time that it is now, or that of the last one where the clock was set back."""
        number = (self._clock.now() - _EPOCH) // _MS << 74 | secrets.randbits(74)
        if number <= self._last:
            number = self._last + 1 + secrets.randbits(32)
        self._last = number
        ms, high, low = number >> 74, number >> 62 & 0xFFF, number & (1 << 62) - 1
        return str(UUID(int=ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low))
