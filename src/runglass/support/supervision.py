"""Work beside the runs that is begun again however it ends, and the signal that ends it all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM

from runglass.support.clock import Clock

log = logging.getLogger(__name__)

_FIRST_S = 1.0
_MOST_S = 30.0


class SupervisedTask:
    """`work`, which should not end, under a `name` for people; without `vital` work no runs can go on.

    Where it fails it is `failing` until it has been at it again for `settled_s` seconds.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[None]], *, clock: Clock, vital: bool, settled_s: float
    ) -> None:
        self.name = name
        self.vital = vital
        self._work = work
        self._clock = clock
        self._settled_s = settled_s
        self._failures = 0
        self._began_s: float | None = None

    @property
    def failing(self) -> bool:
        """Whether it has failed, and has not been at it again for long enough."""
        return self._failures > 0 and not self._settled()

    async def run_forever(self) -> None:
        """Does the work until this is cancelled."""
        while True:
            self._began_s = self._clock.monotonic_s()
            try:
                await self._work()
                log.error("%s ended by itself and is restarted", self.name)
            except Exception:
                log.exception("%s failed and is restarted", self.name)
            if self._settled():
                self._failures = 0
            self._failures += 1
            self._began_s = None
            await self._clock.sleep(min(_MOST_S, _FIRST_S * 2.0 ** min(self._failures - 1, 8)))

    def _settled(self) -> bool:
        return self._began_s is not None and self._clock.monotonic_s() - self._began_s >= self._settled_s


@contextmanager
def stop_signal() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; after the block, a further one ends the process.

    In the main thread, which gets the signals.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signal in (SIGINT, SIGTERM):
        loop.add_signal_handler(signal, stop.set)
    try:
        yield stop
    finally:
        for signal in (SIGINT, SIGTERM):
            loop.remove_signal_handler(signal)
