"""HTTP on one connection: uvicorn's protocol, with a limit for each part of a request.

uvicorn and its parser accept heads of any size, any number of requests ahead of their responses, and wait for
them without end. A request that is refused here has not reached the application; it gets an error in the
usual shape, and the connection ends. No part of a refused head is kept.

More than 300 lines: the callbacks of one parser share the state of one connection.
"""

import asyncio
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from runglass.errors import APIError
from runglass.server.http.connection_limits import ConnectionLimiter
from runglass.server.http.error_responses import answer_of, invalid, large_head, late, too_large
from runglass.server.http.request_connection import EXTENSION, RequestConnection, connection_of
from runglass.server.http.request_framing import WATCHED, fault_of
from runglass.server.http.response_writer import HeadBufferingTransport, UnchunkedTransport

PROBES = (b"/health", b"/ready")

MOST_AHEAD = 16
"""The most requests that wait on one connection for the responses before them."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PROBE_S = 1.0
"""How long a half-closed connection waits for its response before it is probed; twice as long each time."""

LINGER_BYTES = 16 << 20
"""The most bytes that are read and dropped after a refusal before the connection is cut."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol within the limits of `ConnectionLimiter`; head and body leave in one write."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limiter: ConnectionLimiter,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.since = 0.0
        self.body_bytes = 0
        self.group = limiter.group_of("")
        self._limiter = limiter
        self._settings = limiter.settings
        self._header_count_limit = limiter.settings.header_count_limit
        self._watched: dict[bytes, list[bytes]] = {}
        self._sound: dict[bytes, list[bytes]] | None = None
        """The watched headers of the last request without a fault, as most callers repeat them."""
        self._fed_bytes = 0
        """Bytes fed of an incomplete head; within a body, bytes fed since its last byte of content."""
        self._in_body = False
        self._is_slow_body = False
        """Whether the limiter counts the time of the body."""
        self._upgraded_body_bytes = 0
        """Bytes left of a body that this class reads itself: the parser stops at a request for an upgrade."""
        self._refusal: APIError | None = None
        self._ended = False
        """Whether the connection is ending, so that no further bytes are read."""
        self._ignored_bytes = 0
        self._answering: RequestResponseCycle | None = None
        self._probe: asyncio.TimerHandle | None = None
        """The next probe of a half-closed connection."""
        self._is_for_health = False
        """Whether the request is a probe and so beyond the limits. The request behind it is not."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, HeadBufferingTransport(transport, self.loop)))
        self.group = self._limiter.group_of(self.client[0] if self.client else "")
        self._limiter.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limiter.remove(self)
        if self._probe is not None:
            self._probe.cancel()
        if self._answering is not None:
            _abandon(self._answering)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            self._ignore(data)
            return
        if self._upgraded_body_bytes:
            data = self._read_upgraded(data)
        self._fed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The server offers no upgrade, so the request is an ordinary one, whose body is still in `data`.
            self._fed_bytes = 0
            self.data_received(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or invalid("the request is not valid HTTP/1.1"))
            return
        if self._fed_bytes or self._in_body:
            self._wait_for_more()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open, as the caller may still read the responses that it is owed.

        Nothing tells that caller from one who has left. So a caller who closes amid a response, or amid a
        request, has left; before the response begins, probes find out.
        """
        cycle = self._answering
        if cycle is None or cycle.response_started or self._ended or self._in_body or self._fed_bytes:
            return False
        self.cycle.keep_alive = False
        self._probe_after(PROBE_S)
        return True

    def _probe_after(self, seconds: float) -> None:
        self._probe = self.loop.call_later(seconds, self._send_probe, seconds)

    def _send_probe(self, waited_s: float) -> None:
        # A caller who has left resets the connection, which the write after that finds out. HTTP/1.0 has no
        # response that could be sent ahead of the real one.
        cycle = self._answering
        if cycle is not None and not cycle.response_started and cycle.scope["http_version"] != "1.0":
            self.transport.write(CONTINUE)
            self._probe_after(2 * waited_s)

    def on_message_begin(self) -> None:
        self._fed_bytes = self._fed_bytes or 1
        if len(self.pipeline) >= MOST_AHEAD:
            self._raise(invalid(f"more than {MOST_AHEAD} requests were sent ahead of their answers"))
        self._watched = {}
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self.url += url
        limit = self._settings.url_limit_bytes
        if len(self.url) > limit:
            self._raise(too_large(414, f"the URL is longer than url_limit_bytes={limit:,}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            # These are trailers. The application does not use them, and they must not pass for headers.
            return
        limit = self._header_count_limit
        if len(self.headers) >= limit:
            self._raise(too_large(431, f"the request has more headers than header_count_limit={limit}"))
        name = name.lower()
        if name in WATCHED:
            self._watched.setdefault(name, []).append(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        limit = self._settings.head_limit_bytes
        # What was fed includes the head, so that the exact sum, which costs more, is hardly ever needed.
        if self._fed_bytes > limit:
            headers_bytes = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if len(self.url) + headers_bytes > limit:
                self._raise(large_head(limit))
        if self.parser.get_method() == b"CONNECT":
            # To the parser the bytes after this head are no body but a tunnel, in which another request could
            # hide.
            self._raise(invalid("this server is no proxy: CONNECT is not for it"))
        watched, version = self._watched, self.parser.get_http_version()
        if watched != self._sound or version != "1.1":
            self._check_watched(version)
        if b"expect" in watched:
            self.expect_100_continue = version != "1.0" and watched[b"expect"][0].lower() == b"100-continue"
        first = self._answering is None
        try:
            if first:
                self._is_for_health = self.url.startswith(PROBES) and self.url.partition(b"?")[0] in PROBES
                self._limiter.begin(self, always=self._is_for_health)
            elif self._is_for_health:
                self._limiter.begin_next(self)
        except APIError as error:
            self._raise(error)
        super().on_headers_complete()
        if version == "1.0":
            self.cycle.transport = cast(asyncio.Transport, UnchunkedTransport(self.transport))
        self.scope["extensions"] = {EXTENSION: RequestConnection(self.cycle)}  # type: ignore[dict-item]
        if first:
            self._answering = self.cycle
        self._fed_bytes, self._in_body, self.body_bytes = 0, True, 0

    def on_body(self, body: bytes) -> None:
        self._fed_bytes = 0
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if b"upgrade" in self._watched and self.parser.should_upgrade():
            lengths = (value for name, value in self.headers if name == b"content-length")
            self._upgraded_body_bytes = int(next(lengths, b"0"))
            if self._upgraded_body_bytes:
                return
        self._end_body()

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            self._answering = self.pipeline[-1][0] if self.pipeline else None
            super().on_response_complete()
            if self._answering is not None:
                return
        else:
            # As in uvicorn, but without its timer: the limiter counts how long a connection is idle.
            self._answering = None
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        self._limiter.end_request(self)
        if self._ended:
            self._send_refusal()
        elif self._in_body and self.expect_100_continue and not self.body_bytes:
            # The caller got no `100 Continue`, so it may send the body, or the next request in its place.
            self._leave()

    def reading_is_paused(self) -> bool:
        return self.flow.read_paused

    def unsent_bytes(self) -> int:
        return cast(HeadBufferingTransport, self.transport).unsent_bytes

    def taken_bytes(self) -> int:
        return cast(HeadBufferingTransport, self.transport).taken_bytes

    def abort(self) -> None:
        self.transport.abort()

    def end_idle(self) -> None:
        """Ends a connection that has been idle for too long."""
        self.transport.close()

    def end_late_head(self) -> None:
        """Ends a connection whose next head takes too long; without a response where no head was begun."""
        if not self._fed_bytes:
            self.transport.close()
            return
        limit = self._settings.head_time_limit_s
        self._refuse(late(f"the head of the request was not complete after head_time_limit_s={limit:g}"))

    def end_late_body(self) -> None:
        """Ends a connection whose body takes too long."""
        limit, rate = self._settings.body_time_limit_s, self._settings.min_body_bytes_per_s
        self._refuse(
            late(
                f"the body of the request was not complete after body_time_limit_s={limit:g} and a second"
                f" more for each min_body_bytes_per_s={rate:,} that came"
            )
        )

    def _check_watched(self, version: str) -> None:
        watched = self._watched
        upgrades = b"upgrade" in watched and self.parser.should_upgrade()
        fault = fault_of(version, watched, upgrades=upgrades)
        if fault is not None:
            self._raise(invalid(fault))
        self._sound = None if b"upgrade" in watched or version != "1.1" else watched

    def _raise(self, refusal: APIError) -> None:
        # The exception stops the parser at once; the parser then raises an error of its own.
        self._refusal = refusal
        raise refusal

    def _wait_for_more(self) -> None:
        limit = self._settings.head_limit_bytes
        if self._fed_bytes > limit:
            if self._in_body:
                refusal = too_large(
                    431, f"chunk headers and trailers are larger than head_limit_bytes={limit:,}"
                )
            else:
                refusal = large_head(limit)
            self._refuse(refusal)
        elif not self._in_body:
            self._limiter.head_goes_on(self, self._fed_bytes)
        elif self.body_bytes > self._settings.body_limit_bytes and self.cycle.response_complete:
            # The response was sent long ago and the body still comes, so it is read no further.
            self._leave()
        else:
            self._is_slow_body = True
            self._limiter.body_goes_on(self)

    def _end_body(self) -> None:
        self._fed_bytes, self._in_body = 0, False
        if self._is_slow_body:
            self._is_slow_body = False
            self._limiter.body_ends(self)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def _read_upgraded(self, data: bytes) -> bytes:
        body, rest = data[: self._upgraded_body_bytes], data[self._upgraded_body_bytes :]
        self._upgraded_body_bytes -= len(body)
        if body:
            self.on_body(body)
        if not self._upgraded_body_bytes:
            self._end_body()
        return rest

    def _refuse(self, refusal: APIError) -> None:
        """Stops reading, sends the responses to earlier requests and the refusal, and ends the connection."""
        self._limiter.refused(refusal)
        self._refusal, self._ended = refusal, True
        self.parser = None  # type: ignore[assignment]
        self.headers, self.url, self._watched = [], b"", {}
        if self._in_body:
            # The refusal is for the newest request.
            cycle = self.pipeline.popleft()[0] if self.pipeline else self.cycle
            if cycle.response_complete:
                self._refusal = None
            elif cycle is self._answering:
                self._answering = None
                started = cycle.response_started
                _abandon(cycle)
                if started:
                    # The response to it is half sent, and no other can follow.
                    self.transport.close()
                    return
        if self._answering is None:
            self._send_refusal()

    def _send_refusal(self) -> None:
        if self._refusal is not None and not self.transport.is_closing():
            self.transport.write(answer_of(self._refusal, self.server_state.default_headers))
        self._leave()

    def _leave(self) -> None:
        """Ends the connection once the caller has taken the last response."""
        self._ended = True
        if self.transport.is_closing():
            return
        self._limiter.linger(self)
        self.flow.resume_reading()
        self.transport.write_eof()

    def _ignore(self, data: bytes) -> None:
        self._ignored_bytes += len(data)
        if self._ignored_bytes > LINGER_BYTES:
            self.transport.abort()


def _abandon(cycle: RequestResponseCycle) -> None:
    connection_of(cast(Scope, cycle.scope)).lose()
