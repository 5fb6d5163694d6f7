"""LLM text on its way into the log: joined, so that one attempt makes at most one event per 50 ms."""

import asyncio
from typing import Self

from runglass.engine.steps.attempt_context import AttemptContext
from runglass.engine.steps.attempt_recorder import AttemptRecorder

INTERVAL_S = 0.05


class TextBatcher:
    """Takes text while an attempt runs. Leaving the block records what is left.

    Text is recorded in mode `full` alone: a secret cut in two by the stream could not be redacted.
    """

    def __init__(self, attempt: AttemptRecorder, writing: AttemptContext) -> None:
        self._attempt = attempt
        self._clock = writing.clock
        self._is_recorded = writing.capture.mode == "full"
        self._room = writing.capture.limit_bytes
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
        """Adds a piece of text; it reaches the log within 50 ms.

        A stream longer than a snapshot may be is cut like one; the whole text is the output's business.
        """
        if not self._is_recorded or not text or not self._room:
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
            self._attempt.record_text(text)
