"""Cancelling a run, in both path forms."""

from typing import Literal

import msgspec
from litestar import Response, delete
from litestar.di import NamedDependency

from runglass.errors import APIError, StoreError, api_error
from runglass.runtime import Runtime
from runglass.server.asked import answer, documented
from runglass.server.auth import MAY_EXECUTE, Asked, runtime_of
from runglass.server.openapi import ReadingOperation
from runglass.store.base import RunRecord

Run = NamedDependency[RunRecord]

REASON = "cancelled by a caller"


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The run has been ended; its trace and stream say so."""

    execution_id: str
    status: Literal["cancelled"] = "cancelled"


@delete(
    "/",
    status_code=202,
    responses=documented(Cancelled, "The run has been cancelled.", status=202),
    operation_class=ReadingOperation,
    tags=["Running a flow"],
    summary="Cancel a run",
)
async def cancel(request: Asked, run: Run) -> Response[bytes]:
    """Ends a run that has not ended; what it has done so far stays in its trace.

    The run has been cancelled when the answer comes; asking again is RUN_ENDED.
    """
    if request.auth.role not in MAY_EXECUTE:
        message = f"a key with the role {request.auth.role!r} may read runs, not cancel them"
        raise api_error("FORBIDDEN", message, execution_id=run.id)
    runtime = runtime_of(request)
    if run.ended:
        raise _has_ended(run)
    try:
        if not await _told_to_end(runtime, run):
            raise _has_ended(run)
        # What is acknowledged is stored: without its end in the log, a crash would let the run go on.
        await runtime.engine.over(run.id)
        now = await runtime.store.run(run.id) or run
    except StoreError as error:
        raise _not_recorded(run) from error
    if not now.ended:
        raise _not_recorded(run)
    if now.status != "cancelled":
        raise _has_ended(run)
    return answer(Cancelled(execution_id=run.id), status=202)


def _has_ended(run: RunRecord) -> APIError:
    return api_error("RUN_ENDED", f"run {run.id!r} has ended; it cannot be cancelled", execution_id=run.id)


def _not_recorded(run: RunRecord) -> APIError:
    message = f"the end of run {run.id!r} cannot be recorded at the moment; cancel it again"
    return api_error("UNAVAILABLE", message, execution_id=run.id)


async def _told_to_end(runtime: Runtime, run: RunRecord) -> bool:
    engine = runtime.engine
    if engine.cancel(run.id, reason=REASON) or await engine.cancel_paused(run, reason=REASON):
        return True
    # It may have paused, or been taken up again, since it was read.
    now = await runtime.store.run(run.id)
    if now is None or now.ended:
        return False
    return engine.cancel(run.id, reason=REASON) or await engine.cancel_paused(now, reason=REASON)
