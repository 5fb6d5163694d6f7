"""Reading runs: traces as the store's bytes joined, streams, and the list of runs.

The same handlers serve both path forms; what differs is how the run in the path is found (`auth.py`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIResponse, Schema
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.types import ASGIApp

from runglass.engine.aside import in_turn
from runglass.errors import RunUnreadable, api_error
from runglass.execution import RunPage
from runglass.server.answers import JSON
from runglass.server.attempts import choose
from runglass.server.auth import Asked, OpenedTrace, runtime_of
from runglass.server.openapi import ReadingOperation
from runglass.server.pages import Cursor, Limit, Since, Until, cursor_of, first_id_at, run_before
from runglass.server.parts import PART_BYTES, Pages, joined
from runglass.server.query import STRICT
from runglass.server.revocation import parts_while_allowed
from runglass.server.stream import EventStream
from runglass.store.base import AttemptKey, RunListing, RunRecord, Store, decoding
from runglass.trace import RunStatus, StepAttempts, StepTrace, Trace

log = logging.getLogger(__name__)

PART_ATTEMPTS = 1000
"""Most attempts in one read: bounds the time that small ones take."""

Run = NamedDependency[RunRecord]

Attempt = Annotated[
    str,
    QueryParameter(
        pattern="^(latest|all|[1-9][0-9]{0,8})$",
        description="`latest`, `all` or the number of an attempt, from 1 on",
    ),
]
LoopIndex = Annotated[
    str | None,
    QueryParameter(
        pattern="^[0-9]{1,9}(,[0-9]{1,9})*$",
        description="the index of an iteration from 0 on, in nested loops `I,J` from the outer one in",
    ),
]
After = Annotated[
    str | None,
    QueryParameter(pattern="^[0-9]{1,18}$", description="the id of an event; the stream goes on after it"),
]
LastEventId = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID",
        pattern="^[0-9]{0,18}$",
        description="the id of an event; the stream goes on after it",
    ),
]
Status = Annotated[
    RunStatus | None,
    QueryParameter(description="pending, running, paused, completed, failed or cancelled"),
]
FlowId = Annotated[str | None, QueryParameter(description="the `flowId` of a flow")]
Slug = Annotated[str | None, QueryParameter(description="the slug of a flow, instead of its id")]


@dataclass
class StepTraceOperation(ReadingOperation):
    """An operation that answers with one of two shapes.

    `anyOf`, not the framework's `oneOf`: no field of either is required, so that an answer may satisfy both.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for response in (self.responses or {}).values():
            contents = response.content if isinstance(response, OpenAPIResponse) else None
            for media in (contents or {}).values():
                if isinstance(media.schema, Schema):
                    media.schema.any_of, media.schema.one_of = media.schema.one_of, None


def _ok(shape: object, description: str, media_type: str = JSON) -> dict[int, ResponseSpec]:
    spec = ResponseSpec(shape, description=description, generate_examples=False, media_type=media_type)
    return {200: spec}


@get(
    "/trace",
    responses=_ok(Trace, "The trace as of this moment."),
    operation_class=ReadingOperation,
    tags=["Reading a run"],
    summary="The whole trace",
)
async def trace(request: Asked, opened: NamedDependency[OpenedTrace]) -> Response[Any]:
    """The run and the latest attempt of each step and loop iteration, in order of first start.

    As of one moment if the run has ended or the trace is small; else later steps are as of a later moment.
    """
    with decoding(opened.run.id):
        _any_json.decode(opened.run.summary)
    steps = _steps_from(runtime_of(request).store, opened)
    opening = b'{"flowRun":%b,"steps":' % opened.run.summary
    return await joined(opening, steps, b"}", lasting=partial(parts_while_allowed, request))


@get(
    "/steps/{step_id:str}/trace",
    responses=_ok(StepTrace | StepAttempts, "One attempt; with `attempt=all` every one."),
    operation_class=StepTraceOperation,
    tags=["Reading a run"],
    summary="One step's attempts",
)
async def step_trace(
    request: Asked,
    run: Run,
    step_id: FromPath[str],
    attempt: Attempt = "latest",
    loop_index: LoopIndex = None,
) -> Response[Any]:
    """One attempt of a step, or all of them ordered by iteration and attempt number.

    Without `loop_index`, `latest` and a number speak of the iteration that started last. A `loop_index` with
    fewer indices than the step has loops around it speaks of the innermost ones.
    """
    attempt, loop_index = attempt.strip(), loop_index and loop_index.strip()
    store = runtime_of(request).store
    keys = await store.attempt_keys(run.no, step_id)
    # A step in a loop may have so many that sorting them would hold up everybody else.
    chosen = await in_turn(partial(choose, keys, attempt=attempt, loop_index=loop_index))
    if not chosen:
        message = f"run {run.id!r} has no step {step_id!r}"
        if keys:
            which = "attempt" if attempt in ("latest", "all") else f"attempt {attempt}"
            iteration = f" in iteration {loop_index}" if loop_index else ""
            message = f"step {step_id!r} of run {run.id!r} has no {which}{iteration}"
        raise api_error("STEP_NOT_FOUND", message, execution_id=run.id, step_id=step_id)
    if attempt == "all":
        opening = b'{"stepId":%b,"attempts":' % msgspec.json.encode(step_id)
        pages = _data_of(store, run, chosen)
        return await joined(opening, pages, b"}", lasting=partial(parts_while_allowed, request))
    (data,) = await store.attempt_data(run.no, chosen, limit_bytes=PART_BYTES)
    _check(run, [data])
    return Response(data, media_type=JSON)


@get(
    "/trace/stream",
    responses=_ok(str, "Events as server-sent events.", media_type="text/event-stream"),
    operation_class=ReadingOperation,
    tags=["Reading a run"],
    summary="The live trace",
)
async def stream(request: Asked, run: Run, after: After = None, last_event_id: LastEventId = None) -> ASGIApp:
    """Every event of the run from the first, then live ones until the run has ended.

    `Last-Event-ID`, or else `after`, resumes after that event.
    """
    runtime = runtime_of(request)
    seen = int(last_event_id or after or 0)
    if seen > run.head and not run.ended:
        message = f"run {run.id!r} has no event {seen} yet; its last one is {run.head}"
        raise api_error("INVALID_REQUEST", message, execution_id=run.id)
    pages = runtime.tails.follow(run, after=seen, idle_s=runtime.settings.ping_s)
    return EventStream(pages, ongoing=request.app.state["ongoing"], key_id=request.auth.id)


@get(
    "/flow-runs",
    responses=_ok(RunPage, "A page of runs."),
    operation_class=ReadingOperation,
    tags=["Reading a run"],
    summary="The project's runs",
    opt={STRICT: True},
)
async def runs(
    request: Asked,
    flow_id: FlowId = None,
    flow: Slug = None,
    status: Status = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response[bytes]:
    """The runs of the key's project, newest first; `nextCursor` is null on the last page.

    `since` and `until` speak of when a run was created. Unknown parameters are refused.
    """
    before = [] if cursor is None else [run_before(cursor)]
    before += [] if until is None else [first_id_at(until, name="until")]
    found = await runtime_of(request).store.runs(
        request.auth.project_id,
        flow_id=flow_id if flow is None else await _flow_id(request, flow, flow_id),
        status=status,
        since=None if since is None else first_id_at(since, name="since"),
        before=min(before, default=None),
        limit=limit + 1,
    )
    page = found[:limit]
    following = cursor_of(page[-1].id) if len(found) > limit else None
    body = b'{"runs":[%b],"nextCursor":%b}' % (
        b",".join([_listed(run) for run in page]),
        msgspec.json.encode(following),
    )
    return Response(body, media_type=JSON)


async def _steps_from(store: Store, opened: OpenedTrace) -> Pages:
    """Pages of step data, from the one that has been read on."""
    run, steps = opened
    while steps:
        _check(run, [data for _, data in steps])
        yield [data for _, data in steps]
        if sum(len(data) for _, data in steps) < PART_BYTES:
            return
        steps = await store.trace_page(run.no, after=steps[-1][0], limit_bytes=PART_BYTES)


async def _data_of(store: Store, run: RunRecord, keys: Sequence[AttemptKey]) -> Pages:
    done = 0
    while done < len(keys):
        page = await store.attempt_data(run.no, keys[done : done + PART_ATTEMPTS], limit_bytes=PART_BYTES)
        done += len(page)
        _check(run, page)
        yield page


async def _flow_id(request: Asked, slug: str, flow_id: str | None) -> str:
    if flow_id is not None:
        raise api_error("INVALID_REQUEST", "`flow` and `flow_id` exclude each other; send one of them")
    flow = await runtime_of(request).store.find_flow(request.auth.project_id, slug)
    if flow is None:
        raise api_error("FLOW_NOT_FOUND", f"there is no flow {slug!r} in the project of this key")
    return flow.id


_any_json = msgspec.json.Decoder(msgspec.Raw)


def _check(run: RunRecord, members: Sequence[bytes]) -> None:
    """Raises RunUnreadable for one that is no JSON object: joined to others it would spoil the whole answer.

    Told by its ends: parsing each would take as long again as reading them does.
    """
    for data in members:
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise RunUnreadable(run.id, f"no JSON object begins with {data[:20]!r}")


def _listed(run: RunListing) -> bytes:
    """The run's `flowRun`, or what its row alone says of it: one that is broken may not hide the others."""
    try:
        _any_json.decode(run.summary)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("the summary of run %s cannot be read: %s", run.id, error)  # noqa: TRY400
        row = {"id": run.id, "flowId": run.flow_id, "status": run.status, "triggerType": run.trigger_type}
        return msgspec.json.encode(row)
    return run.summary
