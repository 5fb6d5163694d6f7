"""LLM text on its way into the log: joined, so that one attempt makes at most one event per 50 ms."""

import asyncio
from typing import Self

import msgspec

from runglass.clock import Clock
from runglass.engine.capture import Capture
from runglass.engine.recorder import Recorder
from runglass.events import StepOutput
from runglass.lazy import encoded

INTERVAL_S = 0.05


class OutputStream:
    """Takes text while an attempt runs. Leaving the block records what is left.

    Text is recorded in mode `full` alone: a secret cut in two by the stream could not be redacted.
    """

    def __init__(
        self,
        recorder: Recorder,
        capture: Capture,
        clock: Clock,
        *,
        execution_id: str,
        step_id: str,
        attempt: int,
        loop_path: tuple[int, ...] | None,
    ) -> None:
        self._recorder = recorder
        self._kept = capture.mode == "full"
        self._limit = capture.limit_bytes
        self._length = 0
        self._clock = clock
        self._execution_id = execution_id
        self._step_id = step_id
        self._attempt = attempt
        self._loop_path = loop_path
        self._parts: list[str] = []
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.wait({self._pump})
        finally:
            self._record()

    def write(self, text: str) -> None:
        """Adds a piece of text; it reaches the log within 50 ms."""
        if not self._kept or not text or self._length >= self._limit:
            return
        # A stream longer than a snapshot may be is cut like one; the whole text is the output's business.
        text = text[: self._limit - self._length]
        self._length += len(text)
        self._parts.append(text)
        if self._pump is None:
            self._record()
            self._pump = asyncio.create_task(self._record_in_time())

    async def _record_in_time(self) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            self._record()

    def _record(self) -> None:
        if not self._parts:
            return
        text = "".join(self._parts)
        self._parts.clear()
        self._recorder.record(
            StepOutput(
                execution_id=self._execution_id,
                step_id=self._step_id,
                attempt=self._attempt,
                loop_index=self._loop_path[-1] if self._loop_path else None,
                loop_path=self._loop_path,
                output_data=encoded(msgspec.json.encode({"text": text})),
            )
        )
