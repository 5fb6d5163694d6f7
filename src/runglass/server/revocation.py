"""What a caller is told whose key is revoked while its answer is being given.

Keys are looked up for each request, so what is left to end are the answers that take their time: streams end
by themselves (`stream.py`), here are calls that wait and bodies that are sent part by part.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from runglass.errors import APIError, api_error
from runglass.server.auth import Asked
from runglass.server.ongoing import Ongoing

T = TypeVar("T")
Part = TypeVar("Part")

GOES_ON = "the run itself goes on"
STILL_PAUSED = "the run is paused as before"


async def while_allowed(
    request: Asked, run_id: str, work: Coroutine[Any, Any, T], *, otherwise: str = GOES_ON
) -> T:
    """What `work` comes to, which is cancelled when the server is stopped or the key is revoked.

    Raises UNAVAILABLE, and UNAUTHENTICATED, which says what becomes of the run `otherwise`.
    """
    ongoing, key_id = ongoing_of(request), request.auth.id
    task = asyncio.create_task(work)
    with ongoing.ended_by(task.cancel, key_id=key_id):
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
    if not task.cancelled():
        return task.result()
    if ongoing.is_revoked(key_id):
        raise _revoked(f"; {otherwise}", execution_id=run_id)
    message = "the server is being stopped; the run goes on after its next start"
    raise api_error("UNAVAILABLE", message, execution_id=run_id)


async def parts_while_allowed(
    request: Asked, parts: AsyncGenerator[Part, None]
) -> AsyncGenerator[Part, None]:
    """The parts of an answer as long as its key is good. Raises UNAUTHENTICATED, which breaks it off."""
    ongoing, key_id = ongoing_of(request), request.auth.id
    async with aclosing(parts):
        # Who sends the parts is held up by nothing that could be ended: it is enough to be looked for.
        with ongoing.ended_by(_Nothing(), key_id=key_id):
            async for part in parts:
                if ongoing.is_revoked(key_id):
                    raise _revoked("")
                yield part


def ongoing_of(request: Asked) -> Ongoing:
    """The answers that last."""
    ongoing: Ongoing = request.app.state["ongoing"]
    return ongoing


class _Nothing:
    def __call__(self) -> None:
        """What there is to do to end it."""


def _revoked(then: str, *, execution_id: str | None = None) -> APIError:
    message = f"the API key was revoked while its call was answered{then}"
    return api_error("UNAUTHENTICATED", message, execution_id=execution_id)
