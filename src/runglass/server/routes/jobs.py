"""Jobs: runs whose caller keeps no connection open, but gets the run's id and asks again later.

A job is a run like any other, with a trace and a stream. Beside them a job has its whole result, which the
capture mode does not cut; only the caller of a job may have that, so other runs are not found here.
"""

from functools import partial
from typing import Literal

import msgspec
from starlette.responses import Response

from runglass.engine.scheduling.offloading import offload
from runglass.errors import api_error
from runglass.log.trace import RunSummary
from runglass.runtime.runtime import Submitted
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import Parameter
from runglass.server.requests.body import answer, body_of
from runglass.server.requests.body_parsing import parse_off_loop, read_request
from runglass.server.requests.messages import normalize_messages
from runglass.server.requests.pagination import created_at, cursor_of_position, position_of
from runglass.server.requests.parameters import (
    RequestedVersion,
    checked_uuid,
    trace_context_of,
    version_number,
)
from runglass.server.security.authentication import (
    is_owed,
    require_flow,
    require_owed,
    require_project_of_flow,
    run_of_flow,
    runtime_of,
)
from runglass.server.services.idempotency import Finish, StoredResponse, with_idempotency
from runglass.server.services.request_admission import admission_of
from runglass.server.services.run_content import summary_of
from runglass.server.services.run_failure import RunFailure, failure_of, result_of
from runglass.store.base import Store, decoding
from runglass.store.list_records import RunListing
from runglass.store.records import ApiKey, IdempotencyKey, RunRecord
from runglass.wire.query import RunQuery
from runglass.wire.run_api import JobAccepted, JobPage, JobRequest, JobState, JobSummary

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
    Literal["pending", "running", "completed", "failed"] | None,
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
    return await _queue(request, org, project, slug, RequestedVersion(version, version_query), session_id)


async def job(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    execution_id: str,
) -> Response:
    """The state of a job, from the moment that it is queued, and its result or error once it has ended.

    A cancelled job reads `failed` with the error `cancelled`, a paused one `running`. The result of a
    completed one is kept for `answer_ttl_s`, then the answer is ANSWER_EXPIRED. Unless the capture mode is
    `full`, only the key that queued the job gets it; other keys get FORBIDDEN.
    """
    return await _state(request, await _job_run(request, org, project, slug, execution_id))


async def version_job(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    version: str,
    execution_id: str,
) -> Response:
    """The state of a job, below the path that it was queued at. A job of another version is not found."""
    run = await _job_run(request, org, project, slug, execution_id)
    if run.version != version_number(version):
        raise _no_job(execution_id)
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
    found = await runtime_of(request).store.runs(
        flow.project_id,
        RunQuery.of(flow_id=flow.id, trigger=TRIGGER, statuses=STATUSES[status] if status else ()),
        after=None if cursor is None else position_of(cursor),
        limit=limit,
    )
    following = None if found.position is None else cursor_of_position(found.position)
    return answer(JobPage(jobs=[_summary(run) for run in found.runs], next_cursor=following))


async def _queue(
    request: ApiRequest, org: str, project: str, slug: str, version: RequestedVersion, session_id: str | None
) -> Response:
    own = await require_project_of_flow(request, org, project, slug)
    number = version.number()
    await runtime_of(request).find(own, slug, number)
    session = None if session_id is None else checked_uuid(session_id, what="the header X-Session-Id")
    body = await body_of(request)
    most_values = runtime_of(request).settings.body_values_limit
    size = len(body)
    async with admission_of(request).turn(request, size):
        reading = partial(read_request, shape=JobRequest, most_values=most_values)
        call_body = await parse_off_loop(reading, body)
        call_body, history = await offload(partial(normalize_messages, call_body), size_bytes=size)
        if call_body.tools or call_body.tool_choice is not None:
            raise api_error("TOOLS_REQUIRE_SYNC_EXECUTE", "a job cannot pause for tools; use `execute`")

        async def queue(call: IdempotencyKey | None) -> Finish:
            submitted = await runtime_of(request).submit(
                own,
                slug,
                call_body,
                version=number,
                trigger_type=TRIGGER,
                session_id=session,
                trace_context=trace_context_of(request),
                history=history,
                call=call,
                size_bytes=size,
                key_id=request.auth.id,
                started_by=request.auth.hint,
                role=request.auth.role,
            )
            answer = accepted(submitted)

            async def answered() -> StoredResponse:
                return answer

            return answered

        return await with_idempotency(request, own, queue, accepted_again)


def accepted(submitted: Submitted, *, rerun_of: str | None = None) -> StoredResponse:
    """The response to a call whose run has been started, and goes on without it."""
    body = JobAccepted(
        execution_id=submitted.run.id,
        status="pending",
        flow_id=submitted.flow_id,
        block_count=submitted.block_count,
        rerun_of=rerun_of,
    )
    return StoredResponse(202, msgspec.json.encode(body))


async def accepted_again(run: RunRecord, head: int) -> StoredResponse:
    """The same response to a repeat, whatever the status of the run: it says that the run was queued."""
    with decoding(run.id):
        summary = msgspec.json.decode(run.summary, type=RunSummary)
    body = JobAccepted(
        execution_id=run.id,
        status="pending",
        flow_id=run.flow_id,
        block_count=summary.step_count or 0,
        rerun_of=summary.rerun_of,
    )
    return StoredResponse(202, msgspec.json.encode(body))


async def _job_run(request: ApiRequest, org: str, project: str, slug: str, execution_id: str) -> RunRecord:
    run = await run_of_flow(request, org, project, slug, execution_id)
    if run.trigger_type != TRIGGER:
        raise _no_job(execution_id)
    return run


def _no_job(execution_id: str) -> Exception:
    return api_error("RUN_NOT_FOUND", f"there is no run {execution_id!r}", execution_id=execution_id)


def _summary(run: RunListing) -> JobSummary:
    summary = summary_of(run)
    return JobSummary(
        execution_id=run.id,
        status=next(status for status, covered in STATUSES.items() if run.status in covered),
        version=summary.version,
        created_at=created_at(run.id),
        started_at=summary.started_at,
        completed_at=summary.completed_at,
        error=_why(summary),
    )


def _why(summary: RunSummary) -> str | None:
    if summary.status == "cancelled":
        return CANCELLED
    if summary.error is None:
        return None
    error = {"code": summary.error.code, "message": summary.error.message}
    return RunFailure(error=error, step_id=summary.error.step_id).sentence


async def _state(request: ApiRequest, run: RunRecord) -> Response:
    return answer(await _job_state(runtime_of(request).store, run, request.auth))


async def _job_state(store: Store, run: RunRecord, key: ApiKey) -> JobState:
    match run.status:
        case "completed":
            # A state without the result would read like a state whose result is null.
            require_owed(key, run, what="the result")
            result = await result_of(store, run)
            return JobState(execution_id=run.id, status="completed", result=msgspec.Raw(result))
        case "failed":
            failure = await failure_of(store, run, whole=is_owed(key, run))
            return JobState(execution_id=run.id, status="failed", error=failure.sentence)
        case "cancelled":
            return JobState(execution_id=run.id, status="failed", error=CANCELLED)
        case "paused":
            return JobState(execution_id=run.id, status="running")
    return JobState(execution_id=run.id, status=run.status)
