"""A JSON answer that may be larger than the server wants to hold: sent part by part, as it is read.

Most answers are small, and those are one read and one write with a Content-Length.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runglass.errors import APIError, RunPurged, RunUnreadable, StoreError
from runglass.server.endpoint import JSON
from runglass.server.http.sse_response import caller_left, send_part

log = logging.getLogger(__name__)

PART_BYTES = 256 * 1024
"""About how much is read and sent at a time, and so the memory that an answer costs."""

Pages = AsyncGenerator[list[bytes], None]
Lasting = Callable[[AsyncGenerator[bytes, None]], AsyncGenerator[bytes, None]]


async def joined(opening: bytes, pages: Pages, closing: bytes, *, lasting: Lasting) -> ASGIApp:
    """The pages' members as one JSON array between `opening` and `closing`.

    The parts of an answer that is not sent at once go through `lasting`, which may break it off. So does a
    read that fails once the answer has begun: a body that ended in good order would pass for the whole.
    """
    first: list[bytes] = await anext(pages, [])
    second = await anext(pages, None)
    if second is None:
        return Response(b"%b[%b]%b" % (opening, b",".join(first), closing), media_type=JSON)
    return JsonStream(lasting(_parts(opening, first, second, pages, closing)))


class JsonStream:
    """The ASGI answer that sends the parts of a JSON text as they come.

    Where they break off, so does the answer, without its end: a caller must not take it for the whole.
    """

    def __init__(self, parts: AsyncGenerator[bytes, None]) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", JSON.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(caller_left(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
        if not writing.cancelled() and writing.result():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> bool:
        """Whether all parts were sent."""
        # Closed by hand: a generator left to the garbage collector would hold its part until then.
        async with aclosing(self._parts):
            try:
                async for part in self._parts:
                    await send_part(send, part)
            except (APIError, StoreError, RunUnreadable) as error:
                expected = isinstance(error, (APIError, RunPurged))
                log.log(logging.INFO if expected else logging.ERROR, "an answer broke off: %s", error)
                return False
        return True


async def _parts(
    opening: bytes, first: list[bytes], second: list[bytes], pages: Pages, closing: bytes
) -> AsyncGenerator[bytes, None]:
    yield b"%b[%b" % (opening, b",".join(first))
    yield b",%b" % b",".join(second)
    async for page in pages:
        yield b",%b" % b",".join(page)
    yield b"]%b" % closing
