"""Cancelling a run, or deleting it for good, in both path forms."""

import asyncio
from contextlib import suppress
from typing import Literal

import msgspec
from starlette.responses import Response

from runglass.errors import APIError, StoreError, api_error
from runglass.server.api_request import ApiRequest
from runglass.server.calls.responses import idle_run
from runglass.server.endpoint import Parameter
from runglass.server.http.open_responses import while_awaited
from runglass.server.requests.body import answer
from runglass.server.security.authentication import actor_of, no_run, require_executed
from runglass.store.keys import LOCAL_KEY
from runglass.store.records import RunRecord

PURGE = Parameter(
    "purge",
    bool,
    "true or false: whether the run is deleted with all that is known of it",
    default=False,
)

ENDS_SOON = "the run is cancelled all the same, by the process that has it"
CLAIMED_S = 5.0
"""How long after the end of a lease another process has claimed the runs under it."""


class CancelResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The run and its new status: `cancelled`, as in its trace, or `purged`, after which it is not found."""

    execution_id: str
    status: Literal["cancelled", "purged"]


async def cancel(request: ApiRequest, run: RunRecord, purge: bool) -> Response:
    """Ends a run that has not ended; its steps so far stay in its trace.

    The run has been cancelled when the answer comes; asking again is RUN_ENDED. With `purge`, for which the
    role must be admin, the run is deleted whether or not it has ended: it is not found any more when the
    answer comes, and asking again is RUN_NOT_FOUND.
    """
    if purge:
        return await _purge(request, run)
    require_executed(run, what="cancelled")
    if run.ended:
        raise _has_ended(run)
    try:
        if not await _request_end(request, run):
            raise _has_ended(run)
        ended = await _ended_run(request, run)
    except StoreError as error:
        raise _not_recorded(run) from error
    if ended.status != "cancelled":
        raise _has_ended(run)
    return answer(CancelResult(execution_id=run.id, status="cancelled"), status=202)


async def _purge(request: ApiRequest, run: RunRecord) -> Response:
    if request.auth.role != "admin":
        message = (
            f"a key with the role {request.auth.role!r} may not delete runs; that takes the role 'admin'"
        )
        raise api_error("FORBIDDEN", message, execution_id=run.id)
    runtime = request.services.runtime
    # No process has a recorded run that could end it.
    if not run.is_recorded:
        if not run.ended:
            await _request_end(request, run)
        run = await _ended_run(request, run)
    if not await runtime.removal.purge(run, by=actor_of(request)):
        raise no_run(run.id)
    return answer(CancelResult(execution_id=run.id, status="purged"), status=202)


async def _ended_run(request: ApiRequest, run: RunRecord) -> RunRecord:
    """The run after its end is stored. Until the log has the end, a crash would let the run go on."""
    runtime = request.services.runtime
    engine, store = runtime.engine, runtime.store
    await engine.active.join(run.id)
    now = await store.run(run.id)
    if now is not None and not now.ended:
        # It may have paused since it was read: then it ends here, whether or not its caller waits.
        if await engine.idle.cancel(now, reason=_reason_of(request)):
            now = await store.run(run.id)
        else:
            now = await while_awaited(request, None, _followed_end(request, now), otherwise=ENDS_SOON)
    if now is None:
        raise no_run(run.id)
    if not now.ended:
        raise _not_recorded(run)
    return now


async def _followed_end(request: ApiRequest, run: RunRecord) -> RunRecord | None:
    """The run once whoever has it has ended it; as it is where that takes longer than to lose a process."""
    runtime, now = request.services.runtime, await request.services.runtime.store.run(run.id)
    with suppress(TimeoutError):
        async with asyncio.timeout(runtime.settings.lease_s + CLAIMED_S):
            while now is not None and not now.ended:
                # The run may have paused since it was read, or before its process read the request.
                if await runtime.engine.idle.cancel(now, reason=_reason_of(request)):
                    now = await runtime.store.run(run.id)
                else:
                    now = await idle_run(runtime, now, beyond=now.head)
    return now


def _reason_of(request: ApiRequest) -> str:
    # A command on the store has a key in memory alone, which is named by who gave it.
    what = "the user" if request.auth.id == LOCAL_KEY else "the key"
    return f"cancelled by {what} {request.auth.hint}"


def _has_ended(run: RunRecord) -> APIError:
    # A record that was read before the end does not have the final status.
    how = f"; its status is {run.status}" if run.ended else ""
    return api_error("RUN_ENDED", f"run {run.id!r} has ended already{how}", execution_id=run.id)


def _not_recorded(run: RunRecord) -> APIError:
    message = f"the end of run {run.id!r} cannot be recorded at the moment; ask again"
    return api_error("UNAVAILABLE", message, execution_id=run.id)


async def _request_end(request: ApiRequest, run: RunRecord) -> bool:
    engine, reason = request.services.runtime.engine, _reason_of(request)
    if engine.active.cancel(run.id, reason=reason) or await engine.idle.cancel(run, reason=reason):
        return True
    return await engine.idle.request_cancel(run.id, reason=reason)
