"""Reading runs: traces as the store's bytes joined, and streams.

The same handlers serve both path forms; only the lookup of the run differs (`authentication.py`).
"""

import logging
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import ASGIApp

from runglass.errors import api_error
from runglass.limits.offload import offload
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.exchange import exchange_of
from runglass.server.http.response_stream import (
    PART_BYTES,
    Pages,
    StreamedResponse,
    event_stream,
    joined,
)
from runglass.server.services.run_content import checked_objects, step_pages, whole_summary, with_content
from runglass.server.services.step_attempts import attempt_pages, chosen_attempts, without_large_parts
from runglass.store.base import decoding, summary_of
from runglass.store.records import OpenedTrace, RunRecord
from runglass.store.run_logs import RunLog

log = logging.getLogger(__name__)

ATTEMPT = Parameter(
    "attempt",
    Annotated[str, Meta(pattern="^(latest|all|[1-9][0-9]{0,8})$")],
    "`latest`, `all` or the number of an attempt, from 1 on",
    default="latest",
)
LOOP_INDEX = Parameter(
    "loop_index",
    Annotated[str, Meta(pattern="^[0-9]{1,9}(,[0-9]{1,9})*$")],
    "the index of an iteration from 0 on, in nested loops `I,J` from the outer one in",
)
POSITION = Parameter(
    "position",
    Annotated[int, Meta(ge=1, le=1 << 31)],
    "the `position` of a row of the outline, which finds its attempts at once in a run of any size",
)
PART_BYTES_AT_MOST = Parameter(
    "part_bytes",
    Annotated[int, Meta(ge=1024, le=1 << 30)],
    "a number of bytes from 1024 on: input, output, error and what was said in model calls are left out where"
    " one of them takes more, and `leftOut` says how many it takes",
)
AFTER = Parameter(
    "after",
    Annotated[str, Meta(pattern="^[0-9]{1,18}$")],
    "the id of an event; the stream continues after it",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    Annotated[str, Meta(pattern="^[0-9]{0,18}$")],
    "the id of an event; the stream continues after it",
    argument="last_event_id",
)


async def summary(request: ApiRequest, run: RunRecord) -> Response:
    """The `flowRun` of the run's trace by itself: status, times, totals and error, however long it is."""
    store = request.services.runtime.store
    body = whole_summary(await with_content(store, run))
    if run.is_recorded and run.ended:
        recording = summary_of(run).recording
        trace_id = "" if recording is None else recording.trace_id
        found = (await store.recorded_traces(run.project_id, [trace_id])).get(trace_id)
        if found is not None and found.id != run.id:
            body = body[:-1] + b',"continuedBy":%b}' % msgspec.json.encode(found.id)
    return Response(body, media_type=JSON)


async def trace(request: ApiRequest, opened: OpenedTrace) -> ASGIApp:
    """The run and the latest attempt of each step and loop iteration, in order of first start.

    A trace is read at one moment if the run has ended or the trace is small; else later steps are read later.
    """
    opening = b'{"flowRun":%b,"steps":' % whole_summary(opened)
    steps = _steps_from(request.services.runtime.store, opened)
    return await joined(request, opening, steps, b"}")


async def step_trace(
    request: ApiRequest,
    run: RunRecord,
    step_id: str,
    attempt: str,
    loop_index: str | None,
    position: int | None,
    part_bytes: int | None,
) -> ASGIApp:
    """One attempt of a step, or all of them ordered by iteration and attempt number.

    Without `loop_index` and `position`, `latest` and a number select within the iteration that started last.
    A `loop_index` with fewer indices than the step has loops around it selects by the innermost loops.
    With `part_bytes` one attempt comes without what of it is larger, which `…/payload` has by ranges.
    """
    if part_bytes is not None and attempt.strip() == "all":
        raise api_error("INVALID_REQUEST", "`part_bytes` is for one attempt: name it with `attempt`")
    store = request.services.runtime.store
    chosen = await chosen_attempts(
        store, run, step_id, attempt=attempt, loop_index=loop_index, position=position
    )
    if attempt.strip() == "all":
        opening = b'{"stepId":%b,"attempts":' % msgspec.json.encode(step_id)
        return await joined(request, opening, attempt_pages(store, run, chosen), b"}")
    ((data,),) = [page async for page in attempt_pages(store, run, chosen)]
    if part_bytes is not None:
        with decoding(run.id):
            data = await offload(partial(without_large_parts, data, part_bytes), size_bytes=len(data))
    return Response(data, media_type=JSON)


async def stream(
    request: ApiRequest, run: RunRecord, after: str | None, last_event_id: str | None
) -> StreamedResponse:
    """Every event of the run from the first, then live ones until the run has ended.

    `Last-Event-ID`, or else `after`, resumes after that event.
    """
    runtime = request.services.runtime
    seen = int(last_event_id or after or 0)
    if seen > run.head:
        message = (
            f"run {run.id!r} has no event {seen}; its last one is {run.head}: read the stream from its start,"
            " as the server's store has lost events if there was such a one"
        )
        raise api_error("INVALID_REQUEST", message, execution_id=run.id)
    setbacks = await runtime.store.setbacks(run.id) if seen else []
    for head, had, at in setbacks:
        if head is not None and had is not None and head < seen <= had:
            message = (
                f"run {run.id!r} had two events {seen}, and the id does not tell which one was read:"
                f" the database lost events {head + 1} to {had}, which was noticed at {at}; read the stream"
                f" from its start, or go on after event {head}"
            )
            raise api_error("INVALID_REQUEST", message, execution_id=run.id)
    exchange = exchange_of(request.scope)
    pages = runtime.tails.follow(
        run,
        after=seen,
        idle_s=runtime.settings.ping_s,
        take=lambda page: exchange.send_now(page.frames),
    )
    return event_stream(request, pages)


async def _steps_from(store: RunLog, opened: OpenedTrace) -> Pages:
    """Pages of step data, from the page that has been read already on."""
    if not opened.steps:
        return
    found = [data for _, data in opened.steps]
    yield checked_objects(opened.run, found)
    if sum(map(len, found)) >= PART_BYTES:
        async for page in step_pages(store, opened.run, after=opened.steps[-1][0]):
            yield page
