"""The connections of a server, and what each may cost before, between and after its requests.

A `Connection` stands in front of uvicorn's own protocol, which it makes and leaves as it is: it parses what
comes for the limits alone, and passes on what keeps them. What is refused here has not reached uvicorn.

Connections without a request under way are only kept while there is room. Else the one that has waited
longest is cut, where the time of those that had none so far counts tenfold: a flood of them displaces itself.
"""

import asyncio
import math
import re
import time
from collections.abc import Callable
from typing import Any, cast

import httptools

from runglass.config.settings import Settings
from runglass.errors import APIError
from runglass.server.http.error_responses import answer_of, invalid, late, too_large
from runglass.server.http.exchange import CONNECTION, JoiningTransport

MOST_HEADERS, SMALL_BYTES, PART_BYTES = 100, 4096, 64 << 10
"""The most headers of a request, those of a small one uncounted, and the most that is parsed in one go."""
RESERVE, MOST_HELD, MOST_AHEAD = 16, 1000, 16
"""Connections beyond the limit, of `/health` and of requests that still come; heads that are incomplete for a
second or more; requests of one connection, with those that wait for the responses before them."""
LINGER_S, LINGER_BYTES = 2.0, 16 << 20
"""What may come after a refusal until the connection is cut. Closing it at once may lose the response."""
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:[^\r\n]*", re.IGNORECASE)


class Connections:
    """All connections of a server, of which `limit` may have a request under way, and tasks of requests."""

    def __init__(self, settings: Settings, limit: int) -> None:
        self.settings, self.limit, self.now = settings, limit, 0.0
        """`now`, in seconds, stands still while the event loop does: a stall makes no caller late."""
        self.open, self.tasks = set[Connection](), set[asyncio.Task[Any] | None]()
        self.waiting, self.new = dict[Connection, None](), dict[Connection, None]()
        """Those without a request under way, and of these those that had none, the oldest first."""

    def is_full(self) -> bool:
        """Whether more have a request under way than may."""
        return len(self.open) - len(self.waiting) > self.limit

    def make_room(self) -> None:
        """Cuts the connection that is needed least."""
        now, oldest, new = time.monotonic(), next(iter(self.waiting)), next(iter(self.new), None)
        if new is not None and now - oldest.since <= 10 * (now - new.since):
            oldest = new
        oldest.cut()

    async def watch(self) -> None:
        """Ends what takes too long, until it is cancelled."""
        settings, clock = self.settings, asyncio.get_running_loop().time
        tick_s = max(min(settings.head_time_limit_s, settings.body_time_limit_s, 8.0) / 8, 0.02)
        while True:
            before = clock()
            await asyncio.sleep(tick_s)
            self.check(min(clock() - before, 2 * tick_s))

    def check(self, passed_s: float) -> None:
        """Checks all limits, `passed_s` after the check before."""
        self.now += passed_s
        for connection in list(self.open):
            connection.check(passed_s)
        for connection in [each for each in self.waiting if each.held][:-MOST_HELD]:
            connection.cut()


class Connection(asyncio.Protocol):
    """One connection, in front of the protocol of uvicorn that answers its requests."""

    def __init__(self, connections: Connections, of_uvicorn: Callable[..., Any], **given: Any) -> None:
        # uvicorn puts a copy of the state into the scope of each request.
        given["app_state"] = {**given["app_state"], CONNECTION: self}
        self._uvicorn = of_uvicorn(**given)
        self.pause_writing = self._uvicorn.pause_writing  # type: ignore[method-assign]
        self.resume_writing = self._uvicorn.resume_writing  # type: ignore[method-assign]
        self.connections, self.since = connections, time.monotonic()
        self.held = b""
        """What has come of a head that is not complete, none of which uvicorn has."""
        self.is_lost = self.is_beyond = False
        """Whether the caller has left, or came when too many others were busy."""
        self.on_loss: list[Callable[[], object]] = []
        """What is called once the connection is lost."""
        self._parser = self._new_parser()
        self._part, self._url, self._unsent = "none", b"", (0, 0.0)
        self._is_over = self._has_got_on = False
        # Requests under way; bytes since the last complete head or content of a body, and behind a response.
        self._requests = self._idle_bytes = self._late_bytes = self.responses = 0
        self._deadline = connections.now + connections.settings.head_time_limit_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.writer = JoiningTransport(self._transport)
        self._uvicorn.connection_made(self.writer)
        self.connections.open.add(self)
        self.connections.waiting[self] = self.connections.new[self] = None
        if len(self.connections.open) > self.connections.limit + RESERVE:
            self.connections.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.open.discard(self)
        self.connections.waiting.pop(self, None)
        self.connections.new.pop(self, None)
        self._lose(exc)

    def data_received(self, data: bytes) -> None:
        # In parts: what is bounded cannot hide behind the rest of what was read at once.
        for start in range(0, len(data), PART_BYTES):
            if self._is_over:
                self._idle_bytes += len(data)
                if self._idle_bytes > LINGER_BYTES:
                    self.cut()
                return
            before = self._part, self._requests
            try:
                if passed_on := self._within_limits(data[start : start + PART_BYTES]):
                    self._uvicorn.data_received(passed_on)
                    if self._part == "none" and self._requests == 1:
                        # Behind a whole body nothing has to wait for the application, which asks for no more
                        # of it: uvicorn would not hear that the caller leaves.
                        self._uvicorn.flow.resume_reading()
            except APIError as refusal:
                # Nothing of the part has reached uvicorn, which itself raises none.
                self._part, self._requests = before
                self._refuse(refusal)

    def _within_limits(self, data: bytes) -> bytes:
        """What uvicorn gets: the data, with what was held before. Raises APIError where it is too much."""
        settings, part, requests = self.connections.settings, self._part, self._requests
        limit, whole = settings.head_limit_bytes, self.held + data
        if part != "body" and len(whole) > SMALL_BYTES:
            end = whole.find(b"\r\n\r\n")
            if len(whole) > limit and not 0 <= end <= limit:
                raise too_large(f"URL and headers of the request are larger than head_limit_bytes={limit:,}")
            if whole.count(b"\n", 0, end) > MOST_HEADERS:
                raise too_large(f"the request has more than {MOST_HEADERS} headers")
        self._has_got_on = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if part == "body" or self._requests != requests + 1:
                raise invalid("a request for an upgrade cannot follow another one") from upgrade
            # None is offered, so the request is an ordinary one. Java's client asks for HTTP/2 with each.
            end = len(self.held) + upgrade.args[0]
            self._parser = self._new_parser()
            self._part, self._requests, self.held = "none", requests, b""
            return self._within_limits(_UPGRADE.sub(b"", whole[:end]) + whole[end:])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, APIError):
                raise error.__context__ from None
            raise invalid("the request is not valid HTTP/1.1") from error
        if part == "body":
            self._deadline += len(data) / settings.min_body_bytes_per_s
        elif not self._has_got_on and (part == "none" or self.held):
            self.held = whole if self._part == "head" else b""
            return b""
        self._idle_bytes = 0 if self._has_got_on else self._idle_bytes + len(data)
        # A body whose response is complete is read to its end, so that the connection can be used again.
        self._late_bytes = 0 if self._requests else self._late_bytes + len(data)
        if self._idle_bytes > limit or self._late_bytes > settings.body_limit_bytes:
            raise too_large(f"chunk headers and trailers are larger than head_limit_bytes={limit:,}")
        self.held = b""
        return whole

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # As in uvicorn: the last request is answered, whatever follows it.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def on_message_begin(self) -> None:
        self._part, self._url = "head", b""
        self._deadline = self.connections.now + self.connections.settings.head_time_limit_s

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_headers_complete(self) -> None:
        if self._parser.get_method() == b"CONNECT":
            raise invalid("this server is no proxy: CONNECT is not for it")
        if self._requests >= MOST_AHEAD:
            raise invalid(f"more than {MOST_AHEAD} requests were sent ahead of their answers")
        if not (self._url.startswith(b"/") and self._url.isascii()):
            # As uvicorn reads it. Whatever is raised here stops the parser.
            httptools.parse_url(self._url).path.decode("ascii")
        self._requests += 1
        self.connections.waiting.pop(self, None)
        self.connections.new.pop(self, None)
        self.is_beyond = self.connections.is_full()
        self._part, self._has_got_on = "body", True
        self._deadline = self.connections.now + self.connections.settings.body_time_limit_s

    def on_body(self, _body: bytes) -> None:
        self._has_got_on = True

    def on_message_complete(self) -> None:
        self._part, self._has_got_on, self._deadline = "none", True, math.inf

    def request_ended(self, *, is_answered: bool) -> None:
        """Counts a request as under way no longer, and its response if that had begun."""
        self._requests -= 1
        self.responses -= is_answered
        if not (self._requests or self.is_lost):
            self.connections.waiting[self], self.since = None, time.monotonic()

    def cut_off(self) -> None:
        """Ends the connection amid a response; what is written of it is sent."""
        self._lose(ConnectionResetError())
        self._transport.close()

    def cut(self) -> None:
        """Ends the connection at once."""
        self.connection_lost(ConnectionResetError())
        self._transport.abort()

    def check(self, passed_s: float) -> None:
        """Ends the connection if it takes too long, `passed_s` after the check before."""
        now, settings = self.connections.now, self.connections.settings
        unsent = self._transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent[0]:
            self._unsent = (unsent, now)
        takes_nothing = now - self._unsent[1] > settings.stalled_write_limit_s
        if takes_nothing or (self._is_over and now > self._deadline):
            self.cut()
        elif now > self._deadline and not self._transport.is_reading():
            # The caller is not the slow one.
            self._deadline += passed_s
        elif now > self._deadline and self._part == "none":
            # Browsers open connections in advance: a response to no request would pass for the next one's.
            self._transport.close()
        elif now > self._deadline:
            limit = f"head_time_limit_s={settings.head_time_limit_s:g}"
            if self._part == "body":
                rate = f"min_body_bytes_per_s={settings.min_body_bytes_per_s:,}"
                limit = f"body_time_limit_s={settings.body_time_limit_s:g} and a second more for each {rate}"
            self._refuse(late(f"the {self._part} of the request was not complete after {limit}"))

    def _lose(self, error: Exception | None) -> None:
        if not self.is_lost:
            self.is_lost = True
            for call in list(self.on_loss):
                call()
            self._uvicorn.connection_lost(error)

    def _refuse(self, refusal: APIError) -> None:
        """Ends the connection, and says why where that cannot pass for the response to another request."""
        self._is_over, self._idle_bytes, self.held = True, 0, b""
        self._deadline = self.connections.now + LINGER_S
        self.connections.waiting[self] = None
        self._lose(ConnectionResetError())
        if not self._transport.is_closing():
            if self._requests == (self._part == "body") and not self.responses:
                self._transport.write(answer_of(refusal))
            self._transport.resume_reading()
            self._transport.write_eof()
