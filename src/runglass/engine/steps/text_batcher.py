"""LLM text on its way into the log: joined, so that one attempt makes at most one event per 50 ms."""

import asyncio
from collections.abc import Callable
from typing import Self

from runglass.support.clock import Clock

INTERVAL_S = 0.05


class TextBatcher:
    """Takes text while an attempt runs, and calls `record` with it. Leaving the block records what is left.

    At most `most` characters are recorded: the whole text is the output's business.
    """

    def __init__(self, record: Callable[[str], None], clock: Clock, *, most: int) -> None:
        self._record_text = record
        self._clock = clock
        self._room = most
        self._parts: list[str] = []
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.wait({self._pump})
                # Its exception holds its frame, which holds this stream and with it the attempt.
                self._pump = None
        finally:
            self._record()

    def write(self, text: str) -> None:
        """Adds a piece of text; it reaches the log within 50 ms."""
        if not text or not self._room:
            return
        text = text[: self._room]
        self._room -= len(text)
        self._parts.append(text)
        if self._pump is None:
            self._pump = asyncio.create_task(self._record_in_time())

    async def _record_in_time(self) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            self._record()

    def _record(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts.clear()
            self._record_text(text)
