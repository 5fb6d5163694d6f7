"""An answer that is sent part by part, as the parts come, while its caller may leave at any time.

Such an answer is a JSON text that may be larger than the server wants to hold, or events until there are no
more. What is sent comes from the store, byte for byte; the frames around events are the business of
`wire/sse.py`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from functools import partial
from typing import Protocol

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runglass.errors import APIError, RunPurged, RunUnreadable, StoreError
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.http.exchange import exchange_of
from runglass.server.http.open_responses import key_revoked
from runglass.support.safe_text import printable
from runglass.wire.sse import PING, RETRY

log = logging.getLogger(__name__)

PART_BYTES = 256 * 1024
"""About how much is read and sent at a time, and so the memory that an answer costs."""

EndedBy = Callable[[Callable[[], object]], AbstractContextManager[None]]
Pages = AsyncGenerator[list[bytes], None]


class StreamedResponse:
    """The ASGI answer that sends the parts until the last one, or until the caller has left.

    Parts that fail break it off without its end: a caller must not take it for the whole. `ended_by` is given
    what ends it in good order before. `at_end` is called once nothing more is sent, however that comes about.
    """

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str],
        status: int = 200,
        ended_by: EndedBy | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._parts = parts
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._status = status
        self._ended_by = ended_by or (lambda _: nullcontext())
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        write_task = asyncio.create_task(self._write(scope, send))
        leave_task = asyncio.create_task(_caller_left(receive))
        with self._ended_by(write_task.cancel):
            try:
                await asyncio.wait({write_task, leave_task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (write_task, leave_task):
                    task.cancel()
                await asyncio.gather(write_task, leave_task, return_exceptions=True)
                if self._at_end is not None:
                    self._at_end()
        if write_task.cancelled() or write_task.result():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            exchange_of(scope).cut_off()

    async def _write(self, scope: Scope, send: Send) -> bool:
        """Whether all parts were sent."""
        # Closed by hand: a generator left to the garbage collector would keep its place until then.
        async with aclosing(self._parts):
            try:
                async for part in self._parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except (APIError, StoreError, RunUnreadable) as error:
                expected = isinstance(error, (APIError, RunPurged))
                log.log(logging.INFO if expected else logging.ERROR, "%s: %s", cut_off_text(scope), error)
                return False
        return True


def cut_off_text(scope: Scope) -> str:
    """The line of the log for a response that is cut off."""
    asked = f"{scope['method']} {printable(scope['path'])}"
    return f"request {scope['state']['request_id']}: the answer to {asked} was cut off"


async def _caller_left(receive: Receive) -> None:
    """Returns when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def joined(request: ApiRequest, opening: bytes, pages: Pages, closing: bytes) -> ASGIApp:
    """The pages' members as one JSON array between `opening` and `closing`.

    Most answers are small, and those are one read and one write with a Content-Length.
    """
    first: list[bytes] = await anext(pages, [])
    second = await anext(pages, None)
    if second is None:
        return Response(b"%b[%b]%b" % (opening, b",".join(first), closing), media_type=JSON)
    return json_stream(request, _parts(opening, first, second, pages, closing))


def json_stream(
    request: ApiRequest,
    parts: AsyncGenerator[bytes, None],
    *,
    headers: Mapping[str, str] = {},  # never changed
    status: int = 200,
) -> StreamedResponse:
    """The answer that sends the parts of a JSON text, or of a file, as long as its key is good."""
    headers = {"content-type": JSON, **headers}
    return StreamedResponse(_while_allowed(request, parts), headers=headers, status=status)


async def _while_allowed(
    request: ApiRequest, parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The parts. Raises UNAUTHENTICATED, which breaks the answer off, once its key is revoked."""
    open_responses, key_id = request.services.open_responses, request.auth.id
    async with aclosing(parts):
        # Registering makes the server look for the revocation of this key. There is nothing to call at the
        # end, as the loop below checks the key before each part.
        with open_responses.ended_by(lambda: None, key_id=key_id):
            async for part in parts:
                if open_responses.is_revoked(key_id):
                    raise key_revoked("")
                yield part


async def _parts(
    opening: bytes, first: list[bytes], second: list[bytes], pages: Pages, closing: bytes
) -> AsyncGenerator[bytes, None]:
    yield b"%b[%b" % (opening, b",".join(first))
    yield b",%b" % b",".join(second)
    async for page in pages:
        yield b",%b" % b",".join(page)
    yield b"]%b" % closing


HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}


class Framed(Protocol):
    """A page of events that knows how it is sent."""

    @property
    def frames(self) -> bytes: ...


def event_stream(
    request: ApiRequest,
    pages: AsyncGenerator[Framed, None],
    *,
    headers: Mapping[str, str] = {},  # never changed
    at_end: Callable[[], None] | None = None,
) -> StreamedResponse:
    """The answer that sends `pages`, each in one write, and a ping for each that is empty.

    `at_end` is called once nothing more is sent, however that comes about.
    """
    return StreamedResponse(
        _frames(pages),
        headers={**HEADERS, **headers},
        ended_by=partial(request.services.open_responses.ended_by, key_id=request.auth.id),
        at_end=at_end,
    )


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
            log.log(level, "an event stream was aborted: %s", error)
