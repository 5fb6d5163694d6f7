"""Stand-ins that tests give to the engine."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

from runglass.engine.models.model_types import ModelRequest, RequestObserver
from runglass.engine.models.request_parser import as_given

CRASH_RETRIES = 3
LEASE_S = 10.0
"""The limit of takeovers and the lease of engines in tests."""


async def send(request: ModelRequest, observer: RequestObserver | None) -> None:
    """Tells the observer that the request goes out, as models do."""
    if observer is not None:
        await observer.sent(partial(as_given, request), 0)


class VirtualClock:
    """A clock on which a sleep takes no time but moves the time on."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self._elapsed_s += seconds
        await asyncio.sleep(0)

    def set_back(self, seconds: float) -> None:
        self._elapsed_s -= seconds
