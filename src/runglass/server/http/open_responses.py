"""The open responses of a server, which it ends when it stops, or when their key is revoked.

A stream stays open as long as its run, and a blocking call as long as its flow. Neither may hold up a
shutdown or outlive its key, so each registers a function that ends it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from runglass.errors import APIError, api_error
from runglass.server.api_request import ApiRequest
from runglass.server.http.exchange import CallerLeft, exchange_of
from runglass.store.catalog import Catalog
from runglass.support.logs import FailureLog

T = TypeVar("T")

log = logging.getLogger(__name__)

GOES_ON = "the run itself continues"

ENDED_AT_ONCE = 25
"""The most responses that end in one turn of the event loop, which all other tasks wait for."""


class OpenResponses:
    """The responses that are open.

    While there are any, the store is asked for revoked keys each `look_s`: they must end within a second.
    """

    def __init__(self, *, look_s: float = 0.25) -> None:
        self._look_s = look_s
        self._ends: dict[Callable[[], object], int | None] = {}
        self.is_stopping = False
        """Whether the server stops, and has therefore ended its open responses."""
        self._revoked: set[int] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._some_last = asyncio.Event()

    @contextmanager
    def ended_by(self, end: Callable[[], object], *, key_id: int | None = None) -> Iterator[None]:
        """Calls `end` when the server stops or the key is revoked before the block ends.

        `end` is called at once if either has happened already.
        """
        if self.is_stopping or self.is_revoked(key_id):
            end()
        self._ends[end] = key_id
        self._none_left.clear()
        if key_id is not None:
            self._some_last.set()
        try:
            yield
        finally:
            self._ends.pop(end, None)
            if not self._ends:
                self._none_left.set()
                self._some_last.clear()

    def is_revoked(self, key_id: int | None) -> bool:
        """Whether the key was found to be revoked while responses to it were open."""
        return key_id in self._revoked

    async def settle(self, seconds: float) -> None:
        """Returns when all open responses have ended by themselves, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none_left.wait()

    def end_all(self) -> None:
        """Ends every open response, and from now on each new one."""
        self.is_stopping = True
        for end in list(self._ends):
            end()

    async def end_key(self, key_id: int) -> None:
        """Ends every open response to a revoked key, and from now on each new one."""
        self._revoked.add(key_id)
        ends = [end for end, of_key in self._ends.items() if of_key == key_id]
        for number, end in enumerate(ends, 1):
            if end in self._ends:
                end()
            if number % ENDED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def watch(self, store: Catalog) -> None:
        """Ends the open responses to keys that any process has revoked, until cancelled.

        Each round asks for the present state and not for changes, so that no revocation is missed between two
        rounds. A store that fails is asked again.
        """
        failures = FailureLog(log, "asking whether keys are revoked failed")
        while True:
            await self._some_last.wait()
            await asyncio.sleep(self._look_s)
            keys = {key_id for key_id in self._ends.values() if key_id is not None} - self._revoked
            revoked: set[int] = set()
            with failures:
                revoked = keys - await store.live_keys(keys)
            for key_id in revoked:
                await self.end_key(key_id)


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
        raise key_revoked(f"; {otherwise}", execution_id=run_id)
    if not open_responses.is_stopping:
        raise CallerLeft
    then = otherwise if run_id is None else "the run resumes after its next start"
    raise api_error("UNAVAILABLE", f"the server is being stopped; {then}", execution_id=run_id)


def key_revoked(then: str, *, execution_id: str | None = None) -> APIError:
    """The error for an answer whose key was revoked while it was made."""
    message = f"the API key was revoked while its call was answered{then}"
    return api_error("UNAUTHENTICATED", message, execution_id=execution_id)
