"""What a provider sends, bounded before any decoder of its library sees it, and handed on in turns.

The libraries hold an event, or an answer in one piece, until it is whole, and wrap or swallow what is raised
while they read: so the call keeps its failure, to be raised in place of theirs. Knows bytes, lines and time;
nothing of what the bytes mean.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from functools import cache
from typing import Any

import msgspec

from runglass.engine.models.model_types import ModelCallFailed, RequestObserver
from runglass.engine.scheduling.pacing import current_project, pace_of
from runglass.json_weight import weighs_more

PART_LIMIT_BYTES = 1 << 20
"""Of one event of a stream, and of a text, a tool call's arguments or reasoning, in characters."""
EVENT_LINES = 1000
"""Some libraries copy an event for each of its lines."""
VALUES = 10_000
"""JSON values of one event, or of an answer in one piece: the libraries take up to 20 µs to read each."""
_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
"""Of an event."""
_BETWEEN = re.compile(b"|".join(_ENDS))
SLICE_BYTES = 2048
"""So much is handed to a library at a time: about ten events, a millisecond or two of its work."""


class AnswerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The most bytes of one answer, and for how long one that has begun may pause."""

    size_bytes: int = 16 << 20
    idle_s: float = 120.0


USUAL_LIMITS = AnswerLimits()


class ProviderCall:
    """A call to `model` under way; `is_streamed` says that its answer was asked for in events.

    `is_sent` says that a request has gone out, `failure` is what ended it on this side, whatever the library
    makes of that.
    """

    def __init__(self, model: str, observer: RequestObserver | None, *, is_streamed: bool) -> None:
        self.is_streamed = is_streamed
        self.is_sent = False
        self.failure: ModelCallFailed | None = None
        self.turn = AsyncExitStack()
        """Of working on what has come, where the call has it."""
        self._model = model
        self._observer = observer

    async def sent(self, read: Callable[[], dict[str, Any]], size_bytes: int) -> None:
        """A request of the call goes out as soon as this returns, as for `RequestObserver.sent`."""
        self.is_sent = True
        if self._observer is not None:
            await self._observer.sent(read, size_bytes)

    def fail(
        self, code: str, what: str, *, may_be_charged: bool = True, may_retry: bool = False
    ) -> ModelCallFailed:
        """The failure that is the call's from now on."""
        provider = self._model.partition(":")[0]
        self.failure = ModelCallFailed(
            code,
            f"provider {provider!r} {what} (model {self._model!r})",
            may_be_charged=may_be_charged,
            may_retry=may_retry,
            details={"provider": provider, "model": self._model},
        )
        return self.failure

    def require_part(self, size: int) -> None:
        """Raises ModelCallFailed for a text, arguments or reasoning of too many characters."""
        if size > PART_LIMIT_BYTES:
            what = (
                f"sent a text, arguments of a tool call, or reasoning of over {PART_LIMIT_BYTES} characters"
            )
            raise self.fail("OUTPUT_TOO_LARGE", what)


current_call: ContextVar[ProviderCall | None] = ContextVar("current_call", default=None)
"""The call to a model that this task makes."""


def bound(call: ProviderCall, response: Any, limits: AnswerLimits, *, may_be_charged: bool) -> None:
    """Bounds a response of httpx or httpx2 whose body has not been read. Raises ModelCallFailed."""
    coding = response.headers.get("content-encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        what = f"compressed its answer ({coding[:50]!r}) though `Accept-Encoding: identity` was sent"
        raise call.fail("PROVIDER_UNAVAILABLE", what, may_be_charged=may_be_charged)
    # Each of the two libraries takes its own kind alone.
    kind = next(kind for kind in type(response.stream).__mro__ if kind.__name__ == "AsyncByteStream")
    in_events = call.is_streamed and response.status_code < 300
    response.stream = _stream_of(kind)(
        response.stream, call, limits, in_events=in_events, may_be_charged=may_be_charged
    )


@cache
def _stream_of(kind: type) -> Callable[..., Any]:
    return type("BoundedStream", (_BoundedStream, kind), {})


class _BoundedStream:
    """The bytes of `stream` in slices. Nothing is read from the socket while the last ones are worked on."""

    def __init__(
        self,
        stream: Any,
        call: ProviderCall,
        limits: AnswerLimits,
        *,
        in_events: bool,
        may_be_charged: bool,
    ) -> None:
        self._stream = stream
        self._call = call
        self._limits = limits
        self._in_events = in_events
        self._may_be_charged = may_be_charged
        self._size = self._lines = 0
        self._held = bytearray()
        """What has come of an event, or of an answer in one piece, that is not whole yet."""

    async def aclose(self) -> None:
        await self._call.turn.aclose()
        await self._stream.aclose()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        chunks = aiter(self._stream)
        try:
            is_over = False
            while not is_over:
                data = await self._next(chunks)
                is_over = data is None
                whole = self._whole(data)
                for start in range(0, len(whole), SLICE_BYTES):
                    async with self._call.turn as turn:
                        await turn.enter_async_context(pace_of("answers").piece(current_project.get()))
                        yield whole[start : start + SLICE_BYTES]
        except ModelCallFailed:
            # Not every library closes what it fails to read.
            await self._stream.aclose()
            raise

    async def _next(self, chunks: Any) -> bytes | None:
        limit = asyncio.timeout(self._limits.idle_s)
        try:
            async with limit:
                data: bytes | None = await anext(chunks, None)
        except TimeoutError as error:
            if not limit.expired():
                raise
            what = f"sent nothing for {self._limits.idle_s:g} s in the midst of its answer"
            raise self._failed("PROVIDER_UNAVAILABLE", what, "answer_idle_limit_s", may_retry=True) from error
        return data

    def _whole(self, data: bytes | None) -> bytes:
        """What is whole when `data` has come, None for the end; it may be read without a look at its size."""
        before = len(self._held)
        self._held += data or b""
        self._size += len(self._held) - before
        if self._size > self._limits.size_bytes:
            what = f"sent an answer of over {self._limits.size_bytes} bytes"
            raise self._failed("OUTPUT_TOO_LARGE", what, "answer_limit_bytes")
        end = 0 if data is not None else len(self._held)
        if self._in_events and data is not None:
            # The end of an event may have come in two.
            since = max(0, before - 2)
            found = [at + len(mark) for mark in _ENDS if (at := self._held.rfind(mark, since)) >= 0]
            end = max(found, default=0)
            if end:
                self._lines, before = 0, end
            self._lines += self._held.count(b"\n", before) + self._held.count(b"\r", before)
            if len(self._held) - end > PART_LIMIT_BYTES or self._lines > EVENT_LINES:
                what = f"sent an event of over {PART_LIMIT_BYTES} bytes or {EVENT_LINES} lines"
                raise self._failed("OUTPUT_TOO_LARGE", what)
        whole = bytes(self._held[:end])
        del self._held[:end]
        # What is no longer than this cannot have so many.
        parts = _BETWEEN.split(whole) if self._in_events else [whole]
        if any(len(part) > 2 * VALUES and weighs_more(part, VALUES) for part in parts):
            what = f"sent over {VALUES} JSON values at once"
            raise self._failed("OUTPUT_TOO_LARGE", what)
        return whole

    def _failed(
        self, code: str, what: str, setting: str | None = None, *, may_retry: bool = False
    ) -> ModelCallFailed:
        if setting is not None:
            what += f", the most that the server's setting `{setting}` allows"
        return self._call.fail(code, what, may_be_charged=self._may_be_charged, may_retry=may_retry)
