"""Where one tail stands in a log, and its wait for more. Knows nothing of the log and of other tails."""

import asyncio


class TailCursor:
    """How far a tail has come: `after` is the seq of the last event that it was given."""

    __slots__ = ("_growth", "_idle_at_s", "_timer", "after")

    def __init__(self, after: int) -> None:
        self.after = after
        self._growth: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_at_s = 0.0

    async def grown(self, idle_s: float | None) -> bool:
        """Waits for more events, or for the end of reading; False if neither has come after `idle_s`."""
        loop = asyncio.get_running_loop()
        self._growth = loop.create_future()
        if idle_s is not None:
            # One timer for many waits: a new one for each took a third of the time of a tail.
            self._idle_at_s = loop.time() + idle_s
            if self._timer is None:
                self._timer = loop.call_at(self._idle_at_s, self._look)
        try:
            return await self._growth
        finally:
            self._growth = None

    def tell(self) -> None:
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
