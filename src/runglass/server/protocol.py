"""HTTP on one connection: uvicorn's protocol, with a bound for everything that a caller may send.

uvicorn and its parser take heads of any size, any number of them ahead of their answers, and as long as they
like. What is refused here has not reached the application; it gets an answer in the usual shape, and the
connection ends. Nothing of a refused head is kept.
"""

import asyncio
import re
import uuid
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from runglass.errors import APIError, FlowExecutionError
from runglass.server.answers import JSON, error_body, error_headers
from runglass.server.door import Door, network_of
from runglass.server.writing import Joining

HEALTH = b"/health"

MOST_AHEAD = 16
"""Requests that may wait on one connection for the answers before them."""

LINGER_BYTES = 16 << 20
"""How much a refused caller may still send before the connection is cut."""

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")


class Protocol(HttpToolsProtocol):
    """uvicorn's, behind a door, over a transport that joins head and body."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self.since = 0.0
        self.body_bytes = 0
        self._door = door
        self._settings = door.settings
        self._fed_bytes = 0
        """Of the head that is not complete; within a body, since its last byte of content."""
        self._in_body = False
        self._upgraded_body_bytes = 0
        """Of a body that is read here, as the parser takes no more of a request that asks for an upgrade."""
        self._refusal: APIError | None = None
        self._ended = False
        """Nothing that comes is read any more."""
        self._ignored_bytes = 0
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, Joining(transport, self.loop)))
        self.address = network_of(self.client[0]) if self.client else ""
        self._door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        self._abandon(self._answering)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self._ended:
            self._ignore(data)
            return
        if self._upgraded_body_bytes:
            data = self._read_upgraded(data)
        self._fed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # No upgrade is offered, so it is a request like any other, whose body is still in `data`.
            self._fed_bytes = 0
            self.data_received(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal or _invalid("the request is not valid HTTP/1.1"))
            return
        if self._fed_bytes or self._in_body:
            self._wait_for_more()

    def on_message_begin(self) -> None:
        self._fed_bytes = self._fed_bytes or 1
        if len(self.pipeline) >= MOST_AHEAD:
            self._raise(_invalid(f"more than {MOST_AHEAD} requests were sent ahead of their answers"))
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self.url += url
        limit = self._settings.url_limit_bytes
        if len(self.url) > limit:
            self._raise(_too_large(414, f"the URL is longer than url_limit_bytes={limit:,}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            # Trailers: nobody asks for them, and they must not pass for headers.
            return
        if len(self.headers) >= self._settings.header_count_limit:
            limit = self._settings.header_count_limit
            self._raise(_too_large(431, f"the request has more headers than header_count_limit={limit}"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        fault = self._fault(version)
        if fault is not None:
            self._raise(fault)
        first = self._answering is None
        if first:
            try:
                self._door.begin(self, always=self.url.partition(b"?")[0] == HEALTH)
            except APIError as error:
                self._raise(error)
        super().on_headers_complete()
        if first:
            self._answering = self.cycle
        self._fed_bytes, self._in_body, self.body_bytes = 0, True, 0

    def on_body(self, body: bytes) -> None:
        self._fed_bytes = 0
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            self._upgraded_body_bytes = _content_length(self.headers)
            if self._upgraded_body_bytes:
                return
        self._end_body()

    def on_response_complete(self) -> None:
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self._answering is not None:
            return
        self._door.rest(self)
        if self._ended:
            self._send_refusal()

    def reading_is_paused(self) -> bool:
        return self.flow.read_paused

    def unsent_bytes(self) -> int:
        return cast(Joining, self.transport).unsent_bytes

    def taken_bytes(self) -> int:
        return cast(Joining, self.transport).taken_bytes

    def abort(self) -> None:
        self.transport.abort()

    def end_late_head(self) -> None:
        """Ends a connection whose next head takes too long; without a word where none was begun."""
        if not self._fed_bytes:
            self.transport.close()
            return
        limit = self._settings.head_time_limit_s
        self._refuse(_late(f"the head of the request was not complete after head_time_limit_s={limit:g}"))

    def end_late_body(self) -> None:
        """Ends a connection whose body takes too long."""
        limit, rate = self._settings.body_time_limit_s, self._settings.min_body_bytes_per_s
        self._refuse(
            _late(
                f"the body of the request was not complete after body_time_limit_s={limit:g} and a second"
                f" more for each min_body_bytes_per_s={rate:,} that came"
            )
        )

    def _fault(self, version: str) -> APIError | None:
        """What is wrong with a complete head, if anything is."""
        limit = self._settings.head_limit_bytes
        # What came with the head counts in; so the exact sum is needed next to never.
        if self._fed_bytes > limit:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > limit:
                return _large_head(limit)
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1 and (hosts or version != "1.0"):
            return _invalid(f"the request must have one Host header, not {len(hosts)}")
        if hosts and not _HOST.fullmatch(hosts[0]):
            return _invalid("the Host header is not the name of a host")
        if version not in ("1.1", "1.0"):
            return _invalid("this server speaks HTTP/1.1")
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or version == "1.0" or self.parser.should_upgrade()):
            return _invalid("of transfer encodings this server knows `chunked` alone, in HTTP/1.1")
        return None

    def _raise(self, refusal: APIError) -> None:
        # Out of the parser, which ends there and then; it raises an error of its own.
        self._refusal = refusal
        raise refusal

    def _wait_for_more(self) -> None:
        limit = self._settings.head_limit_bytes
        if self._fed_bytes > limit:
            if self._in_body:
                refusal = _too_large(
                    431, f"chunk headers and trailers are larger than head_limit_bytes={limit:,}"
                )
            else:
                refusal = _large_head(limit)
            self._refuse(refusal)
        elif not self._in_body:
            self._door.head_goes_on(self, self._fed_bytes)
        elif self.body_bytes > self._settings.body_limit_bytes and self.cycle.response_complete:
            # Answered long ago, and still the body comes: it is read no further.
            self._leave()
        else:
            self._door.body_goes_on(self)

    def _end_body(self) -> None:
        self._fed_bytes, self._in_body = 0, False
        self._door.body_ends(self)
        super().on_message_complete()

    def _read_upgraded(self, data: bytes) -> bytes:
        body, rest = data[: self._upgraded_body_bytes], data[self._upgraded_body_bytes :]
        self._upgraded_body_bytes -= len(body)
        if body:
            self.on_body(body)
        if not self._upgraded_body_bytes:
            self._end_body()
        return rest

    def _refuse(self, refusal: APIError) -> None:
        """Ends the reading. The answers owed before go first, then the refusal, then the connection."""
        self._door.refused(refusal)
        self._refusal, self._ended = refusal, True
        if self._in_body:
            # It is the newest request that is wrong.
            cycle = self.pipeline.popleft()[0] if self.pipeline else self.cycle
            if cycle.response_complete:
                self._refusal = None
            elif cycle is self._answering:
                self._answering = None
                started = cycle.response_started
                self._abandon(cycle)
                if started:
                    # Its answer is half sent, and no other can follow.
                    self.transport.close()
                    return
        if self._answering is None:
            self._send_refusal()

    def _send_refusal(self) -> None:
        if self._refusal is not None and not self.transport.is_closing():
            self.transport.write(_answer_of(self._refusal, self.server_state.default_headers))
        self._leave()

    def _leave(self) -> None:
        """Ends the connection once the caller has taken the last answer."""
        self._ended = True
        if self.transport.is_closing():
            return
        self.parser = None  # type: ignore[assignment]
        self.headers, self.url = [], b""
        self._door.linger(self)
        self.flow.resume_reading()
        self.transport.write_eof()

    def _ignore(self, data: bytes) -> None:
        self._ignored_bytes += len(data)
        if self._ignored_bytes > LINGER_BYTES:
            self.transport.abort()

    @staticmethod
    def _abandon(cycle: RequestResponseCycle | None) -> None:
        """Tells the application that its caller has left."""
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()


def _content_length(headers: list[tuple[bytes, bytes]]) -> int:
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _answer_of(error: APIError, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    body = error_body(error)
    headers = {
        "content-type": JSON,
        "content-length": str(len(body)),
        "x-request-id": str(uuid.uuid4()),
        **error_headers(error),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    lines += [b"%b: %b" % header for header in default_headers]
    lines += [f"{name.lower()}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])


def _invalid(message: str) -> APIError:
    return FlowExecutionError(message, code="INVALID_REQUEST", status=400)


def _late(message: str) -> APIError:
    return FlowExecutionError(message, code="INVALID_REQUEST", status=408)


def _too_large(status: int, message: str) -> APIError:
    return FlowExecutionError(message, code="REQUEST_TOO_LARGE", status=status)


def _large_head(limit: int) -> APIError:
    return _too_large(431, f"URL and headers of the request are larger than head_limit_bytes={limit:,}")
