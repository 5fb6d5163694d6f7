"""Calls and streams on blocking sockets."""

import math
import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import IO, Any, TypeVar

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
from runglass.client.transport.deadline_backend import DeadlineBackend

T = TypeVar("T")


class SyncTransport:
    """Performs calls on blocking sockets. Threads may share it."""

    def __init__(self, endpoint: ServerConnection, *, silence_s: float = SILENCE_S) -> None:
        self.endpoint = endpoint
        self.silence_s = silence_s
        self._closed = threading.Event()
        self._base = checked(endpoint.base_url)
        self._http = httpx2.Client(headers=endpoint.headers(), limits=LIMITS, verify=verification(self._base))
        self._backends: list[DeadlineBackend] = []
        for transport in (self._http._transport, *self._http._mounts.values()):
            if isinstance(transport, httpx2.HTTPTransport):
                # The library has no public way to replace the backend and keep proxies from the environment.
                # Reading the attribute first makes a renamed one fail here, not leave calls unbounded.
                self._backends.append(DeadlineBackend(transport._pool._network_backend))
                transport._pool._network_backend = self._backends[-1]

    def close(self) -> None:
        """Closes every connection. What waits in another thread ends at once, with a RuntimeError."""
        self._closed.set()
        for backend in self._backends:
            backend.close()
        self._http.close()

    def sleep(self, seconds: float) -> None:
        """Returns after `seconds`, or when the transport is closed."""
        self._closed.wait(seconds)

    def call(self, call: RequestSpec[T], *, timeout: float | None) -> T:
        """The answer to `call`, tried again where that is safe. Raises as `responses.finish` does."""
        deadline = Deadline(self.endpoint.bound_s(timeout))
        retries = Retries(call, self.endpoint.max_retries)
        while True:
            outcome = self._attempt(call, deadline)
            wait_s = retries.wait_s(outcome, left_s=deadline.left_s())
            if wait_s is None:
                return finish(call, outcome, attempts=retries.attempts, sent_before=retries.sent)
            self.sleep(wait_s)

    def follow(self, cursor: Cursor[T], *, timeout: float = math.inf) -> Generator[T, None, None]:
        """What `cursor` reads, until it has enough. Raises as it does, and APITimeoutError."""
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

    def download(self, call: RequestSpec[None]) -> Generator[bytes, None, None]:
        """The body of the answer, part by part; asked for again where none of it has come.

        Raises as `call` does, and APIConnectionError where the body breaks off.
        """
        retries = Retries(call, self.endpoint.max_retries)
        while True:
            outcome: Outcome | None = None
            has_begun = False
            with closing(self._body(call)) as parts:
                for part in parts:
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
            self.sleep(wait_s)

    def upload(self, call: RequestSpec[T], file: IO[bytes]) -> T:
        """The answer to `call` with the rest of the file as its body, which is read as it goes out, once.

        Raises as `responses.finish` does.
        """
        self._require_open(call)
        silence = Deadline(self.silence_s)
        request = self._request(call, silence, content=_pieces(file, silence))
        try:
            with closing(self._http.send(request, stream=True)) as response:
                outcome: Outcome = answer(response, bytearray(response.read()))
        except httpx2.RequestError as error:
            self._require_open(call)
            outcome = silent(self.silence_s, error) if silence.passed() else lost(error, self._base)
        return finish(call, outcome, attempts=1)

    def _require_open(self, what: object) -> None:
        if self._closed.is_set():
            raise closed(what)

    def _request(
        self, call: RequestSpec[Any], deadline: Deadline, *, content: Iterable[bytes] | None = None
    ) -> httpx2.Request:
        """The request, of which each wait on the socket asks `deadline`."""
        waits: dict[str, Any] = {**dict.fromkeys(("connect", "read", "write"), deadline), "pool": None}
        return self._http.build_request(
            call.method,
            f"{self._base}{call.target}",
            headers=call.headers,
            content=call.body if content is None else content,
            extensions={"timeout": waits},
        )

    def _attempt(self, call: RequestSpec[Any], deadline: Deadline) -> Outcome:
        self._require_open(call)
        request = self._request(call, deadline)
        try:
            with closing(self._http.send(request, stream=True)) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
        except httpx2.RequestError as error:
            self._require_open(call)
            # The kernel gives up on dead peers by itself, and the library reports that as a timeout too.
            if isinstance(error, httpx2.TimeoutException) and deadline.passed():
                raise timed_out(call, deadline.seconds) from error
            return lost(error, self._base)
        # A body without a length ends well where its connection is shut down.
        self._require_open(call)
        return answer(response, body)

    def _parts(self, cursor: Cursor[object], deadline: Deadline) -> Generator[bytes | Outcome, None, None]:
        """The bytes of one connection, and last its outcome."""
        self._require_open(cursor)
        silence = Deadline(self.silence_s, within=deadline)
        request = self._request(cursor.call(), silence)
        try:
            with closing(self._http.send(request, stream=True)) as response:
                if not is_event_stream(response):
                    body = bytearray()
                    for chunk in response.iter_bytes():
                        body += chunk
                        if len(body) > REFUSAL_BYTES:
                            break
                    yield answer(response, body)
                    return
                cursor.opened()
                silence.renew()
                for chunk in response.iter_bytes():
                    yield chunk
                    silence.renew()
        except httpx2.RequestError as error:
            self._require_open(cursor)
            is_silent = isinstance(error, httpx2.TimeoutException) and silence.passed()
            if is_silent and deadline.passed():
                raise not_ended(cursor, deadline) from error
            yield silent(self.silence_s, error) if is_silent else lost(error, self._base)
        else:
            self._require_open(cursor)
            yield ENDED_EARLY

    def _body(self, call: RequestSpec[None]) -> Generator[bytes | Outcome, None, None]:
        """The parts of a good answer, or how the call came to another end, also within its body."""
        self._require_open(call)
        silence = Deadline(self.silence_s)
        request = self._request(call, silence)
        try:
            with closing(self._http.send(request, stream=True)) as response:
                if response.status_code != 200:
                    yield answer(response, bytearray(response.read()))
                    return
                for chunk in response.iter_bytes():
                    yield chunk
                    silence.renew()
        except httpx2.RequestError as error:
            self._require_open(call)
            yield silent(self.silence_s, error) if silence.passed() else lost(error, self._base)
            return
        # A body without a length ends well where its connection is shut down.
        self._require_open(call)


def _pieces(file: IO[bytes], silence: Deadline) -> Generator[bytes, None, None]:
    while piece := file.read(PIECE_BYTES):
        silence.renew()
        yield piece
    silence.renew()
