"""`POST …/execute`: a run from its start, or a paused one from its tool results, to its end or next pause."""

from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import msgspec
from starlette.responses import Response

from runglass.engine.journal.resume import PausedRun
from runglass.engine.journal.run_spec import RunSpec, Segment
from runglass.engine.scheduling.offloading import LARGE_BYTES, offload
from runglass.errors import api_error
from runglass.flows.flow import Flow, step_count
from runglass.flows.override_policy import may_hand_in
from runglass.server.api_request import ApiRequest
from runglass.server.requests.body import body_of, forget_body
from runglass.server.requests.body_parsing import parse_off_loop, read_request
from runglass.server.requests.messages import normalize_messages
from runglass.server.requests.parameters import RequestedVersion, checked_uuid, trace_context_of
from runglass.server.requests.tools import match_tool_results
from runglass.server.security.authentication import require_project_of_flow, run_of_flow, runtime_of
from runglass.server.security.content_access import require_owed
from runglass.server.security.revocation import STILL_PAUSED, while_allowed
from runglass.server.services.execute_responses import outcome_of, response_of
from runglass.server.services.idempotency import (
    Finish,
    NoteCall,
    StoredResponse,
    resuming_call,
    wait_until_idle,
    with_idempotency,
)
from runglass.server.services.request_admission import Admission, admission_of
from runglass.server.services.run_failure import require_outcome
from runglass.server.services.tool_offers import check_takers, offer_of
from runglass.store.records import IdempotencyKey, Project, RunRecord
from runglass.wire.run_api import ExecuteRequest, RunRequest, StepRequest, ToolRequest

Values = TypeVar("Values", bound=ToolRequest)


async def execute_flow(
    request: ApiRequest, org: str, project: str, slug: str, version: RequestedVersion, session_id: str | None
) -> Response:
    """The response, once the run has ended or is paused. Raises the errors that the contract lists."""
    own = await require_project_of_flow(request, org, project, slug)
    number = version.number()
    # The flow is looked up before the body is read: for an unknown flow, mistakes in the body do not matter.
    _, _, flow = await runtime_of(request).find(own, slug, number)
    session = None if session_id is None else checked_uuid(session_id, what="the header X-Session-Id")
    body = await body_of(request)
    most_values = runtime_of(request).settings.body_values_limit
    reading, size = partial(read_request, shape=ExecuteRequest, most_values=most_values), len(body)
    async with AsyncExitStack() as admission:
        admitted = await admission.enter_async_context(admission_of(request).turn(request, size))
        # The request is dropped as soon as its run has it, as the response may take as long as the run.
        held = [await parse_off_loop(reading, body)]
        resumes = held[0].execution_id
        del body

        async def begin(call: IdempotencyKey | None) -> Finish:
            # The rest is waiting for the run; other requests are admitted meanwhile.
            async with admission:
                forget_body(request)
                call_body = held.pop()
                if call_body.execution_id is not None:
                    async with resuming_call(request, own, call) as note:
                        return await _resume(request, own, slug, call_body, note, size, admitted)
                return await _start(request, own, flow, call_body, number, session, call, size)

        async def repeated(run: RunRecord, head: int) -> StoredResponse:
            forget_body(request)
            held.clear()
            await admission.aclose()
            run = await wait_until_idle(request, run, beyond=head)
            await require_outcome(runtime_of(request).store, run)
            return await response_of(request, run)

        return await with_idempotency(request, own, begin, repeated, resumes=resumes)


async def _start(
    request: ApiRequest,
    own: Project,
    flow: Flow,
    call_body: ExecuteRequest,
    number: int | None,
    session_id: str | None,
    call: IdempotencyKey | None,
    size: int,
) -> Finish:
    runtime = runtime_of(request)
    call_body, history = await offload(partial(normalize_messages, call_body), size_bytes=size)
    offer = offer_of(call_body)
    if offer is not None:
        check_takers(flow)
    submitted = await runtime.submit(
        own,
        flow.slug,
        call_body,
        version=number,
        trigger_type="api",
        session_id=session_id,
        trace_context=trace_context_of(request),
        segment=Segment(offer=offer),
        history=history,
        call=call,
        size_bytes=size,
        key_id=request.auth.id,
        started_by=request.auth.hint,
        role=request.auth.role,
    )
    return partial(outcome_of, request, submitted.run, submitted.flow_id, submitted.block_count)


async def _resume(
    request: ApiRequest,
    own: Project,
    slug: str,
    call_body: ExecuteRequest,
    note: NoteCall,
    size: int,
    admitted: Admission,
) -> Finish:
    runtime = runtime_of(request)
    run_id = checked_uuid(call_body.execution_id or "", what="`executionId`")
    run = await run_of_flow(request, own.org, own.name, slug, run_id)
    require_owed(request.auth, run, what="the content")
    paused = await runtime.engine.paused(run)
    tool_loop = paused.pause.tool_loop
    if tool_loop is None:
        message = f"run {run.id!r} waits for its next step, not for tool results; go on with `step`"
        raise api_error("RUN_NOT_PAUSED", message, execution_id=run.id)
    if call_body.paused_at_step not in (None, tool_loop.step_id, paused.pause.cursor):
        raise api_error(
            "PAUSED_STEP_INVALID",
            f"run {run.id!r} waits at step {tool_loop.step_id!r}, not at {call_body.paused_at_step!r}",
            execution_id=run.id,
            step_id=tool_loop.step_id,
        )
    matching = partial(match_tool_results, tool_loop.calls, call_body.tool_call_messages, execution_id=run.id)
    results = await offload(matching, size_bytes=size)
    call_body = without_forbidden_values(request, paused.plan.flow, call_body)
    segment = Segment(
        first=paused.pause.cursor,
        outputs=call_body.accumulated_outputs or {},
        step_inputs=paused.step_inputs,
        block_overrides=call_body.block_overrides,
        offer=offer_of(call_body, tool_loop.offer),
        results=results,
    )
    plan = await with_overrides(request, own, paused, call_body, size)
    own = await runtime.current(own)
    await runtime.check_models(own, plan.flow)
    runtime.require_credit(own)
    await runtime.require_key(request.auth.id, waited=size > LARGE_BYTES)
    await note(run)
    # The segment may have to wait for a slot.
    await admitted.admit_next()
    resuming = runtime.engine.resume(paused, plan, segment, size_bytes=size)
    started = await while_allowed(request, run.id, resuming, otherwise=STILL_PAUSED)
    return partial(outcome_of, request, started, run.flow_id, step_count(paused.plan.flow))


async def with_overrides(
    request: ApiRequest, own: Project, paused: PausedRun, call_body: RunRequest, size: int
) -> RunSpec:
    """The run's plan with the overrides of this call.

    Raises INVALID_REQUEST, MODEL_NOT_SUPPORTED, and FORBIDDEN for an override that this caller may not make.
    """
    runtime = runtime_of(request)
    await runtime.policy.check_overrides(
        own, paused.plan.flow, call_body.block_overrides, role=request.auth.role, size_bytes=size
    )
    flow, _ = await runtime.checks.request(
        paused.plan.flow, call_body.block_overrides, None, size_bytes=size, project_id=own.id
    )
    return msgspec.structs.replace(paused.plan, flow=flow)


def without_forbidden_values(request: ApiRequest, flow: Flow, call_body: Values) -> Values:
    """`call_body` without the inputs and outputs of steps that its caller may not set.

    Raises FORBIDDEN for inputs. Clients send all outputs with each call of a step-through, so forbidden
    outputs are no error: the run's own replace them.
    """
    if may_hand_in(flow, request.auth.role):
        return call_body
    if isinstance(call_body, StepRequest) and call_body.input_overrides:
        message = (
            f"`inputOverrides`: flow {flow.slug!r} does not let a `run` key set the input of steps; list"
            " 'input' in the flow's `overridable`, or use an `admin` key"
        )
        raise api_error("FORBIDDEN", message, execution_id=call_body.execution_id)
    return msgspec.structs.replace(call_body, accumulated_outputs=None)
