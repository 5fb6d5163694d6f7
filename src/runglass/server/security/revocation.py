"""Ends responses whose key is revoked while they are open.

Keys are looked up for each request, so only open responses are left to end: event streams end by themselves
(`event_stream`); waiting calls and bodies that are sent in parts are ended here.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from runglass.errors import APIError, api_error
from runglass.server.api_request import ApiRequest
from runglass.server.http.exchange import CallerLeft, exchange_of

T = TypeVar("T")
Part = TypeVar("Part")

GOES_ON = "the run itself continues"


async def while_allowed(
    request: ApiRequest, run_id: str | None, work: Coroutine[Any, Any, T], *, otherwise: str = GOES_ON
) -> T:
    """The result of `work`, which is cancelled when the server is stopped or the key is revoked.

    Raises UNAVAILABLE, and UNAUTHENTICATED, whose message ends with `otherwise`, the fate of the run.
    """
    return await _unless_ended(request, run_id, work, _Wait(), otherwise)


async def while_awaited(
    request: ApiRequest, run_id: str | None, work: Coroutine[Any, Any, T], *, otherwise: str = GOES_ON
) -> T:
    """As `while_allowed`, for a result that is of use to the caller alone. Raises CallerLeft as well."""
    wait = _Wait()
    with exchange_of(request.scope).on_loss(wait.end):
        return await _unless_ended(request, run_id, work, wait, otherwise)


async def _unless_ended(
    request: ApiRequest, run_id: str | None, work: Coroutine[Any, Any, T], wait: "_Wait", otherwise: str
) -> T:
    open_responses, key_id = request.services.open_responses, request.auth.id
    with open_responses.ended_by(wait.end, key_id=key_id):
        try:
            if not wait.is_ended:
                with wait:
                    return await work
        finally:
            # A wait that was ended at once has not started the coroutine, which warns unless it is closed.
            work.close()
    if open_responses.is_revoked(key_id):
        raise _revoked(f"; {otherwise}", execution_id=run_id)
    if not open_responses.is_stopping:
        raise CallerLeft
    then = otherwise if run_id is None else "the run resumes after its next start"
    raise api_error("UNAVAILABLE", f"the server is being stopped; {then}", execution_id=run_id)


async def parts_while_allowed(
    request: ApiRequest, parts: AsyncGenerator[Part, None]
) -> AsyncGenerator[Part, None]:
    """The parts of a response as long as its key is good. Raises UNAUTHENTICATED, which breaks it off."""
    open_responses, key_id = request.services.open_responses, request.auth.id
    async with aclosing(parts):
        # Registering makes the server look for the revocation of this key. There is nothing to call at the
        # end, as the loop below checks the key before each part.
        with open_responses.ended_by(lambda: None, key_id=key_id):
            async for part in parts:
                if open_responses.is_revoked(key_id):
                    raise _revoked("")
                yield part


class _Wait:
    """A block that `end` cancels without ending the rest of its task, as a time limit does.

    Running the work in a task of its own would cost every waiting call some 20 µs more.
    """

    def __init__(self) -> None:
        self.is_ended = False
        self._task = asyncio.current_task()
        self._is_inside = self._has_cancelled = False

    def end(self) -> None:
        self.is_ended = True
        if self._is_inside and self._task is not None:
            self._is_inside, self._has_cancelled = False, True
            self._task.cancel()

    def __enter__(self) -> None:
        self._is_inside = True

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        self._is_inside = False
        if not self._has_cancelled or self._task is None:
            return False
        # Another cancellation of the task may have come as well, and must go on to its own owner.
        return self._task.uncancel() == 0 and kind is asyncio.CancelledError


def _revoked(then: str, *, execution_id: str | None = None) -> APIError:
    message = f"the API key was revoked while its call was answered{then}"
    return api_error("UNAUTHENTICATED", message, execution_id=execution_id)
