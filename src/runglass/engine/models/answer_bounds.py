"""What a provider sends, bounded before any decoder of its library sees it, and handed on in turns.

The libraries hold an event, or an answer in one piece, until it is whole, and wrap or swallow what is raised
while they read: so the call keeps its failure, to be raised in place of theirs. Knows bytes, lines and time;
nothing of what the bytes mean.
"""

import asyncio
import re
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

from runglass.config.settings import Settings
from runglass.engine.models.model_types import ModelCallFailed, RequestObserver
from runglass.limits.offload import offload
from runglass.limits.pace import current_project, pace_of
from runglass.support.json_weight import weighs_more

PART_LIMIT_BYTES = 1 << 20
"""Of one event of a stream, and of a text, a tool call's arguments or reasoning, in characters."""
EVENT_LINES = 1000
"""Some libraries copy an event for each of its lines."""
VALUES = 10_000
"""JSON values of one event, or of an answer in one piece: the libraries take up to 20 µs to read each."""
_NO_FIELD = re.compile(rb"^(?!(?:data|event|id|retry)?:|$)", re.MULTILINE)
"""The start of a line that is no part of an event."""
_BREAKS = re.compile(rb"[\x0b\x0c\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9]")
"""What some libraries take for the end of a line, beside those of events."""
SLICE_BYTES = 2048
"""So much is handed to a library at a time: about ten events, a millisecond or two of its work."""
HEADS = 200
"""Looks at the network, and heads of interim responses, before an answer begins."""
_INTERIM = re.compile(rb"\nHTTP/\d\.\d 1\d\d")
CHUNKS, CHUNK_S = 16, 0.0001
"""After so many chunks, each of which takes the HTTP client so many seconds however small it is, it rests."""


class ProviderCall:
    """A call to `model` under way; `is_streamed` says that its answer was asked for in events.

    `is_sent` says that a request has gone out, `may_be_charged` whether what has come of the answer may cost
    something, and `failure` is what ended it on this side, whatever the library makes of that.
    """

    def __init__(self, model: str, observer: RequestObserver | None, *, is_streamed: bool) -> None:
        self.is_streamed = is_streamed
        self.is_sent = False
        self.may_be_charged = True
        self.failure: ModelCallFailed | None = None
        self.turn, self.room = AsyncExitStack(), AsyncExitStack()
        """Of working on what has come, and for one piece of over 1 MiB, where the call has them."""
        self.has_room = False
        self.has_begun = False
        """Whether the head of its answer has come."""
        self.heads = 0
        self.loose = b""
        """The beginning of an answer in one piece, or of what came in the place of events."""
        self._model = model
        self._observer = observer

    async def sent(self, read: Callable[[], dict[str, Any]], size_bytes: int) -> None:
        """A request of the call goes out as soon as this returns, as for `RequestObserver.sent`."""
        self.is_sent = True
        if self._observer is not None:
            await self._observer.sent(read, size_bytes)

    def fail(
        self, code: str, what: str, setting: str | None = None, *, may_retry: bool = False
    ) -> ModelCallFailed:
        """The failure that is the call's from now on; `setting` is the limit of the server that it met."""
        provider = self._model.partition(":")[0]
        if setting is not None:
            what += f", the most that the server's setting `{setting}` allows"
        self.failure = ModelCallFailed(
            code,
            f"provider {provider!r} {what} (model {self._model!r})",
            may_be_charged=self.may_be_charged,
            may_retry=may_retry,
            details={"provider": provider, "model": self._model},
        )
        return self.failure

    async def end(self) -> None:
        """Gives back the turn and the room."""
        await self.turn.aclose()
        await self.room.aclose()

    def require_part(self, size: int) -> None:
        """Raises ModelCallFailed for a text, arguments or reasoning of too many characters."""
        if size > PART_LIMIT_BYTES:
            what = (
                f"sent a text, arguments of a tool call, or reasoning of over {PART_LIMIT_BYTES} characters"
            )
            raise self.fail("OUTPUT_TOO_LARGE", what)


current_call: ContextVar[ProviderCall | None] = ContextVar("current_call", default=None)
"""The call to a model that this task makes."""


async def heard_of(event: str, told: dict[str, Any]) -> None:
    """Takes what an HTTP client tells of its work: a new connection is bounded until an answer begins."""
    if event.endswith(("connect_tcp.complete", "start_tls.complete")):
        stream = told["return_value"]
        stream.read = partial(_read, stream.read)


async def _read(read: Callable[..., Awaitable[bytes]], *args: Any, **kwargs: Any) -> bytes:
    data = await read(*args, **kwargs)
    call = current_call.get()
    if call is not None and not call.has_begun:
        # The client passes over thousands of interim responses without a look at anything else.
        call.heads += 1 + len(_INTERIM.findall(data))
        if call.heads > HEADS:
            raise call.fail("PROVIDER_UNAVAILABLE", "sent much, and no answer")
    return data


def bound(call: ProviderCall, response: Any, settings: Settings, *, may_be_charged: bool) -> None:
    """Bounds a response of httpx or httpx2 whose body has not been read. Raises ModelCallFailed."""
    call.has_begun, call.may_be_charged = True, may_be_charged
    coding = response.headers.get("content-encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        what = f"compressed its answer ({coding[:50]!r}) though `Accept-Encoding: identity` was sent"
        raise call.fail("PROVIDER_UNAVAILABLE", what)
    # Some libraries would read a text in any encoding that is told; JSON and events are in this one.
    response.encoding = "utf-8"
    # Each of the two libraries takes its own kind alone.
    kind = next(kind for kind in type(response.stream).__mro__ if kind.__name__ == "AsyncByteStream")
    # Anthropic's library asks for a stream by itself where an answer may take long.
    comes_in_events = call.is_streamed or "event-stream" in response.headers.get("content-type", "")
    in_events = comes_in_events and response.status_code < 300
    response.stream = _stream_of(kind)(response.stream, call, settings, in_events=in_events)


@cache
def _stream_of(kind: type) -> Callable[..., Any]:
    return type("BoundedStream", (_BoundedStream, kind), {})


class _BoundedStream:
    """The bytes of `stream` in slices. Nothing is read from the socket while the last ones are worked on."""

    def __init__(self, stream: Any, call: ProviderCall, settings: Settings, *, in_events: bool) -> None:
        self._stream = stream
        self._call = call
        self._settings = settings
        self._in_events = in_events
        self._size = self._lines = self._chunks = 0
        self._is_after_return = self._is_raw = self._is_object = False
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
                if len(self._held) > PART_LIMIT_BYTES and not self._call.has_room:
                    # Hardly an answer in one piece is as large; a hundred at once would take gigabytes.
                    piece = pace_of("large answers").piece(current_project.get())
                    (await self._call.room.enter_async_context(piece)).worked_s = 0.0
                    self._call.has_room = True
                # An answer in one piece is weighed at its end: a second for 16 MiB that are no JSON.
                whole = await offload(partial(self._whole, data), size_bytes=len(self._held) * is_over)
                for start in range(0, len(whole), SLICE_BYTES):
                    if start:
                        # Where no other project is about, nobody waits for a turn.
                        await asyncio.sleep(0)
                    async with self._call.turn as turn:
                        await turn.enter_async_context(pace_of("answers").piece(current_project.get()))
                        yield whole[start : start + SLICE_BYTES]
        except ModelCallFailed:
            # Not every library closes what it fails to read.
            await self._stream.aclose()
            raise
        finally:
            # The traceback of a call that was cut off has this frame, until a collection of garbage comes by.
            whole = b""
            self._held.clear()

    async def _next(self, chunks: Any) -> bytes | None:
        self._chunks += 1
        if self._chunks % CHUNKS == 0:
            # A client has thousands of small ones from one look at the network, and does not wait for them.
            async with pace_of("answers").piece(current_project.get()) as piece:
                piece.worked_s = CHUNKS * CHUNK_S
                await asyncio.sleep(0)
        limit = asyncio.timeout(self._settings.answer_idle_limit_s)
        try:
            async with limit:
                data: bytes | None = await anext(chunks, None)
                return data
        except TimeoutError as error:
            if not limit.expired():
                raise
            what = f"sent nothing for {self._settings.answer_idle_limit_s:g} s in the midst of its answer"
            raise self._call.fail(
                "PROVIDER_UNAVAILABLE", what, "answer_idle_limit_s", may_retry=True
            ) from error

    def _whole(self, data: bytes | None) -> bytes:
        """What is whole when `data` has come, None for the end; it may be read without a look at its size."""
        # Allowed in front of events, and not known to every library.
        if data and not self._size:
            data = data.removeprefix(BOM_UTF8)
            self._is_object = data.lstrip().startswith(b"{")
        self._size += len(data or b"")
        if self._size > self._settings.answer_limit_bytes:
            what = f"sent an answer of over {self._settings.answer_limit_bytes} bytes"
            raise self._call.fail("OUTPUT_TOO_LARGE", what, "answer_limit_bytes")
        if b"\0" in (data or b""):
            # Neither JSON nor events have any, but texts in other encodings, which some libraries recognise.
            raise self._call.fail("PROVIDER_UNAVAILABLE", "sent an answer that is not in UTF-8")
        if self._in_events:
            whole = self._whole_events(data)
            texts = [_data_of(event) for event in whole.split(b"\n\n") if len(event) > 2 * VALUES]
            texts.append(self._call.loose)
        else:
            self._held += data or b""
            whole = bytes(self._held) if data is None else b""
            self._call.loose = whole[: 2 * VALUES]
            texts = [whole]
        # What is no longer than this cannot have so many.
        if any(len(text) > 2 * VALUES and weighs_more(text, VALUES) for text in texts):
            what = f"sent over {VALUES} JSON values at once"
            if not self._in_events:
                what += "; in a stream, each event may have as many"
            raise self._call.fail("OUTPUT_TOO_LARGE", what)
        return whole

    def _whole_events(self, data: bytes | None) -> bytes:
        """What is whole of a stream, in lines that all libraries see alike."""
        before = end = len(self._held)
        if data is not None:
            # The two bytes of one end may have come apart.
            data = data.removeprefix(b"\n") if self._is_after_return else data
            self._is_after_return = data.endswith(b"\r")
            self._held += data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            at = -1 if self._is_raw else self._held.rfind(b"\n\n", max(0, before - 1))
            end = at + 2 if at >= 0 else 0
            self._lines = (
                self._held.count(b"\n", end) if end else self._lines + self._held.count(b"\n", before)
            )
        if not self._is_raw and (other := _NO_FIELD.search(self._held, 0, end)):
            # Google's library makes one text of such lines, whatever else comes between them.
            self._is_raw, end = True, other.start()
        room = 2 * VALUES if self._is_raw and not self._is_object else PART_LIMIT_BYTES
        if len(self._held) - end > room or self._lines > EVENT_LINES:
            what = f"sent an event of over {room} bytes or {EVENT_LINES} lines"
            raise self._call.fail("OUTPUT_TOO_LARGE", what)
        if data is None:
            end = len(self._held)
            self._call.loose = bytes(self._held) if self._is_raw else b""
            if len(self._call.loose) > 2 * VALUES:
                # The call knows it for an answer in one piece, of which no library is shown so much at once.
                self._held.clear()
                return b""
        whole = _BREAKS.sub(_escaped, bytes(self._held[:end]))
        del self._held[:end]
        return whole


def _data_of(event: bytes) -> bytes:
    """The text that a library decodes: quotes elsewhere say nothing about it."""
    return b"\n".join(line for line in event.split(b"\n") if line.startswith(b"data:"))


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())
