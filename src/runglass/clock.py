"""The clock that the engine is given, so that a test can give it another one."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The time of day, aware, in UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, for durations."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def iso_ms(since_epoch_ms: int) -> str:
    """The milliseconds since 1970 as `iso` has them."""
    return iso(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since_epoch_ms))


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`, as all times on the wire."""
    # Not strftime, which takes several times as long: each event has a time.
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
