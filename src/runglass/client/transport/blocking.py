# Written from transport/on_asyncio.py by tools/twins.py; edit that.
"""Calls and streams: performed, followed, and tried again where that is safe."""

import math
from collections.abc import Generator, Iterator
from contextlib import closing
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
from runglass.client.transport.blocking_sockets import Sockets, pieces_of, wait_of
from runglass.errors import ReplayError

if TYPE_CHECKING:  # for its name alone: few programs replay
    from runglass.client.core.replay import Replay

T = TypeVar("T")


class SyncTransport(Sockets):
    """Performs calls. During a `replay` it sends reads alone: earlier runs answer what would move one."""

    replay: "Replay | None" = None

    def call(self, call: RequestSpec[T], *, timeout: float | None) -> T:
        """The answer to `call`, tried again where that is safe. Raises as `responses.finish` does."""
        if self.replay is not None and call.moves_a_run:
            return self.replay.answer(call)
        deadline = Deadline(self.endpoint.bound_s(timeout))
        retries = Retries(call, self.endpoint.max_retries)
        while True:
            try:
                outcome = self._attempt(call, deadline)
            except TimeoutError as error:
                raise timed_out(call, deadline.seconds) from error
            wait_s = retries.wait_s(outcome, left_s=deadline.left_s())
            if wait_s is None:
                return finish(call, outcome, attempts=retries.attempts, sent_before=retries.sent)
            self.sleep(wait_s)

    def outcome(self, call: RequestSpec[Any], *, timeout: float) -> Outcome:
        """What came of one request, whatever the status of its answer. Nothing is tried again."""
        try:
            return self._attempt(call, Deadline(timeout))
        except TimeoutError as error:
            return silent(timeout, error)

    def follow(self, cursor: Cursor[T], *, timeout: float = math.inf) -> Generator[T, None, None]:
        """What `cursor` reads, until it has enough. Raises as it does, and APITimeoutError."""
        if self.replay is not None and (call := cursor.call()).moves_a_run:
            yield from self.replay.events(call)
            return
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

    def upload(self, call: RequestSpec[T], file: IO[bytes]) -> T:
        """The answer to `call` with the rest of the file as its body, which is read as it goes out, once.

        Raises as `responses.finish` does.
        """
        outcome: Outcome
        try:
            with self._bounded(call, Deadline(math.inf)):
                request = self._request(call, self.silence_s, content=pieces_of(file))
                with closing(self._http.send(request, stream=True)) as response:
                    outcome = answer(response, bytearray(response.read()))
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
        content: Iterator[bytes] | None = None,
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

    def _attempt(self, call: RequestSpec[Any], deadline: Deadline) -> Outcome:
        """What came of one request. Raises TimeoutError when the deadline passes."""
        try:
            with self._bounded(call, deadline):
                request = self._request(call, deadline)
                with closing(self._http.send(request, stream=True)) as response:
                    body = bytearray()
                    for chunk in response.iter_bytes():
                        body += chunk
        except httpx2.RequestError as error:
            return lost(error, self._base)
        return answer(response, body)

    def _parts(self, cursor: Cursor[object], deadline: Deadline) -> Generator[bytes | Outcome, None, None]:
        """The bytes of one connection, and last its outcome."""
        call, silence = cursor.call(), Deadline(self.silence_s, within=deadline)
        try:
            with self._bounded(cursor, silence):
                opened = self._http.send(self._request(call, silence), stream=True)
            with closing(opened) as response:
                chunks = response.iter_bytes()
                if not is_wanted(response, call):
                    body = bytearray()
                    with self._bounded(cursor, silence):
                        for chunk in chunks:
                            body += chunk
                    yield answer(response, body)
                    return
                cursor.opened()
                while (part := self._next(chunks, cursor, silence)) is not None:
                    yield part
        except TimeoutError as error:
            if deadline.passed():
                raise not_ended(cursor, deadline) from error
            yield silent(self.silence_s, error)
        except httpx2.RequestError as error:
            yield lost(error, self._base)
        else:
            yield ENDED_EARLY

    def _next(self, chunks: Iterator[bytes], what: object, silence: Deadline) -> bytes | None:
        silence.renew()
        with self._bounded(what, silence):
            return next(chunks, None)
