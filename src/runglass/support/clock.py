"""The clocks that an engine may be given: that of its machine, one that processes share, or one of a test."""

import math
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The time of day, aware, in UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, for durations."""

    async def sleep(self, seconds: float, /) -> None: ...


class SystemClock:
    """The clock of this machine."""

    now = staticmethod(partial(datetime.now, UTC))
    monotonic_s = staticmethod(time.monotonic)

    @staticmethod
    async def sleep(seconds: float, /) -> None:
        # A blocking client tells times, and never loads it.
        import asyncio

        await asyncio.sleep(seconds)


class SharedClock:
    """The time of day by a clock elsewhere, that of a database for all of its processes.

    It is told that time now and then, and counts on from there by the monotonic clock: what time it is on
    this machine does not matter, nor whether that jumps. It is wrong by half of the round trip in which it
    was told the time at most, and by `DRIFT` of the time since. Until it is told, it goes by `own`.
    """

    DRIFT = 0.001
    """Most by which monotonic clocks of two machines diverge, in seconds a second: NTP slews each by half."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._ahead_s = own.now().timestamp() - own.monotonic_s()
        self._error_s = math.inf
        self._told_s = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._own.monotonic_s() + self._ahead_s, UTC)

    def monotonic_s(self) -> float:
        return self._own.monotonic_s()

    async def sleep(self, seconds: float) -> None:
        await self._own.sleep(seconds)

    def tell(self, moment: datetime, *, asked_s: float) -> None:
        """Tells it the time, just received, that was asked for at `asked_s` of the monotonic clock.

        An answer that took long says less than is known, and is passed over; unless it shows that the clock
        elsewhere was set, or is another one now.
        """
        now_s = self._own.monotonic_s()
        error_s = (now_s - asked_s) / 2
        ahead_s = moment.timestamp() - (now_s - error_s)
        known_s = self._error_s + (now_s - self._told_s) * self.DRIFT
        if error_s <= known_s or abs(ahead_s - self._ahead_s) > error_s + known_s:
            self._ahead_s, self._error_s, self._told_s = ahead_s, error_s, now_s


_FRACTIONS = tuple(f".{rest_ms:03d}Z" for rest_ms in range(1000))
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, since 1970."""


def iso_ms(since_epoch_ms: int) -> str:
    """The milliseconds since 1970 as `iso` has them, which has no time after `LAST_MS`."""
    second, rest_ms = divmod(since_epoch_ms if since_epoch_ms < LAST_MS else LAST_MS, 1000)
    return _iso_second(second) + _FRACTIONS[rest_ms]


@lru_cache(1024)
def _iso_second(since_epoch_s: int) -> str:
    # Each span has some times, and there are many in one second.
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=since_epoch_s)).isoformat()[:19]


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`, as all times on the wire."""
    # Not strftime, which takes several times as long: each event has a time.
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
