"""The only HTTP in the client: performs described calls and follows streams, once blocking, once on asyncio.

What to send, what an outcome means, whether to try again and when a stream is lost for good is decided
elsewhere, without I/O, for both transports alike. Here is what differs: how to wait, and how to be cut off.
"""

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager, closing, suppress
from typing import Any, TypeVar

import httpx2

from runglass.client.answers import ENDED_EARLY, Answer, Lost, Outcome, finish, timed_out
from runglass.client.calls import Call
from runglass.client.cursor import SILENCE_S, Cursor
from runglass.client.deadline import Deadline
from runglass.client.endpoint import Endpoint
from runglass.client.retries import Retries
from runglass.client.sockets import DeadlineBackend
from runglass.errors import APITimeoutError
from runglass.events import StreamEvent

T = TypeVar("T")

# A stream holds its connection, and any number may be followed at a time. Idle connections go before common
# servers close them (after 5 s): a POST that meets a closed one cannot know whether it was read.
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=4.0)

_REFUSAL_BYTES = 64 * 1024
_SILENT = f"nothing was heard for {SILENCE_S:g} s"


class SyncTransport:
    """Performs calls on blocking sockets. Threads may share it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._closed = threading.Event()
        self.sleep: Callable[[float], object] = self._closed.wait
        self._base = _checked(endpoint.base_url)
        self._http = httpx2.Client(headers=endpoint.headers(), limits=_LIMITS)
        self._backends = _keep_deadlines(self._http)

    def close(self) -> None:
        """Closes every connection. What waits in another thread ends at once, with a RuntimeError."""
        self._closed.set()
        for backend in self._backends:
            backend.close()
        self._http.close()

    def call(self, call: Call[T], *, timeout: float | None) -> T:
        """The answer to `call`, tried again where that is safe. Raises as `answers.finish` does."""
        deadline = Deadline(self.endpoint.bound_s(timeout))
        retries = Retries(call, self.endpoint.max_retries)
        while True:
            outcome = self._attempt(call, deadline)
            wait_s = retries.wait_s(outcome, left_s=deadline.left_s())
            if wait_s is None:
                return finish(call, outcome, attempts=retries.attempts)
            self.sleep(wait_s)

    def follow(self, cursor: Cursor, *, timeout: float = math.inf) -> Generator[StreamEvent, None, None]:
        """The events that `cursor` reads, until it has enough. Raises as it does, and APITimeoutError."""
        deadline = Deadline(timeout)
        while True:
            with closing(self._parts(cursor, deadline)) as parts:
                part = next(parts)
                while isinstance(part, bytes):
                    yield from cursor.feed(part)
                    if cursor.ended:
                        return
                    part = next(parts) if cursor.gap is None else cursor.gap
            if (wait_s := cursor.lost(part)) is None:
                return
            self.sleep(max(0.0, min(wait_s, deadline.left_s())))

    def _require_open(self, what: object) -> None:
        if self._closed.is_set():
            raise _closed(what)

    def _attempt(self, call: Call[Any], deadline: Deadline) -> Outcome:
        self._require_open(call)
        request = self._http.build_request(
            call.method,
            f"{self._base}{call.target}",
            headers=call.headers,
            content=call.body,
            extensions=_waiting(deadline),
        )
        try:
            response = self._http.send(request)
        except httpx2.RequestError as error:
            self._require_open(call)
            # The kernel gives up on dead peers by itself, and that looks like a timeout too.
            if isinstance(error, httpx2.TimeoutException) and deadline.passed():
                raise timed_out(call, deadline.seconds) from error
            return _lost(error, self._base)
        # A body without a length ends well where its connection is shut down.
        self._require_open(call)
        return _answer(response, response.content)

    def _parts(self, cursor: Cursor, deadline: Deadline) -> Generator[bytes | Outcome, None, None]:
        """The bytes that one connection brings, and last how it ended."""
        self._require_open(cursor)
        silence = _silence(deadline)
        call = cursor.call()
        request = self._http.build_request(
            call.method,
            f"{self._base}{call.target}",
            headers=call.headers,
            content=call.body,
            extensions=_waiting(silence),
        )
        try:
            with closing(self._http.send(request, stream=True)) as response:
                if not _is_event_stream(response):
                    body = bytearray()
                    for chunk in response.iter_bytes():
                        body += chunk
                        if len(body) > _REFUSAL_BYTES:
                            break
                    yield _answer(response, bytes(body))
                    return
                cursor.opened()
                silence.renew()
                for chunk in response.iter_bytes():
                    yield chunk
                    silence.renew()
        except httpx2.RequestError as error:
            self._require_open(cursor)
            silent = isinstance(error, httpx2.TimeoutException) and silence.passed()
            if silent and deadline.passed():
                raise _not_ended(cursor, deadline) from error
            yield Lost(_SILENT, cause=error) if silent else _lost(error, self._base)
        else:
            self._require_open(cursor)
            yield ENDED_EARLY


class AsyncTransport:
    """Performs calls on asyncio. Belongs to the event loop that it is first used on."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._closed = asyncio.Event()
        self._bounds: set[asyncio.Timeout] = set()
        self.sleep: Callable[[float], Awaitable[None]] = self._wait
        self._base = _checked(endpoint.base_url)
        self._http = httpx2.AsyncClient(headers=endpoint.headers(), limits=_LIMITS, timeout=None)

    async def aclose(self) -> None:
        """Closes every connection. What waits in another task ends at once, with a RuntimeError."""
        self._closed.set()
        # The HTTP library does not close connections in the making, and would let their requests wait on.
        for bound in self._bounds:
            if not bound.expired():
                bound.reschedule(0)
        await self._http.aclose()

    async def call(self, call: Call[T], *, timeout: float | None) -> T:
        """The answer to `call`, tried again where that is safe. Raises as `answers.finish` does."""
        deadline = Deadline(self.endpoint.bound_s(timeout))
        retries = Retries(call, self.endpoint.max_retries)
        try:
            async with self._bounded(deadline):
                while True:
                    outcome = await self._attempt(call)
                    wait_s = retries.wait_s(outcome, left_s=deadline.left_s())
                    if wait_s is None:
                        return finish(call, outcome, attempts=retries.attempts)
                    await self.sleep(wait_s)
        except TimeoutError as error:
            self._require_open(call)
            raise timed_out(call, deadline.seconds) from error

    async def follow(self, cursor: Cursor, *, timeout: float = math.inf) -> AsyncGenerator[StreamEvent, None]:
        """The events that `cursor` reads, until it has enough. Raises as it does, and APITimeoutError."""
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
        async with self._bounded(_silence(deadline)):
            return await anext(chunks, None)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def _require_open(self, what: object) -> None:
        if self._closed.is_set():
            raise _closed(what)

    async def _attempt(self, call: Call[Any]) -> Outcome:
        self._require_open(call)
        request = self._http.build_request(
            call.method, f"{self._base}{call.target}", headers=call.headers, content=call.body
        )
        try:
            response = await self._http.send(request)
        except httpx2.RequestError as error:
            self._require_open(call)
            return _lost(error, self._base)
        return _answer(response, response.content)

    async def _parts(self, cursor: Cursor, deadline: Deadline) -> AsyncGenerator[bytes | Outcome, None]:
        """The bytes that one connection brings, and last how it ended."""
        self._require_open(cursor)
        call = cursor.call()
        request = self._http.build_request(
            call.method, f"{self._base}{call.target}", headers=call.headers, content=call.body
        )
        try:
            async with self._bounded(_silence(deadline)):
                opened = await self._http.send(request, stream=True)
            async with aclosing(opened) as response:
                if not _is_event_stream(response):
                    body = bytearray()
                    async with self._bounded(_silence(deadline)):
                        async for chunk in response.aiter_bytes():
                            body += chunk
                            if len(body) > _REFUSAL_BYTES:
                                break
                    yield _answer(response, bytes(body))
                    return
                cursor.opened()
                chunks = response.aiter_bytes()
                while (part := await self._next(chunks, deadline)) is not None:
                    yield part
        except TimeoutError as error:
            self._require_open(cursor)
            if deadline.passed():
                raise _not_ended(cursor, deadline) from error
            yield Lost(_SILENT, cause=error)
        except httpx2.RequestError as error:
            self._require_open(cursor)
            yield _lost(error, self._base)
        else:
            yield ENDED_EARLY


def _silence(deadline: Deadline) -> Deadline:
    return Deadline(SILENCE_S, within=deadline)


def _not_ended(cursor: Cursor, deadline: Deadline) -> APITimeoutError:
    return APITimeoutError(f"{cursor}: the run did not end within {deadline.seconds:g} s; it still goes on")


def _closed(what: object) -> RuntimeError:
    return RuntimeError(f"{what} cannot be had: the client has been closed; make a new one")


def _checked(base_url: str) -> str:
    try:
        httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"base_url {base_url!r} cannot be used: {error}") from error
    return base_url


def _keep_deadlines(client: httpx2.Client) -> list[DeadlineBackend]:
    backends = []
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.HTTPTransport):
            # There is no public way in that keeps proxies from the environment. Reading the attribute first
            # makes a renamed one fail here, rather than leave calls unbounded.
            backends.append(DeadlineBackend(transport._pool._network_backend))
            transport._pool._network_backend = backends[-1]
    return backends


def _waiting(deadline: Deadline) -> dict[str, Any]:
    """Request extensions that make each wait on the socket ask `deadline`."""
    return {"timeout": {"connect": deadline, "read": deadline, "write": deadline, "pool": None}}


def _is_event_stream(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.lower().startswith("text/event-stream")


def _answer(response: httpx2.Response, body: bytes) -> Answer:
    return Answer(response.status_code, dict(response.headers), body)


def _lost(error: httpx2.RequestError, base_url: str) -> Lost:
    why = str(error) or type(error).__name__
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)):
        return Lost(f"{base_url} cannot be reached: {why}", sent=False, cause=error)
    return Lost(f"the connection to {base_url} broke off: {why}", cause=error)
