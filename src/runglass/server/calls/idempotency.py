"""A call is made once, however often it is sent: under an `Idempotency-Key`, or again after a failure.

The key is stored in the transaction that creates or resumes the run, so two requests at the same instant
cannot both do that. A later request under the same key gets the response of the first, or waits for it: the
response follows from the stored run. Only a pause is kept as it was sent, as it is gone once the run is
resumed.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple
from weakref import WeakValueDictionary

from runglass.errors import APIError, DuplicateIdempotencyKey, StoreError, api_error
from runglass.limits.pace import paced_write
from runglass.runtime.runtime import Submitted
from runglass.server.calls.call import Call, CallFingerprint, StoredResponse
from runglass.server.calls.run_failure import answer_expired
from runglass.server.http.error_responses import as_api_error, error_body, error_headers
from runglass.server.http.exchange import CallerLeft
from runglass.server.http.open_responses import while_awaited
from runglass.server.security.authentication import require_owed, run_by_id
from runglass.store.records import IdempotencyRecord, RunRecord

log = logging.getLogger(__name__)

MAX_ANSWERS, MAX_BYTES = 1000, 4 * 1024 * 1024
"""The most of one project, so that its failures push out no other's: a client would then pay twice."""
REPEATED_AFTER = frozenset({500, 502, 503, 504})


class IdempotencyLocks(WeakValueDictionary[tuple[int, str], asyncio.Lock]):
    """Locks by project and Idempotency-Key; each goes with the last call that waits for it."""


class _Kept(NamedTuple):
    response: StoredResponse
    stays: bool
    until_s: float


class FailureReplay:
    """Failures that are repeated to a client which makes a call again by itself, without an Idempotency-Key.

    Some clients send a POST again after 500, 502, 503 or 504, and a flow that is run anew is paid for anew.
    The first such repeat gets the failure once more; the next one runs the flow. One that stays, as there is
    nothing to run anew, is repeated any number of times. Failures are kept in this process's memory, for
    `within_s`. `clock` gives seconds that never go back.
    """

    def __init__(self, within_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._within_s = within_s
        self._clock = clock
        self._failed: dict[int, OrderedDict[CallFingerprint, _Kept]] = {}

    def keep(self, call: CallFingerprint, error: APIError, *, stays: bool) -> None:
        """Keeps a failure that clients repeat their call after. If its project has too many, the oldest go.

        A 503 that says that nothing was started is not kept, as the next call may succeed.
        """
        if error.status not in REPEATED_AFTER or (error.status == 503 and error.execution_id is None):
            return
        self._forget_old()
        response = StoredResponse(error.status, error_body(error), error_headers(error))
        of_project = self._failed.setdefault(call.project_id, OrderedDict())
        of_project.pop(call, None)
        of_project[call] = _Kept(response, stays, self._clock() + self._within_s)
        size = sum(len(each.response.body) for each in of_project.values())
        while len(of_project) > MAX_ANSWERS or size > MAX_BYTES:
            _, oldest = of_project.popitem(last=False)
            size -= len(oldest.response.body)

    def take(self, call: CallFingerprint) -> StoredResponse | None:
        """The failure to repeat to this call. It is then forgotten, unless it stays."""
        self._forget_old()
        of_project = self._failed.get(call.project_id)
        if of_project is None or call not in of_project:
            return None
        failed = of_project[call]
        if not failed.stays:
            del of_project[call]
        return failed.response

    def _forget_old(self) -> None:
        now_s = self._clock()
        for project_id, of_project in list(self._failed.items()):
            while of_project and next(iter(of_project.values())).until_s <= now_s:
                of_project.popitem(last=False)
            if not of_project:
                del self._failed[project_id]


async def made_once(call: Call, begin: Callable[[], Awaitable[Submitted]]) -> Submitted | None:
    """What `begin` starts or resumes for the call; None where it was made before, as `call.before` says.

    Raises IDEMPOTENCY_MISMATCH for a key that came with another request before; `call.py` says
    when two requests are the same.
    """
    request = call.request
    if call.key is None:
        if call.fingerprint is not None:
            call.before = request.services.failures.take(call.fingerprint)
        async with failure_kept(call):
            return await begin() if call.before is None else None
    locks = request.services.call_locks
    # The requests that wait for the lock keep it alive; it goes with the last of them.
    lock = locks.setdefault((call.project.id, call.key.key), asyncio.Lock())
    if lock.locked():
        await while_awaited(
            request, None, lock.acquire(), otherwise="the call that it repeats is still in progress"
        )
    else:
        await lock.acquire()
    try:
        call.before = await _earlier(call)
        if call.before is not None:
            return None
        if call.missing is not None:
            raise call.missing
        try:
            return await begin()
        except DuplicateIdempotencyKey as error:
            call.before = await _earlier(call)
            if call.before is None:
                message = f"the call {call.key.key!r} was dropped while it was repeated; send it again"
                raise api_error("UNAVAILABLE", message) from error
        except APIError as error:
            # Another server may have resumed the run for the same call meanwhile.
            is_refused = error.status < 500 and error.code != "UNAUTHENTICATED"
            if not is_refused or (before := await _earlier(call)) is None:
                raise
            call.before = before
        return None
    finally:
        lock.release()


@asynccontextmanager
async def failure_kept(call: Call) -> AsyncIterator[None]:
    """Keeps an error of the block for repeats of a call that has a fingerprint. Raises APIError."""
    try:
        yield
    except Exception as fault:
        if call.fingerprint is None or isinstance(fault, CallerLeft):
            raise
        error = as_api_error(call.request, fault)
        failures = call.request.services.failures
        failures.keep(call.fingerprint, error, stays=call.resumes)
        if error is fault:
            raise
        raise error from fault


async def keep(call: Call, answered: StoredResponse) -> None:
    """Keeps a response that the run does not tell, under the key of the call, where it has one."""
    if call.key is None:
        return
    project_id, key = call.project.id, call.key.key
    try:
        async with paced_write(project_id, len(answered.body)):
            await call.runtime.store.answer_call(
                project_id, key, status=answered.status, answer=answered.body
            )
    except StoreError as error:
        # The response can be sent without being kept.
        log.warning("the answer to the call %r is not kept: %s", key, error)


async def earlier_answer(call: Call, before: IdempotencyRecord) -> StoredResponse | RunRecord:
    """The response that was kept for repeats of the call, or the run that tells it.

    Raises FORBIDDEN, ANSWER_EXPIRED, RUN_NOT_FOUND.
    """
    run = await run_by_id(call.request, before.run_id)
    require_owed(call.request.auth, run, what="the answer to this call")
    if before.status is None:
        return run
    if before.answer is None:
        raise answer_expired(before.run_id)
    return StoredResponse(before.status, before.answer)


async def _earlier(call: Call) -> IdempotencyRecord | None:
    """The same call as it was noted before, by any server. Raises IDEMPOTENCY_MISMATCH."""
    assert call.key is not None
    before = await call.runtime.store.call(call.project.id, call.key.key)
    if before is not None and before.digest != call.key.digest:
        message = f"something else was asked under the Idempotency-Key {call.key.key!r}; use a new one"
        raise api_error("IDEMPOTENCY_MISMATCH", message, execution_id=before.run_id)
    if before is None or not await _was_left(call, before):
        return before
    await asyncio.sleep(call.runtime.limits.noted_s)
    before = await call.runtime.store.call(call.project.id, call.key.key)
    return None if before is not None and await _was_left(call, before) else before


async def _was_left(call: Call, before: IdempotencyRecord) -> bool:
    """Whether the call has not resumed its run: the version before this one stores a call before that."""
    if before.head == 0 or before.status is not None:
        return False
    run = await call.runtime.store.run(before.run_id)
    return run is not None and run.status == "paused" and run.head == before.head and not run.is_resuming
