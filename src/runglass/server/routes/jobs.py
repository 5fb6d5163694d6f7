"""Jobs: runs whose caller keeps no connection open, but gets the run's id and asks again later.

A job is a run like any other, with a trace and a stream. Beside them a job has its whole result, which the
capture mode does not cut; only the caller of a job may have that, so other runs are not found here.
"""

from functools import partial
from typing import Literal

import msgspec
from starlette.responses import Response

from runglass.errors import api_error
from runglass.limits.offload import offload
from runglass.server.api_request import ApiRequest
from runglass.server.calls.call import admitted, find_call
from runglass.server.calls.idempotency import made_once
from runglass.server.calls.responses import accepted, replay
from runglass.server.calls.run_failure import RunFailure, failure_of, result_of
from runglass.server.calls.segments import submit
from runglass.server.endpoint import Parameter
from runglass.server.requests.body import answer
from runglass.server.requests.messages import normalize_messages
from runglass.server.requests.pagination import cursor_of_position, position_of
from runglass.server.requests.parameters import version_number
from runglass.server.security.authentication import (
    is_owed,
    no_run,
    require_flow,
    require_owed,
    run_of_flow,
)
from runglass.server.services.run_content import summary_of
from runglass.store.records import RunListing, RunRecord
from runglass.support.clock import iso_ms
from runglass.wire.query import RunQuery, created_ms
from runglass.wire.run_api import JobPage, JobRequest, JobState, JobSummary

TRIGGER = "job"
CANCELLED = "cancelled"
STATUSES: dict[str, tuple[str, ...]] = {
    "pending": ("pending",),
    "running": ("running", "paused"),
    "completed": ("completed",),
    "failed": ("failed", "cancelled"),
}
"""The statuses of a job, each with the statuses of a run that it stands for."""

STATUS = Parameter(
    "status",
    Literal["pending", "running", "completed", "failed"],
    "pending, running, completed or failed",
)


async def queue_job(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    version: str | None = None,
    *,
    session_id: str | None,
    version_query: str | None,
) -> Response:
    """Queues a run of the production version, or of the draft where none is published."""
    call = await find_call(request, org, project, slug, version, version_query)
    async with admitted(call, JobRequest, session_id) as body:
        body, history = await offload(partial(normalize_messages, body), size_bytes=call.size_bytes)
        if body.tools or body.tool_choice is not None:
            raise api_error("TOOLS_REQUIRE_SYNC_EXECUTE", "a job cannot pause for tools; use `execute`")
        queueing = partial(submit, call, body, version=call.number, trigger_type=TRIGGER, history=history)
        submitted = await made_once(call, queueing)
    if submitted is None:
        return await replay(call)
    return accepted(call, submitted.run.id, submitted.flow_id, submitted.block_count).sent()


async def job(
    request: ApiRequest, org: str, project: str, slug: str, execution_id: str, version: str | None = None
) -> Response:
    """The state of a job, from the moment that it is queued, and its result or error once it has ended.

    A cancelled job reads `failed` with the error `cancelled`, a paused one `running`. The result of a
    completed one is kept for `answer_ttl_s`, then the answer is ANSWER_EXPIRED. Unless the capture mode is
    `full`, only the key that queued the job gets it; other keys get FORBIDDEN.
    """
    run = await run_of_flow(request, org, project, slug, execution_id)
    if run.trigger_type != TRIGGER:
        raise no_run(execution_id)
    if version is not None and run.version != version_number(version):
        raise no_run(execution_id)
    return await _state(request, run)


async def jobs(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    status: str | None,
    limit: int,
    cursor: str | None,
) -> Response:
    """The jobs of a flow without their results, newest first; `nextCursor` is null on the last page."""
    flow = await require_flow(request, org, project, slug)
    found = await request.services.runtime.store.runs(
        flow.project_id,
        RunQuery.of(flow_id=flow.id, trigger=TRIGGER, statuses=STATUSES[status] if status else ()),
        after=position_of(cursor),
        limit=limit,
    )
    following = cursor_of_position(found.position)
    return answer(JobPage(jobs=[_summary(run) for run in found.runs], next_cursor=following))


def _summary(run: RunListing) -> JobSummary:
    summary, failed = summary_of(run), None
    if (error := summary.error) is not None:
        failed = RunFailure({"code": error.code, "message": error.message}, error.step_id).sentence
    return JobSummary(
        execution_id=run.id,
        status=next(status for status, covered in STATUSES.items() if run.status in covered),
        version=summary.version,
        created_at=iso_ms(created_ms(run.id)),
        started_at=summary.started_at,
        completed_at=summary.completed_at,
        error=CANCELLED if summary.status == "cancelled" else failed,
    )


async def _state(request: ApiRequest, run: RunRecord) -> Response:
    store, key = request.services.runtime.store, request.auth
    match run.status:
        case "completed":
            # A state without the result would read like a state whose result is null.
            require_owed(key, run, what="the result")
            result = await result_of(store, run)
            state = JobState(execution_id=run.id, status="completed", result=msgspec.Raw(result))
        case "failed":
            failure = await failure_of(store, run, whole=is_owed(key, run))
            state = JobState(execution_id=run.id, status="failed", error=failure.sentence)
        case "cancelled":
            state = JobState(execution_id=run.id, status="failed", error=CANCELLED)
        case "paused":
            state = JobState(execution_id=run.id, status="running")
        case _:
            state = JobState(execution_id=run.id, status=run.status)
    return answer(state)
