"""An answer that is sent part by part, as the parts come, while its caller may leave at any time."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext

from starlette.types import Receive, Scope, Send

from runglass.errors import APIError, RunPurged, RunUnreadable, StoreError
from runglass.server.http.request_connection import connection_of
from runglass.support.safe_text import printable

log = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]
EndedBy = Callable[[Callable[[], object]], AbstractContextManager[None]]


class StreamedResponse:
    """The ASGI answer that sends the parts until the last one, or until the caller has left.

    Parts that fail break it off without its end: a caller must not take it for the whole. `ended_by` is given
    what ends it in good order before. `at_end` is called once nothing more is sent, however that comes about.
    """

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        *,
        headers: Headers,
        status: int = 200,
        ended_by: EndedBy | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._parts = parts
        self._headers = headers
        self._status = status
        self._ended_by = ended_by or (lambda _: nullcontext())
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = list(self._headers)
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
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
            connection_of(scope).cut_off()

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
