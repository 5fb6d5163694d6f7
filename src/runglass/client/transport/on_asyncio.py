"""Calls and streams: performed, followed, and tried again where that is safe."""

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import IO, TYPE_CHECKING, Any, TypeVar

import httpx2

from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import ENDED_EARLY, Deadline, Outcome, Retries, finish, timed_out
from runglass.client.transport import (
    Cursor,
    answer,
    is_wanted,
    lost,
    not_ended,
    silent,
)
from runglass.client.transport.asyncio_sockets import AsyncSockets, pieces_of, wait_of
from runglass.errors import ReplayError

if TYPE_CHECKING:  # for its name alone: few programs replay
    from runglass.client.core.replay import Replay

T = TypeVar("T")


class AsyncTransport(AsyncSockets):
    """Performs calls. During a `replay` it sends reads alone: earlier runs answer what would move one."""

    replay: "Replay | None" = None

    async def call(self, call: RequestSpec[T], *, timeout: float | None) -> T:
        """The answer to `call`, tried again where that is safe. Raises as `responses.finish` does."""
        if self.replay is not None and call.moves_a_run:
            return self.replay.answer(call)
        deadline = Deadline(self.endpoint.bound_s(timeout))
        retries = Retries(call, self.endpoint.max_retries)
        while True:
            try:
                outcome = await self._attempt(call, deadline)
            except TimeoutError as error:
                raise timed_out(call, deadline.seconds) from error
            wait_s = retries.wait_s(outcome, left_s=deadline.left_s())
            if wait_s is None:
                return finish(call, outcome, attempts=retries.attempts, sent_before=retries.sent)
            await self.sleep(wait_s)

    async def outcome(self, call: RequestSpec[Any], *, timeout: float) -> Outcome:
        """What came of one request, whatever the status of its answer. Nothing is tried again."""
        try:
            return await self._attempt(call, Deadline(timeout))
        except TimeoutError as error:
            return silent(timeout, error)

    async def follow(self, cursor: Cursor[T], *, timeout: float = math.inf) -> AsyncGenerator[T, None]:
        """What `cursor` reads, until it has enough. Raises as it does, and APITimeoutError."""
        if self.replay is not None and (call := cursor.call()).moves_a_run:
            for earlier in self.replay.events(call):
                yield earlier
            return
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

    async def upload(self, call: RequestSpec[T], file: IO[bytes]) -> T:
        """The answer to `call` with the rest of the file as its body, which is read as it goes out, once.

        Raises as `responses.finish` does.
        """
        outcome: Outcome
        try:
            async with self._bounded(call, Deadline(math.inf)):
                request = self._request(call, self.silence_s, content=pieces_of(file))
                async with aclosing(await self._http.send(request, stream=True)) as response:
                    outcome = answer(response, bytearray(await response.aread()))
        except httpx2.TimeoutException as error:
            outcome = silent(self.silence_s, error)
        except httpx2.RequestError as error:
            outcome = lost(error, self._base)
        return finish(call, outcome, attempts=1)

    def _request(
        self,
        call: RequestSpec[Any],
        bound: Deadline | float,
        *,
        content: AsyncIterator[bytes] | None = None,
    ) -> httpx2.Request:
        if self.replay is not None and call.method != "GET":
            raise ReplayError(f"{call} is not sent in a replay, which changes nothing on the server")
        waits: dict[str, Any] = dict.fromkeys(("connect", "read", "write"), wait_of(bound))
        return self._http.build_request(
            call.method,
            f"{self._base}{call.target}",
            headers=call.headers,
            content=call.body if content is None else content,
            extensions={"timeout": {**waits, "pool": None}},
        )

    async def _attempt(self, call: RequestSpec[Any], deadline: Deadline) -> Outcome:
        """What came of one request. Raises TimeoutError when the deadline passes."""
        try:
            async with self._bounded(call, deadline):
                request = self._request(call, deadline)
                async with aclosing(await self._http.send(request, stream=True)) as response:
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        body += chunk
        except httpx2.RequestError as error:
            return lost(error, self._base)
        return answer(response, body)

    async def _parts(
        self, cursor: Cursor[object], deadline: Deadline
    ) -> AsyncGenerator[bytes | Outcome, None]:
        """The bytes of one connection, and last its outcome."""
        call, silence = cursor.call(), Deadline(self.silence_s, within=deadline)
        try:
            async with self._bounded(cursor, silence):
                opened = await self._http.send(self._request(call, silence), stream=True)
            async with aclosing(opened) as response:
                chunks = response.aiter_bytes()
                if not is_wanted(response, call):
                    body = bytearray()
                    async with self._bounded(cursor, silence):
                        async for chunk in chunks:
                            body += chunk
                    yield answer(response, body)
                    return
                cursor.opened()
                while (part := await self._next(chunks, cursor, silence)) is not None:
                    yield part
        except TimeoutError as error:
            if deadline.passed():
                raise not_ended(cursor, deadline) from error
            yield silent(self.silence_s, error)
        except httpx2.RequestError as error:
            yield lost(error, self._base)
        else:
            yield ENDED_EARLY

    async def _next(self, chunks: AsyncIterator[bytes], what: object, silence: Deadline) -> bytes | None:
        silence.renew()
        async with self._bounded(what, silence):
            return await anext(chunks, None)
