"""Where one tail stands in a log, and its wait for more pages. Knows nothing of other tails."""

import asyncio
from collections.abc import Callable
from functools import cached_property

from runglass.log.events import event_type_of
from runglass.wire.sse import frames


class Page(tuple[tuple[int, bytes], ...]):
    """Consecutive events, as `(seq, event as JSON)`; tails at the same seq share one page."""

    @cached_property
    def frames(self) -> bytes:
        """The page as bytes of a stream, made once for all tails that share it."""
        return frames([(seq, event_type_of(data), data) for seq, data in self])

    @cached_property
    def types(self) -> frozenset[str]:
        """The types of its events, found once for all tails that share it."""
        return frozenset(event_type_of(data) for _, data in self)


class TailCursor:
    """How far a tail has come: `after` is the seq of the last event that it was given.

    While it waits, `take` may be given a page in place of waking it; it says whether it has taken that. The
    tail is silent once it has been given nothing for `idle_s` seconds of a wait.
    """

    __slots__ = ("_growth", "_idle_at_s", "_idle_s", "_take", "_timer", "after")

    def __init__(self, after: int, *, idle_s: float | None, take: Callable[[Page], bool]) -> None:
        self.after = after
        self._idle_s = idle_s
        self._take = take
        self._growth: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_at_s = 0.0

    async def grown(self) -> bool:
        """Waits for events that are not taken, or for the end of reading; False where the tail is silent."""
        loop = asyncio.get_running_loop()
        self._growth = loop.create_future()
        if self._idle_s is not None:
            # One timer for many waits: a new one for each took a third of the time of a tail.
            self._idle_at_s = loop.time() + self._idle_s
            if self._timer is None:
                self._timer = loop.call_at(self._idle_at_s, self._look)
        try:
            return await self._growth
        finally:
            self._growth = None

    def offer(self, page: Page, last: int) -> bool:
        """Whether the tail waits for the page, whose last seq is `last`, and has taken it."""
        if self._growth is None or self._growth.done() or not self._take(page):
            return False
        self.after = last
        if self._idle_s is not None:
            self._idle_at_s = asyncio.get_running_loop().time() + self._idle_s
        return True

    def wake(self) -> None:
        """Ends the wait, if there is one: there is more, or nothing more will come."""
        if self._growth is not None and not self._growth.done():
            self._growth.set_result(True)

    def leave(self) -> None:
        """Ends the timer with the tail."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._growth is None or self._growth.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._idle_at_s:
            self._timer = loop.call_at(self._idle_at_s, self._look)
        else:
            self._growth.set_result(False)
