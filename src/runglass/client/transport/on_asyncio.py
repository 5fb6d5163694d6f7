"""Calls and streams on asyncio."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import IO, Any, TypeVar

import httpcore2  # noqa: F401  # httpx2 would load it with the first client, which may be on the event loop
import httpx2

from runglass.client.core.connection import ServerConnection
from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import (
    ENDED_EARLY,
    Deadline,
    Outcome,
    Retries,
    finish,
    timed_out,
)
from runglass.client.core.stream_cursor import SILENCE_S
from runglass.client.transport import (
    LIMITS,
    PIECE_BYTES,
    REFUSAL_BYTES,
    Cursor,
    answer,
    checked,
    closed,
    is_event_stream,
    lost,
    not_ended,
    silent,
    verification,
)

T = TypeVar("T")


class AsyncTransport:
    """Performs calls on asyncio. Belongs to the event loop that it is first used on."""

    def __init__(self, endpoint: ServerConnection, *, silence_s: float = SILENCE_S) -> None:
        self.endpoint = endpoint
        self.silence_s = silence_s
        self._closed = asyncio.Event()
        self._bounds: set[asyncio.Timeout] = set()
        self._base = checked(endpoint.base_url)
        self._http = httpx2.AsyncClient(
            headers=endpoint.headers(), limits=LIMITS, timeout=None, verify=verification(self._base)
        )

    async def aclose(self) -> None:
        """Closes every connection. What waits in another task ends at once, with a RuntimeError."""
        self._closed.set()
        # The HTTP library does not close connections in the making, so their requests would go on waiting.
        for bound in self._bounds:
            if not bound.expired():
                bound.reschedule(0)
        await self._http.aclose()

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`, or when the transport is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    async def call(self, call: RequestSpec[T], *, timeout: float | None) -> T:
        """The answer to `call`, tried again where that is safe. Raises as `responses.finish` does."""
        deadline = Deadline(self.endpoint.bound_s(timeout))
        retries = Retries(call, self.endpoint.max_retries)
        try:
            async with self._bounded(deadline):
                while True:
                    outcome = await self._attempt(call)
                    wait_s = retries.wait_s(outcome, left_s=deadline.left_s())
                    if wait_s is None:
                        return finish(call, outcome, attempts=retries.attempts, sent_before=retries.sent)
                    await self.sleep(wait_s)
        except TimeoutError as error:
            self._require_open(call)
            raise timed_out(call, deadline.seconds) from error

    async def outcome(self, call: RequestSpec[Any], *, timeout: float) -> Outcome:
        """What came of one request, whatever the status of its answer. Nothing is tried again."""
        try:
            async with self._bounded(Deadline(timeout)):
                return await self._attempt(call)
        except TimeoutError as error:
            self._require_open(call)
            return silent(timeout, error)

    async def follow(self, cursor: Cursor[T], *, timeout: float = math.inf) -> AsyncGenerator[T, None]:
        """What `cursor` reads, until it has enough. Raises as it does, and APITimeoutError."""
        deadline = Deadline(timeout)
        while True:
            async with aclosing(self._parts(cursor, deadline)) as parts:
                part = await anext(parts)
                while isinstance(part, bytes):
                    for event in cursor.feed(part):
                        yield event
                    if cursor.ended:
                        return
                    part = await anext(parts) if cursor.gap is None else cursor.gap
            if (wait_s := cursor.lost(part)) is None:
                return
            await self.sleep(max(0.0, min(wait_s, deadline.left_s())))

    async def download(self, call: RequestSpec[None]) -> AsyncGenerator[bytes, None]:
        """The body of the answer, part by part; asked for again where none of it has come.

        Raises as `call` does, and APIConnectionError where the body breaks off.
        """
        retries = Retries(call, self.endpoint.max_retries)
        while True:
            outcome: Outcome | None = None
            has_begun = False
            async with aclosing(self._body(call)) as parts:
                async for part in parts:
                    if isinstance(part, bytes):
                        has_begun = True
                        yield part
                    else:
                        outcome = part
            if outcome is None:
                return
            wait_s = None if has_begun else retries.wait_s(outcome, left_s=math.inf)
            if wait_s is None:
                finish(call, outcome, attempts=retries.attempts)
                return
            await self.sleep(wait_s)

    async def upload(self, call: RequestSpec[T], file: IO[bytes]) -> T:
        """The answer to `call` with the rest of the file as its body, which is read as it goes out, once.

        Raises as `responses.finish` does.
        """
        self._require_open(call)
        request = self._request(call, content=_pieces(file))
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write"), self.silence_s) | {
            "pool": None
        }
        try:
            async with (
                self._bounded(Deadline(math.inf)),
                aclosing(await self._http.send(request, stream=True)) as response,
            ):
                outcome: Outcome = answer(response, bytearray(await response.aread()))
        except TimeoutError as error:
            raise closed(call) from error
        except httpx2.RequestError as error:
            self._require_open(call)
            is_silent = isinstance(error, httpx2.TimeoutException)
            outcome = silent(self.silence_s, error) if is_silent else lost(error, self._base)
        return finish(call, outcome, attempts=1)

    @asynccontextmanager
    async def _bounded(self, deadline: Deadline) -> AsyncGenerator[None, None]:
        """Raises TimeoutError when the deadline passes, or the client is closed."""
        async with asyncio.timeout(deadline.bound_s()) as bound:
            self._bounds.add(bound)
            try:
                yield
            finally:
                self._bounds.discard(bound)

    async def _next(self, chunks: AsyncIterator[bytes], deadline: Deadline) -> bytes | None:
        async with self._bounded(Deadline(self.silence_s, within=deadline)):
            return await anext(chunks, None)

    def _require_open(self, what: object) -> None:
        if self._closed.is_set():
            raise closed(what)

    def _request(
        self, call: RequestSpec[Any], *, content: AsyncIterator[bytes] | None = None
    ) -> httpx2.Request:
        body = call.body if content is None else content
        return self._http.build_request(
            call.method, f"{self._base}{call.target}", headers=call.headers, content=body
        )

    async def _attempt(self, call: RequestSpec[Any]) -> Outcome:
        self._require_open(call)
        request = self._request(call)
        try:
            async with aclosing(await self._http.send(request, stream=True)) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
        except httpx2.RequestError as error:
            self._require_open(call)
            return lost(error, self._base)
        return answer(response, body)

    async def _parts(
        self, cursor: Cursor[object], deadline: Deadline
    ) -> AsyncGenerator[bytes | Outcome, None]:
        """The bytes of one connection, and last its outcome."""
        self._require_open(cursor)
        request = self._request(cursor.call())
        try:
            async with self._bounded(Deadline(self.silence_s, within=deadline)):
                opened = await self._http.send(request, stream=True)
            async with aclosing(opened) as response:
                if not is_event_stream(response):
                    body = bytearray()
                    async with self._bounded(Deadline(self.silence_s, within=deadline)):
                        async for chunk in response.aiter_bytes():
                            body += chunk
                            if len(body) > REFUSAL_BYTES:
                                break
                    yield answer(response, body)
                    return
                cursor.opened()
                chunks = response.aiter_bytes()
                while (part := await self._next(chunks, deadline)) is not None:
                    yield part
        except TimeoutError as error:
            self._require_open(cursor)
            if deadline.passed():
                raise not_ended(cursor, deadline) from error
            yield silent(self.silence_s, error)
        except httpx2.RequestError as error:
            self._require_open(cursor)
            yield lost(error, self._base)
        else:
            yield ENDED_EARLY

    async def _body(self, call: RequestSpec[None]) -> AsyncGenerator[bytes | Outcome, None]:
        """The parts of a good answer, or how the call came to another end, also within its body."""
        self._require_open(call)
        request = self._request(call)
        try:
            async with self._bounded(Deadline(self.silence_s)):
                opened = await self._http.send(request, stream=True)
            async with aclosing(opened) as response:
                if response.status_code != 200:
                    async with self._bounded(Deadline(self.silence_s)):
                        yield answer(response, bytearray(await response.aread()))
                    return
                chunks = response.aiter_bytes()
                while (part := await self._next(chunks, Deadline(self.silence_s))) is not None:
                    yield part
        except TimeoutError as error:
            self._require_open(call)
            yield silent(self.silence_s, error)
            return
        except httpx2.RequestError as error:
            self._require_open(call)
            yield lost(error, self._base)
            return
        self._require_open(call)


async def _pieces(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    # A file may be on a disk that takes its time.
    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
        yield piece
