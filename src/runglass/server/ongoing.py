"""Answers that last, so that the server can end them when it stops.

A stream stays open as long as its run, and a blocking call as long as its flow; neither may hold up a
shutdown. Each says here how to end it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Ongoing:
    """The answers that are being given and take their time."""

    def __init__(self) -> None:
        self._ends: set[Callable[[], object]] = set()
        self._stopping = False
        self._none_left = asyncio.Event()
        self._none_left.set()

    @contextmanager
    def ended_by(self, end: Callable[[], object]) -> Iterator[None]:
        """Inside the block, a stopping server calls `end`; at once if it is stopping already."""
        if self._stopping:
            end()
        self._ends.add(end)
        self._none_left.clear()
        try:
            yield
        finally:
            self._ends.discard(end)
            if not self._ends:
                self._none_left.set()

    async def settle(self, seconds: float) -> None:
        """Returns when the answers that last have ended by themselves, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none_left.wait()

    def end_all(self) -> None:
        """Ends every answer that lasts, and from now on each new one."""
        self._stopping = True
        for end in list(self._ends):
            end()
