"""`POST …/execute`: a run from its start, or a paused one from its tool results, to its end or next pause."""

from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import msgspec
from starlette.responses import Response

from runglass.engine.active_runs import StartedRun
from runglass.engine.journal.resume import PausedRun
from runglass.engine.journal.run_spec import Pause, RunSpec, Segment
from runglass.engine.models.model_types import both_spellings
from runglass.engine.run_outcome import LeaseLost, RunOutcome, RunReleased
from runglass.engine.scheduling.offloading import LARGE_BYTES, offload, offload_in_turn
from runglass.errors import APIError, api_error
from runglass.flow import Flow, step_count
from runglass.override_policy import may_hand_in
from runglass.run_api import ExecuteRequest, RunRequest, StepRequest, ToolCallsRequired, ToolRequest
from runglass.runtime import Runtime
from runglass.server.api_request import ApiRequest
from runglass.server.http.error_responses import error_body, once_started
from runglass.server.requests.body import body_of, forget_body
from runglass.server.requests.body_parsing import parse_off_loop, read_request
from runglass.server.requests.messages import normalize_messages
from runglass.server.requests.parameters import RequestedVersion, checked_uuid, trace_context_of
from runglass.server.requests.tools import match_tool_results
from runglass.server.security.authentication import no_run, require_project_of_flow, run_of_flow, runtime_of
from runglass.server.security.content_access import require_owed
from runglass.server.security.revocation import STILL_PAUSED, while_allowed
from runglass.server.services.idempotency import (
    Finish,
    StoredResponse,
    note_call,
    wait_until_idle,
    with_idempotency,
)
from runglass.server.services.request_admission import Admission, taking_in_of
from runglass.server.services.run_failure import failure_of, require_outcome, result_of
from runglass.server.services.tool_offers import check_takers, offer_of
from runglass.store.base import decoding
from runglass.store.records import IdempotencyKey, Project, RunRecord
from runglass.trace import RunSummary

Handing = TypeVar("Handing", bound=ToolRequest)


async def execute_flow(
    request: ApiRequest, org: str, project: str, slug: str, version: RequestedVersion, session_id: str | None
) -> Response:
    """Answers when the run has ended or waits. Raises what the contract lists."""
    own = await require_project_of_flow(request, org, project, slug)
    number = version.number()
    # Before the body: to a caller, a flow that is not there is no place for a mistake in it.
    _, _, flow = await runtime_of(request).find(own, slug, number)
    session = None if session_id is None else checked_uuid(session_id, what="the header X-Session-Id")
    body = await body_of(request)
    most_values = runtime_of(request).settings.body_values_limit
    reading, size = partial(read_request, shape=ExecuteRequest, most_values=most_values), len(body)
    async with AsyncExitStack() as taken_in:
        taken = await taken_in.enter_async_context(taking_in_of(request).turn(request, size))
        # What was asked is let go of as soon as its run has it: the answer may take as long as the run.
        held = [await parse_off_loop(reading, body)]
        resumes = held[0].execution_id
        del body

        async def begin(call: IdempotencyKey | None) -> Finish:
            # What is left is to wait for the run, while others are taken in.
            async with taken_in:
                forget_body(request)
                asked = held.pop()
                if asked.execution_id is not None:
                    return await _resume(request, own, slug, asked, call, size, taken)
                return await _start(request, own, flow, asked, number, session, call, size)

        async def repeated(run: RunRecord, head: int) -> StoredResponse:
            forget_body(request)
            held.clear()
            await taken_in.aclose()
            run = await wait_until_idle(request, run, beyond=head)
            await require_outcome(runtime_of(request).store, run)
            return await _answer_of(request, run)

        return await with_idempotency(request, own, begin, repeated, resumes=resumes)


async def _start(
    request: ApiRequest,
    own: Project,
    flow: Flow,
    asked: ExecuteRequest,
    number: int | None,
    session_id: str | None,
    call: IdempotencyKey | None,
    size: int,
) -> Finish:
    runtime = runtime_of(request)
    asked, history = await offload(partial(normalize_messages, asked), size_bytes=size)
    offer = offer_of(asked)
    if offer is not None:
        check_takers(flow)
    submitted = await runtime.submit(
        own,
        flow.slug,
        asked,
        version=number,
        trigger_type="api",
        session_id=session_id,
        trace_context=trace_context_of(request),
        stretch=Segment(offer=offer),
        history=history,
        call=call,
        size_bytes=size,
        key_id=request.auth.id,
        role=request.auth.role,
    )
    return partial(_outcome, request, submitted.run, submitted.flow_id, submitted.block_count)


async def _resume(
    request: ApiRequest,
    own: Project,
    slug: str,
    asked: ExecuteRequest,
    call: IdempotencyKey | None,
    size: int,
    taken: Admission,
) -> Finish:
    runtime = runtime_of(request)
    run_id = checked_uuid(asked.execution_id or "", what="`executionId`")
    run = await run_of_flow(request, own.org, own.name, slug, run_id)
    require_owed(request.auth, run, what="the content")
    paused = await runtime.engine.paused(run)
    turns = paused.pause.turns
    if turns is None:
        message = f"run {run.id!r} waits for its next step, not for tool results; go on with `step`"
        raise api_error("RUN_NOT_PAUSED", message, execution_id=run.id)
    if asked.paused_at_step not in (None, turns.step_id, paused.pause.cursor):
        raise api_error(
            "PAUSED_STEP_INVALID",
            f"run {run.id!r} waits at step {turns.step_id!r}, not at {asked.paused_at_step!r}",
            execution_id=run.id,
            step_id=turns.step_id,
        )
    matching = partial(match_tool_results, turns.calls, asked.tool_call_messages, execution_id=run.id)
    results = await offload(matching, size_bytes=size)
    asked = handed_in(request, paused.plan.flow, asked)
    stretch = Segment(
        first=paused.pause.cursor,
        outputs=asked.accumulated_outputs or {},
        step_inputs=paused.step_inputs,
        block_overrides=asked.block_overrides,
        offer=offer_of(asked, turns.offer),
        results=results,
    )
    plan = await overridden(request, own, paused, asked, size)
    own = await runtime.current(own)
    await runtime.check_models(own, plan.flow)
    runtime.require_credit(own)
    await runtime.require_key(request.auth.id, waited=size > LARGE_BYTES)
    await note_call(request, own, call, run)
    # It may have to wait for a place.
    await taken.admit_next()
    resuming = runtime.engine.resume(paused, plan, stretch, size_bytes=size)
    started = await while_allowed(request, run.id, resuming, otherwise=STILL_PAUSED)
    return partial(_outcome, request, started, run.flow_id, step_count(paused.plan.flow))


async def overridden(
    request: ApiRequest, own: Project, paused: PausedRun, asked: RunRequest, size: int
) -> RunSpec:
    """The run's plan with the overrides of this call in it.

    Raises INVALID_REQUEST, MODEL_NOT_SUPPORTED, and FORBIDDEN for an override that this caller may not make.
    """
    runtime = runtime_of(request)
    await runtime.policy.check_overrides(
        own, paused.plan.flow, asked.block_overrides, role=request.auth.role, size_bytes=size
    )
    flow, _ = await runtime.checks.request(
        paused.plan.flow, asked.block_overrides, None, size_bytes=size, project_id=own.id
    )
    return msgspec.structs.replace(paused.plan, flow=flow)


def handed_in(request: ApiRequest, flow: Flow, asked: Handing) -> Handing:
    """`asked` as far as this caller may hand in inputs and outputs of steps.

    Raises FORBIDDEN for inputs. Outputs come back with each call of a walk, so those of the run's own just
    stand over them.
    """
    if may_hand_in(flow, request.auth.role):
        return asked
    if isinstance(asked, StepRequest) and asked.input_overrides:
        message = (
            f"`inputOverrides`: flow {flow.slug!r} does not let a `run` key set the input of steps; list"
            " 'input' in the flow's `overridable`, or use an `admin` key"
        )
        raise api_error("FORBIDDEN", message, execution_id=asked.execution_id)
    return msgspec.structs.replace(asked, accumulated_outputs=None)


async def _outcome(
    request: ApiRequest, started: StartedRun, flow_id: str, block_count: int
) -> StoredResponse:
    """Waits for the end of the stretch, wherever it comes about."""
    try:
        with once_started(started.id):
            outcome = await while_allowed(request, started.id, _waited(started))
    except LeaseLost:
        with once_started(started.id):
            runtime = runtime_of(request)
            run = await runtime.store.run(started.id)
            if run is None:
                raise no_run(started.id) from None
            return await _answer_of(request, await wait_until_idle(request, run))
    except RunReleased as left:
        message = "the server is being stopped; the run goes on after its next start"
        # UNAVAILABLE lets clients call again: under a key they get this run's outcome, else a second run.
        code = "UNAVAILABLE" if "idempotency-key" in request.headers else "INTERNAL_ERROR"
        raise api_error(code, message, execution_id=started.id) from left
    return await _answer(started.id, flow_id, block_count, outcome)


async def _waited(started: StartedRun) -> RunOutcome:
    return await started.outcome()


async def _answer(run_id: str, flow_id: str, block_count: int, outcome: RunOutcome) -> StoredResponse:
    if outcome.status == "completed":
        return _completed(run_id, flow_id, block_count, outcome.result_json)
    if outcome.pause is not None:
        waiting = tool_calls_required(run_id, flow_id, block_count, outcome.pause, dict(outcome.outputs))
        return await _waits(waiting)
    raise failure(run_id, outcome)


def _completed(run_id: str, flow_id: str, block_count: int, result: bytes) -> StoredResponse:
    """The fields of CompletedResult, with a result that is JSON already."""
    body = {
        "status": "completed",
        "result": msgspec.Raw(result),
        "flowId": flow_id,
        "blockCount": block_count,
        "executionId": run_id,
    }
    return StoredResponse(200, msgspec.json.encode(body))


async def _waits(waiting: ToolCallsRequired) -> StoredResponse:
    # In a thread: the outputs so far may be large, and how large is not known before.
    return StoredResponse(200, await offload_in_turn(partial(msgspec.json.encode, waiting)))


def tool_calls_required(
    run_id: str, flow_id: str, block_count: int, pause: Pause, outputs: dict[str, object]
) -> ToolCallsRequired:
    """What the caller of a run that waits for tool results is told."""
    turns = pause.turns
    assert turns is not None
    return ToolCallsRequired(
        execution_id=run_id,
        paused_at_step=turns.step_id,
        iterations_used=turns.iterations_used,
        tool_call_messages=both_spellings(turns.messages),
        tool_calls=turns.calls,
        accumulated_outputs=outputs,
        flow_id=flow_id,
        block_count=block_count,
    )


async def _answer_of(request: ApiRequest, run: RunRecord) -> StoredResponse:
    """The answer for a run that has been started by an earlier call, from what is stored of it."""
    runtime: Runtime = runtime_of(request)
    with decoding(run.id):
        block_count = msgspec.json.decode(run.summary, type=RunSummary).step_count or 0
    if run.status == "completed":
        return _completed(run.id, run.flow_id, block_count, await result_of(runtime.store, run))
    if run.status == "paused":
        paused = await runtime.engine.paused(run)
        waiting = tool_calls_required(run.id, run.flow_id, block_count, paused.pause, paused.outputs)
        return await _waits(waiting)
    if run.status == "cancelled":
        error = failure(run.id, RunOutcome("cancelled", error={"message": "cancelled"}))
    else:
        failed = await failure_of(runtime.store, run)
        error = failure(run.id, RunOutcome("failed", error=failed.error, step_id=failed.step_id))
    return StoredResponse(error.status, error_body(error))


_OWN_ANSWERS = frozenset({"BYOK_KEY_REJECTED", "TOOL_ITERATION_LIMIT", "CREDITS_EXHAUSTED"})
"""Codes of a failed run that are the code of the answer too."""


def failure(execution_id: str, outcome: RunOutcome) -> APIError:
    """The error that a run which did not end well is answered with."""
    error = outcome.error or {}
    code, message = error.get("code"), error.get("message")
    details = {"error": error}
    if outcome.status == "cancelled":
        return api_error(
            "STEP_FAILED", f"the run was cancelled: {message}", execution_id=execution_id, details=details
        )
    answered = str(code) if code in _OWN_ANSWERS else "STEP_FAILED"
    if outcome.step_id is None:
        if answered == "STEP_FAILED":
            return api_error("INTERNAL_ERROR", f"the run failed: {message}", execution_id=execution_id)
        return api_error(answered, str(message), execution_id=execution_id, details=details)
    return api_error(
        answered,
        f"step {outcome.step_id!r} failed: {message} ({code})",
        execution_id=execution_id,
        step_id=outcome.step_id,
        details=details,
    )
