"""A run's events as an HTTP answer that goes on until the run has ended or the client has left.

What is sent comes from the log, page by page and byte for byte; the frames around it are `sse.py`'s business.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

from litestar.types import Receive, Scope, Send

from runglass.errors import StoreError
from runglass.events import event_type_of
from runglass.server.ongoing import Ongoing
from runglass.sse import PING, RETRY, frames
from runglass.tail import Page

log = logging.getLogger(__name__)

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """The ASGI answer that sends `pages`, each in one write, and a ping after `ping_s` seconds of silence."""

    def __init__(self, pages: AsyncGenerator[Page, None], *, ping_s: float, ongoing: Ongoing) -> None:
        self._pages = pages
        self._ping_s = ping_s
        self._ongoing = ongoing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_left(receive))
        with self._ongoing.ended_by(writing.cancel):
            try:
                await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (writing, leaving):
                    task.cancel()
                await asyncio.gather(writing, leaving, return_exceptions=True)
        if not writing.cancelled():
            writing.result()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        # Closed by hand: a generator left to the garbage collector would keep its listener until then.
        async with aclosing(self._pages):
            await _send_part(send, RETRY)
            written_at_s = clock()
            try:
                async for page in self._pages:
                    if page:
                        await _send_part(
                            send, frames([(seq, event_type_of(data), data) for seq, data in page])
                        )
                    elif clock() - written_at_s >= self._ping_s:
                        await _send_part(send, PING)
                    else:
                        continue
                    written_at_s = clock()
            except StoreError as error:
                # The status has been sent. The stream ends without its last event, so the client resumes.
                log.error("an event stream broke off: %s", error)  # noqa: TRY400


async def _send_part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def poll_interval_s(*, poll_s: float, ping_s: float) -> float:
    """The longest interval up to `poll_s` that divides `ping_s`, so that pings are not late by a poll."""
    return ping_s / math.ceil(ping_s / poll_s)
