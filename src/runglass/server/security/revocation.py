"""Ends responses whose key is revoked while they are open.

Keys are looked up for each request, so only open responses are left to end: event streams end by themselves
(`event_stream`); waiting calls and bodies that are sent in parts are ended here.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractContextManager, aclosing, nullcontext
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
    return await _unless_ended(request, run_id, work, otherwise, lambda end: nullcontext())


async def while_awaited(
    request: ApiRequest, run_id: str | None, work: Coroutine[Any, Any, T], *, otherwise: str = GOES_ON
) -> T:
    """As `while_allowed`, for a result that is of use to the caller alone. Raises CallerLeft as well."""
    return await _unless_ended(request, run_id, work, otherwise, exchange_of(request.scope).on_loss)


async def _unless_ended(
    request: ApiRequest,
    run_id: str | None,
    work: Coroutine[Any, Any, T],
    otherwise: str,
    on_loss: Callable[[Callable[[], object]], AbstractContextManager[None]],
) -> T:
    open_responses, key_id = request.services.open_responses, request.auth.id
    # Running the work in a task of its own would cost every waiting call some 20 µs more.
    wait = asyncio.timeout(None)

    def end() -> None:
        if not wait.expired():
            wait.reschedule(0)

    try:
        if not (open_responses.is_stopping or open_responses.is_revoked(key_id)):
            async with wait:
                with open_responses.ended_by(end, key_id=key_id), on_loss(end):
                    return await work
    except TimeoutError:
        if not wait.expired():
            raise
    finally:
        # A coroutine that has not started warns unless it is closed.
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


def _revoked(then: str, *, execution_id: str | None = None) -> APIError:
    message = f"the API key was revoked while its call was answered{then}"
    return api_error("UNAUTHENTICATED", message, execution_id=execution_id)
