"""`POST …/step`: walking through a flow step by step, each call a stream of events up to the next rest.

The log keeps what the capture mode allows; whoever steps through a flow gets its outputs in the stream all
the same, since they are the answer to its call.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
from litestar import Response, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from runglass.engine.aside import aside
from runglass.engine.engine import StartedRun
from runglass.engine.going import Outcome, RunLeft
from runglass.engine.plan import Stretch
from runglass.engine.taking_up import PausedRun
from runglass.errors import APIError, api_error
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
from runglass.server.answers import JSON, once_started
from runglass.server.asked import body_of
from runglass.server.auth import Asked, own_project, require_execute, run_of_flow, runtime_of
from runglass.server.bodies import read_aside, read_request
from runglass.server.calls import REST_EVENTS, call_of, keep_refusal, note, turn
from runglass.server.executing import overridden
from runglass.server.offers import check_takers, offer_of
from runglass.server.openapi import StepOperation
from runglass.server.parameters import SessionId, checked_uuid, version_number
from runglass.server.stream import EventStream
from runglass.server.tools import match_tool_results
from runglass.server.turns import spoken
from runglass.store.base import CallKey, Project, RunRecord, Store
from runglass.tail import Page

STREAM = "text/event-stream"
WITH_CONTENT = frozenset({"step_completed", "flow_completed", "step_paused_for_tool_calls"})
"""Events that a stream to the run's caller completes with content."""


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
    body = await body_of(request)
    asked, size = await read_aside(partial(read_request, shape=StepRequest), body), len(body)
    if asked.step_index is not None and asked.step_index < 0:
        raise api_error("INVALID_STEP_INDEX", f"`stepIndex` must be 0 or more, not {asked.step_index}")
    offer = offer_of(asked)
    if offer is not None:
        check_takers(flow)
    call = await call_of(request)

    async def begin(outputs: dict[int, bytes] | None) -> StartedRun:
        if asked.execution_id is None:
            return await _first_call(request, own, slug, asked, number, session, call, outputs, size)
        return await _later_call(request, own, slug, asked, number, call, outputs, size)

    if call is None:
        outputs: dict[int, bytes] = {}
        started = await begin(outputs)
        return await _stream(request, started.id, started.head, _Live(started, outputs))
    async with turn(request, own, call) as before:
        if before is None:
            try:
                started = await begin(None)
            except APIError as error:
                await keep_refusal(request, own, call, error)
                raise
            return await _stream(request, started.id, started.head, None)
    if before.status is not None and before.answer is not None:
        return Response(before.answer, status_code=before.status, media_type=JSON).to_asgi_response(
            app=None, request=request
        )
    run = await run_of_flow(request, org, project, slug, before.run_id)
    return await _stream(request, run.id, before.head, None)


async def _first_call(
    request: Asked,
    own: Project,
    slug: str,
    asked: StepRequest,
    number: int,
    session_id: str | None,
    call: CallKey | None,
    outputs: dict[int, bytes] | None,
    size: int,
) -> StartedRun:
    if asked.step_index not in (None, 0):
        message = "the first call, without `executionId`, begins at `stepIndex` 0"
        raise api_error("INVALID_FIRST_CALL", message)
    asked, history = await aside(partial(spoken, asked), size_bytes=size)
    submitted = await runtime_of(request).submit(
        own,
        slug,
        asked,
        version=number,
        trigger_type="step",
        session_id=session_id,
        stretch=_stretch(asked, 0, [], call),
        history=history,
        call=call,
        outputs=outputs,
        size_bytes=size,
    )
    return submitted.run


async def _later_call(
    request: Asked,
    own: Project,
    slug: str,
    asked: StepRequest,
    number: int,
    call: CallKey | None,
    outputs: dict[int, bytes] | None,
    size: int,
) -> StartedRun:
    runtime = runtime_of(request)
    run_id = checked_uuid(asked.execution_id or "", what="`executionId`")
    run = await run_of_flow(request, own.org, own.name, slug, run_id)
    if run.version != number:
        message = f"run {run.id!r} walks through version {run.version} of flow {slug!r}, not {number}"
        raise api_error("STALE_TREE", message, execution_id=run.id)
    paused = await runtime.engine.paused(run)
    # A client that counts completed steps is ahead after a loop; one behind wants to go from there again.
    cursor = paused.pause.cursor
    first = cursor if asked.step_index is None else min(asked.step_index, cursor)
    results = await aside(partial(_results, run, paused, asked, first), size_bytes=size)
    plan = await aside(partial(overridden, paused, asked), size_bytes=size)
    await runtime.check_models(plan.flow)
    await runtime.require_credit(own)
    await note(request, own, call, run)
    stretch = _stretch(asked, first, results, call)
    return await runtime.engine.resume(paused, plan, stretch, outputs=outputs, size_bytes=size)


def _results(run: RunRecord, paused: PausedRun, asked: StepRequest, first: int) -> list[dict[str, object]]:
    turns = paused.pause.turns
    # Who goes back needs no results any more: the step will ask anew.
    if turns is None or first < paused.pause.cursor:
        return []
    return match_tool_results(turns.calls, asked.tool_call_messages, execution_id=run.id)


def _stretch(
    asked: StepRequest, first: int, results: list[dict[str, object]], call: CallKey | None
) -> Stretch:
    return Stretch(
        first=first,
        last=None if asked.run_remaining else first,
        outputs=asked.accumulated_outputs or {},
        input=asked.input_overrides,
        offer=offer_of(asked),
        results=results,
        answers_call=call is not None,
    )


class _Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    tool_call_messages: list[dict[str, Any]]
    tool_calls: list[dict[str, Any]]
    accumulated_outputs: dict[str, Any]


class _Live:
    """Content of a stretch that this call has begun."""

    def __init__(self, started: StartedRun, outputs: dict[int, bytes]) -> None:
        self._started = started
        self._outputs = outputs

    async def output(self, seq: int) -> bytes | None:
        return self._outputs.pop(seq, None)

    async def result(self) -> bytes | None:
        outcome = await self._outcome()
        return None if outcome is None else outcome.result_json

    async def pause(self, seq: int) -> _Waiting | None:
        outcome = await self._outcome()
        if outcome is None or outcome.pause is None or outcome.pause.turns is None:
            return None
        turns = outcome.pause.turns
        return _Waiting(
            tool_call_messages=turns.messages,
            tool_calls=turns.calls,
            accumulated_outputs=dict(outcome.outputs),
        )

    async def _outcome(self) -> Outcome | None:
        """None if another process went on with the run: then there is what the log has."""
        try:
            return await self._started.outcome()
        except RunLeft:
            return None


class _Kept:
    """Content for a call under an Idempotency-Key: kept with its events, and the same for each repeat."""

    def __init__(self, store: Store, run: RunRecord) -> None:
        self._store = store
        self._run = run

    async def output(self, seq: int) -> bytes | None:
        return await self._store.owed(self._run.no, seq)

    async def result(self) -> bytes | None:
        result, _ = await self._store.outcome(self._run.no)
        return result

    async def pause(self, seq: int) -> _Waiting | None:
        owed = await self._store.owed(self._run.no, seq)
        if owed is None:
            return None
        return await aside(partial(msgspec.json.decode, owed, type=_Waiting), size_bytes=len(owed))


async def _stream(request: Asked, run_id: str, head: int, live: _Live | None) -> ASGIApp:
    runtime = runtime_of(request)
    with once_started(run_id):
        run = await runtime.store.run(run_id)
    assert run is not None
    pages = runtime.tails.follow(run, after=head, until=REST_EVENTS, idle_s=runtime.settings.ping_s)
    content = live or _Kept(runtime.store, run)
    return EventStream(_with_content(pages, content), ongoing=request.app.state["ongoing"])


async def _with_content(
    pages: AsyncGenerator[Page, None], content: _Live | _Kept
) -> AsyncGenerator[Page, None]:
    async with aclosing(pages):
        async for page in pages:
            yield Page([(seq, await _full(data, content)) for seq, data in page])


async def _full(data: bytes, content: _Live | _Kept) -> bytes:
    """The event with the content that its caller is owed, whether or not the log keeps it."""
    if event_type_of(data) not in WITH_CONTENT:
        return data
    match event := decode_event(data):
        case StepCompleted() if (output := await content.output(event.seq)) is not None:
            return encode_event(msgspec.structs.replace(event, output=encoded(output)))
        case FlowCompleted() if (result := await content.result()) is not None:
            return encode_event(msgspec.structs.replace(event, result=encoded(result)))
        case StepPausedForToolCalls() if (waiting := await content.pause(event.seq)) is not None:
            whole = msgspec.structs.replace(event, **msgspec.structs.asdict(waiting))
            # In a thread: the outputs so far may be large, and how large is not known before.
            return await asyncio.to_thread(encode_event, whole)
    return data
