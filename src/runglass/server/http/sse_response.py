"""A run's events as an HTTP answer that goes on until the run has ended or the client has left.

What is sent comes from the log, page by page and byte for byte; the frames around it are `sse.py`'s business.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from runglass.errors import RunPurged, RunUnreadable, StoreError
from runglass.log_tail import Page
from runglass.server.http.open_responses import OpenResponses
from runglass.sse import PING, RETRY

log = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """The ASGI answer that sends `pages`, each in one write, and a ping for each that is empty.

    `at_end` is called once nothing more is sent, however that comes about.
    """

    def __init__(
        self,
        pages: AsyncGenerator[Page, None],
        *,
        ongoing: OpenResponses,
        key_id: int | None = None,
        headers: Headers = (),
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._pages = pages
        self._ongoing = ongoing
        self._key_id = key_id
        self._headers = [*HEADERS, *headers]
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(caller_left(receive))
        with self._ongoing.ended_by(writing.cancel, key_id=self._key_id):
            try:
                await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (writing, leaving):
                    task.cancel()
                await asyncio.gather(writing, leaving, return_exceptions=True)
                if self._at_end is not None:
                    self._at_end()
        if not writing.cancelled():
            writing.result()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        # Closed by hand: a generator left to the garbage collector would keep its place until then.
        async with aclosing(self._pages):
            await send_part(send, RETRY)
            try:
                async for page in self._pages:
                    await send_part(send, page.frames or PING)
            except (StoreError, RunUnreadable, ValueError) as error:
                # The status has been sent. The stream ends without its last event, so the client resumes, and
                # gives up where it comes to the same place again and again: an event that cannot be read.
                level = logging.INFO if isinstance(error, RunPurged) else logging.ERROR
                log.log(level, "an event stream broke off: %s", error)


async def send_part(send: Send, body: bytes) -> None:
    """Sends a part of an answer that goes on."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def caller_left(receive: Receive) -> None:
    """Returns when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
