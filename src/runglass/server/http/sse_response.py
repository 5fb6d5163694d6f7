"""Events as an HTTP answer that goes on until there are no more or the client has left.

What is sent comes from the store, page by page and byte for byte; the frames around it are the business of
`wire/sse.py`.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol

from runglass.engine.scheduling.pacing import LARGE_MOVE_BYTES
from runglass.errors import RunPurged, RunUnreadable, StoreError
from runglass.server.http.open_responses import OpenResponses
from runglass.server.http.request_connection import RequestConnection
from runglass.server.http.response_stream import Headers, StreamedResponse
from runglass.wire.sse import PING, RETRY

log = logging.getLogger(__name__)

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Framed(Protocol):
    """A page of events that knows how it is sent."""

    @property
    def frames(self) -> bytes: ...


def event_stream(
    pages: AsyncGenerator[Framed, None],
    *,
    open_responses: OpenResponses,
    key_id: int | None = None,
    headers: Headers = (),
    at_end: Callable[[], None] | None = None,
) -> StreamedResponse:
    """The answer that sends `pages`, each in one write, and a ping for each that is empty.

    `at_end` is called once nothing more is sent, however that comes about.
    """
    return StreamedResponse(
        _frames(pages),
        headers=[*HEADERS, *headers],
        ended_by=partial(open_responses.ended_by, key_id=key_id),
        at_end=at_end,
    )


def sent_now(connection: RequestConnection, page: Framed) -> bool:
    """Whether the page could be sent without waiting, amid the stream; large ones wait for their turn.

    Raises ValueError for a page that cannot be framed.
    """
    frames = page.frames
    return len(frames) <= LARGE_MOVE_BYTES and connection.send_now(frames)


async def _frames(pages: AsyncGenerator[Framed, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pages):
        yield RETRY
        try:
            async for page in pages:
                yield page.frames or PING
        except (StoreError, RunUnreadable, ValueError) as error:
            # The status has been sent. The stream ends without its last event, so the client resumes, and
            # gives up where it comes to the same place again and again: an event that cannot be read.
            level = logging.INFO if isinstance(error, RunPurged) else logging.ERROR
            log.log(level, "an event stream broke off: %s", error)
