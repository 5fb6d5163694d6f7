"""`POST …/step`: walking through a flow step by step, each call a stream of events up to the next rest.

The log keeps the content that the capture mode allows; a caller that steps through a flow gets outputs and
errors in the stream all the same, since they are the answer to its call.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp

from runglass.engine.journal.resume import PausedRun
from runglass.engine.journal.run_spec import Segment, ToolOffer
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.scheduling.offloading import LARGE_BYTES, offload
from runglass.engine.steps.run_context import LiveOutputs
from runglass.errors import APIError, DuplicateIdempotencyKey, api_error
from runglass.flows.flow import Flow, within
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.http.error_responses import once_started
from runglass.server.http.response_stream import Headers
from runglass.server.http.sse_response import event_stream
from runglass.server.requests.body import body_of, forget_body
from runglass.server.requests.body_parsing import parse_off_loop, read_request
from runglass.server.requests.idempotency_key import idempotency_key_of
from runglass.server.requests.messages import normalize_messages
from runglass.server.requests.parameters import RequestedVersion, checked_uuid, trace_context_of
from runglass.server.requests.tools import match_tool_results
from runglass.server.security.authentication import no_run, require_project_of_flow, run_of_flow, runtime_of
from runglass.server.security.content_access import require_owed
from runglass.server.security.revocation import STILL_PAUSED, while_allowed
from runglass.server.services.execute_service import with_overrides, without_forbidden_values
from runglass.server.services.failure_replay import REPLAYED
from runglass.server.services.idempotency import (
    REST_EVENTS,
    NoteCall,
    dropped,
    earlier_call,
    hold_idempotency_lock,
    keep_refusal,
    resuming_call,
)
from runglass.server.services.request_admission import Admission, admission_of
from runglass.server.services.run_failure import answer_expired, require_outcome
from runglass.server.services.step_content import LiveContent, StoredContent
from runglass.server.services.step_frames import StepFrames
from runglass.server.services.tool_offers import check_takers, offer_of
from runglass.store.records import IdempotencyKey, Project, RunRecord
from runglass.wire.run_api import StepRequest


async def step(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    version: str | None = None,
    *,
    session_id: str | None,
    version_query: str | None,
) -> ASGIApp:
    """Runs the next step of the production version, or all remaining ones, and streams their events.

    Of a flow that was never published it walks the draft, as that is at the first call.
    """
    return await _step(request, org, project, slug, RequestedVersion(version, version_query), session_id)


async def _step(
    request: ApiRequest, org: str, project: str, slug: str, version: RequestedVersion, session_id: str | None
) -> ASGIApp:
    own = await require_project_of_flow(request, org, project, slug)
    number = version.number()
    _, current, flow = await runtime_of(request).find(own, slug, number)
    if number == 0:
        message = (
            f"the draft of flow {slug!r} is walked through on the path without a version, as long as nothing "
            f"of it is published; a published version is v1, v2, …"
        )
        raise api_error("INVALID_VERSION", message)
    session = None if session_id is None else checked_uuid(session_id, what="the header X-Session-Id")
    body = await body_of(request)
    most_values = runtime_of(request).settings.body_values_limit
    size = len(body)
    async with admission_of(request).turn(request, size) as admitted:
        reading = partial(read_request, shape=StepRequest, most_values=most_values)
        call_body = await parse_off_loop(reading, body)
        if call_body.step_index is not None and call_body.step_index < 0:
            raise api_error(
                "INVALID_STEP_INDEX",
                f"`stepIndex` must be 0 or more, not {call_body.step_index}",
                execution_id=call_body.execution_id,
            )
        call = await idempotency_key_of(request)
        # The stream may last as long as the run.
        forget_body(request)

        async def begin(outputs: LiveOutputs | None) -> StartedRun:
            if call_body.execution_id is None:
                return await _first_call(request, own, flow, call_body, current, session, call, outputs, size)
            async with resuming_call(request, own, call) as note:
                return await _later_call(
                    request, own, slug, call_body, number, call, note, outputs, size, admitted
                )

        if call is None:
            outputs = LiveOutputs()
            started = await begin(outputs)
            live = None if started.is_shared else (started, outputs)
            return await _stream(request, started.id, started.head, live)
        async with hold_idempotency_lock(request, own, call) as before:
            if before is None:
                try:
                    started = await begin(None)
                except DuplicateIdempotencyKey:
                    before = await earlier_call(request, own, call)
                except APIError as error:
                    await keep_refusal(request, own, call, error)
                    raise
                else:
                    return await _stream(request, started.id, started.head, None)
        if before is None:
            raise dropped(call)
        run = await run_of_flow(request, org, project, slug, before.run_id)
        require_owed(request.auth, run, what="the answer to this call")
        if before.status is not None:
            if before.answer is None:
                raise answer_expired(before.run_id)
            return Response(
                before.answer, status_code=before.status, media_type=JSON, headers={REPLAYED: "true"}
            )
        await require_outcome(runtime_of(request).store, run)
        return await _stream(
            request, run.id, before.head, None, headers=[(REPLAYED.lower().encode(), b"true")]
        )


async def _first_call(
    request: ApiRequest,
    own: Project,
    flow: Flow,
    call_body: StepRequest,
    version: int,
    session_id: str | None,
    call: IdempotencyKey | None,
    outputs: LiveOutputs | None,
    size: int,
) -> StartedRun:
    if call_body.step_index not in (None, 0):
        message = "the first call, without `executionId`, begins at `stepIndex` 0"
        raise api_error("INVALID_FIRST_CALL", message)
    call_body, history = await offload(partial(normalize_messages, call_body), size_bytes=size)
    call_body = without_forbidden_values(request, flow, call_body)
    segment = _segment(call_body, flow, call, first=0, offer=offer_of(call_body))
    if segment.offer is not None:
        check_takers(flow)
    submitted = await runtime_of(request).submit(
        own,
        flow.slug,
        call_body,
        version=version,
        trigger_type="step",
        session_id=session_id,
        trace_context=trace_context_of(request),
        segment=segment,
        history=history,
        call=call,
        outputs=outputs,
        size_bytes=size,
        key_id=request.auth.id,
        started_by=request.auth.hint,
        role=request.auth.role,
    )
    return submitted.run


async def _later_call(
    request: ApiRequest,
    own: Project,
    slug: str,
    call_body: StepRequest,
    number: int | None,
    call: IdempotencyKey | None,
    note: NoteCall,
    outputs: LiveOutputs | None,
    size: int,
    admitted: Admission,
) -> StartedRun:
    runtime = runtime_of(request)
    run_id = checked_uuid(call_body.execution_id or "", what="`executionId`")
    run = await run_of_flow(request, own.org, own.name, slug, run_id)
    require_owed(request.auth, run, what="the content")
    # A path without a version means the version of the run, not the present production version.
    if number not in (None, run.version):
        message = f"run {run.id!r} walks through version {run.version} of flow {slug!r}, not {number}"
        raise api_error("STALE_TREE", message, execution_id=run.id)
    paused = await runtime.engine.paused(run)
    # A client that counts completed steps is ahead after a loop; a client that sends an earlier index runs
    # from there again.
    cursor = paused.pause.cursor
    first = cursor if call_body.step_index is None else min(call_body.step_index, cursor)
    results = await offload(partial(_results, run, paused, call_body, first), size_bytes=size)
    plan = await with_overrides(request, own, paused, call_body, size)
    call_body = without_forbidden_values(request, plan.flow, call_body)
    # A call for an earlier step begins anew, with its own tools alone.
    tool_loop = paused.pause.tool_loop if first == cursor else None
    segment = _segment(
        call_body,
        plan.flow,
        call,
        first=first,
        results=results,
        step_inputs=paused.step_inputs,
        offer=offer_of(call_body, None if tool_loop is None else tool_loop.offer),
    )
    if call_body.tools:
        check_takers(plan.flow)
    own = await runtime.current(own)
    await runtime.check_models(own, plan.flow)
    runtime.require_credit(own)
    await runtime.require_key(request.auth.id, waited=size > LARGE_BYTES)
    await note(run)
    # The segment may have to wait for a slot.
    await admitted.admit_next()
    resuming = runtime.engine.resume(paused, plan, segment, outputs=outputs, size_bytes=size)
    return await while_allowed(request, run.id, resuming, otherwise=STILL_PAUSED)


def _results(
    run: RunRecord, paused: PausedRun, call_body: StepRequest, first: int
) -> list[dict[str, object]]:
    tool_loop = paused.pause.tool_loop
    # A call for an earlier step needs no tool results: the model will ask again.
    if tool_loop is None or first < paused.pause.cursor:
        return []
    return match_tool_results(tool_loop.calls, call_body.tool_call_messages, execution_id=run.id)


def _segment(
    call_body: StepRequest,
    flow: Flow,
    call: IdempotencyKey | None,
    *,
    first: int,
    offer: ToolOffer | None,
    results: Sequence[dict[str, object]] = (),
    step_inputs: Mapping[str, dict[str, Any]] | None = None,
) -> Segment:
    """The segment to run; `step_inputs` stay in force where the call has no `inputOverrides`."""
    given = call_body.input_overrides
    ids = {step.id for top in flow.steps for step in within(top)} if given else set()
    of_steps = {name: value for name, value in (given or {}).items() if name in ids and type(value) is dict}
    return Segment(
        first=first,
        last=None if call_body.run_remaining else first,
        outputs=call_body.accumulated_outputs or {},
        input={name: value for name, value in (given or {}).items() if name not in of_steps} or None,
        step_inputs=dict(step_inputs or {}) if given is None else of_steps,
        block_overrides=call_body.block_overrides,
        offer=offer,
        results=list(results),
        answers_call=call is not None,
    )


async def _stream(
    request: ApiRequest,
    run_id: str,
    head: int,
    live: tuple[StartedRun, LiveOutputs] | None,
    *,
    headers: Headers = (),
) -> ASGIApp:
    runtime = runtime_of(request)
    with once_started(run_id):
        run = await runtime.store.run(run_id)
    if run is None:
        raise no_run(run_id)
    pages = runtime.tails.follow(run, after=head, until=REST_EVENTS, idle_s=runtime.settings.ping_s)
    content = LiveContent(*live, runtime.store, run) if live else StoredContent(runtime.store, run)
    return event_stream(
        StepFrames(content, runtime.store, run).of(pages),
        open_responses=request.services.open_responses,
        key_id=request.auth.id,
        headers=headers,
        at_end=live[1].close if live else None,
    )
