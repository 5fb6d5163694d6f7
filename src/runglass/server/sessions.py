"""Sessions: the runs that callers tied together with `X-Session-Id`, with what each step left behind.

Snapshots go from the store into the answer as the bytes that they are. `sessions` stands where other paths
have the name of an organisation, so flows of an organisation of that name cannot be reached.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Literal

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from runglass.engine.aside import aside
from runglass.errors import RunUnreadable, api_error
from runglass.execution import CaptureMode
from runglass.server.asked import answer, documented
from runglass.server.auth import Asked, runtime_of
from runglass.server.endings import failure_of
from runglass.server.openapi import ReadingOperation
from runglass.server.parameters import checked_uuid
from runglass.store.base import RunRecord, StepRow, Store, decoding
from runglass.trace import RunStatus, RunSummary, StepStatus

log = logging.getLogger(__name__)

NULL = msgspec.Raw(b"null")


class SessionStep(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The latest attempt of a step in one iteration; the snapshots are what the trace calls contexts."""

    step_id: str
    attempt: int
    loop_index: int | None
    status: StepStatus
    started_at: str | None
    completed_at: str | None
    duration_ms: int | None
    input_snapshot: msgspec.Raw
    output_snapshot: msgspec.Raw
    error_snapshot: msgspec.Raw
    truncated: bool


class SessionExecution(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run of the session. `error_at_step` is the step that a failed run lost, where it was one."""

    execution_id: str
    flow_id: str
    slug: str
    trigger_type: Literal["execute", "step", "job"]
    status: RunStatus
    started_at: str | None
    completed_at: str | None
    trace_capture_mode: CaptureMode
    snapshots_available: bool
    error_at_step: str | None
    steps: list[SessionStep]


class Session(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The runs of a session, oldest first."""

    session_id: str
    executions: list[SessionExecution]


class _StoredStep(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A stored StepTrace, its contexts left as bytes."""

    step_id: str
    attempt: int
    loop_index: int | None
    status: StepStatus
    started_at: str | None
    completed_at: str | None
    duration_ms: int | None
    input_context: msgspec.Raw = NULL
    output_context: msgspec.Raw = NULL
    error_context: msgspec.Raw = NULL
    truncated: bool = False


_steps = msgspec.json.Decoder(_StoredStep)


@get(
    "/seq/sessions/{session_id:str}",
    responses=documented(Session, "The session."),
    operation_class=ReadingOperation,
    tags=["Reading a run"],
    summary="The runs of a session",
)
async def session(request: Asked, session_id: FromPath[str]) -> Response[bytes]:
    """The session's runs, oldest first, with the latest attempt of each step and loop iteration."""
    session_id = checked_uuid(session_id, what="a session id")
    store = runtime_of(request).store
    runs = await store.session_runs(request.auth.project_id, session_id)
    if not runs:
        raise api_error("SESSION_NOT_FOUND", f"there is no session {session_id!r}")
    slugs: dict[str, str] = {}
    for flow_id in {run.flow_id for run in runs}:
        flow = await store.flow(flow_id)
        slugs[flow_id] = flow.slug if flow is not None else ""
    executions = [await _execution(store, run, slugs[run.flow_id]) for run in runs]
    # In a thread: a session may have any number of runs.
    return await asyncio.to_thread(answer, Session(session_id=session_id, executions=executions))


async def _execution(store: Store, run: RunRecord, slug: str) -> SessionExecution:
    rows = await store.steps(run.no)
    try:
        with decoding(run.id):
            summary = msgspec.json.decode(run.summary, type=RunSummary)
            size = sum(len(row.data) for row in rows)
            steps = await aside(partial(_session_steps, rows), size_bytes=size)
        failure = await failure_of(store, run) if run.status == "failed" else None
    except RunUnreadable as error:
        # What its row alone says of it: one that is broken may not hide the others.
        log.error("%s", error)  # noqa: TRY400
        summary, steps, failure = _of_row(run), [], None
    return SessionExecution(
        execution_id=run.id,
        flow_id=run.flow_id,
        slug=slug,
        trigger_type=_TRIGGERS.get(run.trigger_type, "execute"),
        status=msgspec.convert(run.status, RunStatus),
        started_at=summary.started_at,
        completed_at=summary.completed_at,
        trace_capture_mode=run.capture,
        snapshots_available=any(_has_snapshot(step) for step in steps),
        error_at_step=None if failure is None else failure.step_id,
        steps=steps,
    )


def _of_row(run: RunRecord) -> RunSummary:
    return RunSummary(id=run.id, flow_id=run.flow_id, status=msgspec.convert(run.status, RunStatus))


_TRIGGERS: dict[str, Literal["execute", "step", "job"]] = {"api": "execute", "step": "step", "job": "job"}


def _session_steps(rows: Sequence[StepRow]) -> list[SessionStep]:
    return [
        SessionStep(
            step_id=step.step_id,
            attempt=step.attempt,
            loop_index=step.loop_index,
            status=step.status,
            started_at=step.started_at,
            completed_at=step.completed_at,
            duration_ms=step.duration_ms,
            input_snapshot=step.input_context,
            output_snapshot=step.output_context,
            error_snapshot=step.error_context,
            truncated=step.truncated,
        )
        for step in (_steps.decode(row.data) for row in rows)
    ]


def _has_snapshot(step: SessionStep) -> bool:
    return any(
        bytes(snapshot) != b"null"
        for snapshot in (step.input_snapshot, step.output_snapshot, step.error_snapshot)
    )
