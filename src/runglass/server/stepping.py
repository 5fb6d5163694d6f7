"""`POST …/step`: walking through a flow step by step, each call a stream of events up to the next rest.

The log keeps what the capture mode allows; whoever steps through a flow gets its outputs in the stream all
the same, since they are the answer to its call.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import msgspec
from litestar import post
from litestar.params import FromPath
from litestar.types import ASGIApp

from runglass.engine.engine import PausedRun, StartedRun
from runglass.engine.plan import Stretch
from runglass.errors import api_error
from runglass.events import (
    FlowCompleted,
    StepCompleted,
    StepPausedForToolCalls,
    decode_event,
    encode_event,
    event_type_of,
)
from runglass.execution import StepRequest
from runglass.lazy import encoded
from runglass.server.asked import body_of
from runglass.server.auth import Asked, own_project, require_execute, run_of_flow, runtime_of
from runglass.server.bodies import read_aside, read_request
from runglass.server.calls import REST_EVENTS, call_of, repeated_call
from runglass.server.credit import require_credit
from runglass.server.executing import overridden
from runglass.server.offers import check_takers, offer_of
from runglass.server.openapi import StepOperation
from runglass.server.parameters import SessionId, checked_uuid, version_number
from runglass.server.stream import EventStream, poll_interval_s
from runglass.server.tools import match_tool_results
from runglass.server.turns import spoken
from runglass.store.base import CallKey, Project, RunRecord
from runglass.tail import Page, tail

STREAM = "text/event-stream"


@post(
    "/seq/{org:str}/{project:str}/{slug:str}/step",
    status_code=200,
    media_type=STREAM,
    operation_class=StepOperation,
    tags=["Running a flow"],
    summary="Walk through a flow",
)
async def step(
    request: Asked,
    org: FromPath[str],
    project: FromPath[str],
    slug: FromPath[str],
    session_id: SessionId = None,
) -> ASGIApp:
    """Runs the next step of the production version, or all remaining ones, and streams their events."""
    return await _step(request, org, project, slug, None, session_id)


@post(
    "/seq/{org:str}/{project:str}/{slug:str}/{version:str}/step",
    status_code=200,
    media_type=STREAM,
    operation_class=StepOperation,
    tags=["Running a flow"],
    summary="Walk through one version of a flow",
)
async def step_version(
    request: Asked,
    org: FromPath[str],
    project: FromPath[str],
    slug: FromPath[str],
    version: FromPath[str],
    session_id: SessionId = None,
) -> ASGIApp:
    """The same with published version `v1`, `v2`, …; the draft may change and cannot be walked through."""
    return await _step(request, org, project, slug, version, session_id)


async def _step(
    request: Asked, org: str, project: str, slug: str, version: str | None, session_id: str | None
) -> ASGIApp:
    own = await own_project(request, org, project, slug)
    await require_execute(request, org, project, slug)
    number = None if version is None else version_number(version)
    _, number, flow = await runtime_of(request).find(own, slug, number)
    if number == 0:
        message = f"flow {slug!r} can be walked through as a published version only, not as the draft"
        raise api_error("INVALID_VERSION", message)
    session = None if session_id is None else checked_uuid(session_id, what="the header X-Session-Id")
    asked = await read_aside(partial(read_request, shape=StepRequest), await body_of(request))
    if asked.step_index < 0:
        raise api_error("INVALID_STEP_INDEX", f"`stepIndex` must be 0 or more, not {asked.step_index}")
    offer = offer_of(asked)
    if offer is not None:
        check_takers(flow)
    call = await call_of(request)
    if call is not None and (before := await repeated_call(request, own, call)) is not None:
        run = await run_of_flow(request, org, project, slug, before.run_id)
        return await _stream(request, run.id, int(before.answer or b"0"), None, {})
    outputs: dict[int, bytes] = {}
    if asked.execution_id is None:
        started = await _first_call(request, own, slug, asked, number, session, call, outputs)
    else:
        started = await _later_call(request, own, slug, asked, number, call, outputs)
    return await _stream(request, started.id, started.head, started, outputs)


async def _first_call(
    request: Asked,
    own: Project,
    slug: str,
    asked: StepRequest,
    number: int,
    session_id: str | None,
    call: CallKey | None,
    outputs: dict[int, bytes],
) -> StartedRun:
    if asked.step_index != 0:
        message = "the first call, without `executionId`, begins at `stepIndex` 0"
        raise api_error("INVALID_FIRST_CALL", message)
    asked, history = spoken(asked)
    require_credit(own)
    submitted = await runtime_of(request).submit(
        own,
        slug,
        asked,
        version=number,
        trigger_type="step",
        session_id=session_id,
        stretch=_stretch(asked, 0, []),
        history=history,
        call=call,
        outputs=outputs,
    )
    return submitted.run


async def _later_call(
    request: Asked,
    own: Project,
    slug: str,
    asked: StepRequest,
    number: int,
    call: CallKey | None,
    outputs: dict[int, bytes],
) -> StartedRun:
    runtime = runtime_of(request)
    run_id = checked_uuid(asked.execution_id or "", what="`executionId`")
    run = await run_of_flow(request, own.org, own.name, slug, run_id)
    if run.version != number:
        message = f"run {run.id!r} walks through version {run.version} of flow {slug!r}, not {number}"
        raise api_error("STALE_TREE", message, execution_id=run.id)
    paused = await runtime.engine.paused(run)
    # A client that counts completed steps is ahead after a loop; one behind wants to go from there again.
    first = min(asked.step_index, paused.pause.cursor)
    results = _results(run, paused, asked, first)
    if call is not None:
        # Whoever sends the call again is streamed the same events, from where this one begins.
        await runtime.store.begin_call(own.id, call, run.id)
        await runtime.store.answer_call(own.id, call.key, status=200, answer=str(run.head).encode())
    return await runtime.engine.resume(
        paused, overridden(paused, asked), _stretch(asked, first, results), outputs=outputs
    )


def _results(run: RunRecord, paused: PausedRun, asked: StepRequest, first: int) -> list[dict[str, object]]:
    turns = paused.pause.turns
    if turns is None:
        return []
    if first < paused.pause.cursor:
        message = f"run {run.id!r} waits for tool results at step {turns.step_id!r}; send those first"
        raise api_error("PAUSED_STEP_INVALID", message, execution_id=run.id, step_id=turns.step_id)
    return match_tool_results(turns.calls, asked.tool_call_messages, execution_id=run.id)


def _stretch(asked: StepRequest, first: int, results: list[dict[str, object]]) -> Stretch:
    return Stretch(
        first=first,
        last=None if asked.run_remaining else first,
        outputs=asked.accumulated_outputs or {},
        input=asked.input_overrides,
        offer=offer_of(asked),
        results=results,
    )


async def _stream(
    request: Asked, run_id: str, head: int, started: StartedRun | None, outputs: dict[int, bytes]
) -> ASGIApp:
    runtime = runtime_of(request)
    run = await runtime.store.run(run_id)
    assert run is not None
    settings = runtime.settings
    poll_s = poll_interval_s(poll_s=settings.tail_poll_s, ping_s=settings.ping_s)
    pages = tail(runtime.store, runtime.bus, run, after=head, poll_s=poll_s, until=REST_EVENTS)
    return EventStream(
        pages if started is None else _with_content(pages, started, outputs),
        ping_s=settings.ping_s,
        ongoing=request.app.state["ongoing"],
    )


async def _with_content(
    pages: AsyncGenerator[Page, None], started: StartedRun, outputs: dict[int, bytes]
) -> AsyncGenerator[Page, None]:
    async with aclosing(pages):
        async for page in pages:
            yield [(seq, await _full(seq, data, started, outputs)) for seq, data in page]


async def _full(seq: int, data: bytes, started: StartedRun, outputs: dict[int, bytes]) -> bytes:
    """The event with the content that its caller is owed, whether or not the log keeps it."""
    match event_type_of(data):
        case "step_completed":
            event = decode_event(data)
            output = outputs.pop(seq, None)
            if isinstance(event, StepCompleted) and output is not None:
                return encode_event(msgspec.structs.replace(event, output=encoded(output)))
        case "flow_completed":
            event = decode_event(data)
            if isinstance(event, FlowCompleted):
                result = msgspec.json.encode((await started.outcome()).result)
                return encode_event(msgspec.structs.replace(event, result=encoded(result)))
        case "step_paused_for_tool_calls":
            event, outcome = decode_event(data), await started.outcome()
            if isinstance(event, StepPausedForToolCalls) and outcome.pause and outcome.pause.turns:
                return encode_event(
                    msgspec.structs.replace(
                        event,
                        tool_call_messages=outcome.pause.turns.messages,
                        tool_calls=outcome.pause.turns.calls,
                        accumulated_outputs=dict(outcome.outputs),
                    )
                )
    return data
