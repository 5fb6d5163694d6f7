"""A run from its start, or a paused one from its tool results or next step: the segment that a call asks for.

Whatever a caller sets anew, from fields of steps to their inputs, outputs and tools, is checked here.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from runglass.engine.journal.run_spec import Segment, ToolLoopState, ToolOffer
from runglass.engine.steps.run_context import LiveOutputs
from runglass.errors import api_error
from runglass.flows.arguments import may_hand_in
from runglass.flows.flow import Flow, LlmStep, leaves, step_count, within
from runglass.limits.offload import LARGE_BYTES, offload
from runglass.runtime.runtime import Submitted
from runglass.server.calls.call import Call
from runglass.server.requests.messages import normalize_messages
from runglass.server.requests.parameters import checked_uuid, trace_context_of
from runglass.server.requests.tools import check_tools, match_tool_results, whole_choice
from runglass.server.security.authentication import require_owed, run_of_flow
from runglass.store.keys import LOCAL_KEY
from runglass.wire.run_api import ExecuteRequest, RunRequest, StepRequest, ToolRequest


async def submit(
    call: Call,
    body: RunRequest,
    *,
    version: int | None,
    trigger_type: str,
    segment: Segment | None = None,
    history: Sequence[dict[str, Any]] = (),
    outputs: LiveOutputs | None = None,
    rerun_of: str | None = None,
) -> Submitted:
    """Starts the run on behalf of the call's key. Raises what `Runtime.submit` raises."""
    request, is_local = call.request, call.request.auth.id == LOCAL_KEY
    return await call.runtime.submit(
        call.project,
        call.slug,
        body,
        version=version,
        trigger_type=trigger_type,
        session_id=call.session_id,
        trace_context=trace_context_of(request),
        segment=segment,
        history=history,
        call=call.key,
        outputs=outputs,
        size_bytes=call.size_bytes,
        key_id=None if is_local else request.auth.id,
        started_by=None if is_local else request.auth.hint,
        role=request.auth.role,
        rerun_of=rerun_of,
    )


async def start(
    call: Call,
    body: ToolRequest,
    *,
    version: int | None,
    trigger_type: str,
    outputs: LiveOutputs | None = None,
) -> Submitted:
    """Starts a run of the call's flow that may pause for tools. Raises APIError."""
    assert call.flow is not None, "only a repeated call has none"
    body, history = await offload(partial(normalize_messages, body), size_bytes=call.size_bytes)
    segment = _segment(call, body, call.flow)
    return await submit(
        call,
        body,
        version=version,
        trigger_type=trigger_type,
        segment=segment,
        history=history,
        outputs=outputs,
    )


async def resume(call: Call, body: ToolRequest, *, outputs: LiveOutputs | None = None) -> Submitted:
    """Resumes the paused run that the body names. Raises APIError, DuplicateIdempotencyKey."""
    request, runtime, size_bytes = call.request, call.runtime, call.size_bytes
    run_id = checked_uuid(body.execution_id or "", what="`executionId`")
    run = await run_of_flow(request, call.project.org, call.project.name, call.slug, run_id)
    require_owed(request.auth, run, what="the content")
    call.session_id = run.session_id
    # A path without a version means the version of the run, not the present production version.
    if isinstance(body, StepRequest) and call.number not in (None, run.version):
        message = (
            f"run {run.id!r} walks through version {run.version} of flow {call.slug!r}, not {call.number}"
        )
        raise api_error("STALE_TREE", message, execution_id=run.id)
    paused = await runtime.engine.idle.paused(run)
    first, tool_loop = paused.pause.cursor, paused.pause.tool_loop
    if isinstance(body, ExecuteRequest):
        _require_tool_pause(body, run.id, first, tool_loop)
    elif isinstance(body, StepRequest) and body.step_index is not None and body.step_index < first:
        # From an earlier step it begins anew, with its own tools alone: the model will ask again.
        # A client that counts completed steps is ahead after a loop.
        first, tool_loop = body.step_index, None
    results: list[dict[str, Any]] = []
    if tool_loop is not None:
        given = body.tool_call_messages
        matching = partial(match_tool_results, tool_loop.calls, given, execution_id=run.id)
        results = await offload(matching, size_bytes=size_bytes)
    flow, _ = await runtime.with_overrides(
        call.project,
        paused.spec.flow,
        body.block_overrides,
        None,
        role=request.auth.role,
        size_bytes=size_bytes,
    )
    segment = _segment(
        call,
        body,
        flow,
        first=first,
        offer=None if tool_loop is None else tool_loop.offer,
        results=results,
        step_inputs=paused.step_inputs,
    )
    project = await runtime.current(call.project)
    await runtime.check_models(project, flow)
    runtime.require_credit(project)
    await runtime.require_key(request.auth.id, waited=size_bytes > LARGE_BYTES)
    plan = msgspec.structs.replace(paused.spec, flow=flow)
    started = await runtime.engine.resume(
        paused, plan, segment, call=call.key, outputs=outputs, size_bytes=size_bytes
    )
    return Submitted(started, run.flow_id, step_count(flow))


def _require_tool_pause(
    body: ExecuteRequest, run_id: str, cursor: int, tool_loop: ToolLoopState | None
) -> None:
    if tool_loop is None:
        message = f"run {run_id!r} waits for its next step, not for tool results; continue with `step`"
        raise api_error("RUN_NOT_PAUSED", message, execution_id=run_id)
    if body.paused_at_step not in (None, tool_loop.step_id, cursor):
        raise api_error(
            "PAUSED_STEP_INVALID",
            f"run {run_id!r} waits at step {tool_loop.step_id!r}, not at {body.paused_at_step!r}",
            execution_id=run_id,
            step_id=tool_loop.step_id,
        )


def _segment(
    call: Call,
    body: ToolRequest,
    flow: Flow,
    *,
    first: int = 0,
    offer: ToolOffer | None = None,
    results: Sequence[dict[str, Any]] = (),
    step_inputs: Mapping[str, dict[str, Any]] | None = None,
) -> Segment:
    """The segment to run, with what the call sets; `step_inputs` stay in force without `inputOverrides`.

    Raises FORBIDDEN for inputs of steps that the caller may not set. Clients send all outputs with each call
    of a step-through, so forbidden outputs are no error: the run's own replace them.
    """
    is_step = isinstance(body, StepRequest)
    given = body.input_overrides if isinstance(body, StepRequest) else None
    may_set = may_hand_in(flow, call.request.auth.role)
    if given and not may_set:
        message = (
            f"`inputOverrides`: flow {flow.slug!r} does not let a `run` key set the input of steps; list"
            " 'input' in the flow's `overridable`, or use an `admin` key"
        )
        raise api_error("FORBIDDEN", message, execution_id=body.execution_id)
    ids = {step.id for top in flow.steps for step in within(top)} if given else set()
    of_steps = {name: value for name, value in (given or {}).items() if name in ids and type(value) is dict}
    return Segment(
        first=first,
        last=first if isinstance(body, StepRequest) and not body.run_remaining else None,
        # `execute` has outputs of its caller where it resumes a run.
        outputs=(body.accumulated_outputs or {}) if may_set and (is_step or call.resumes) else {},
        input={name: value for name, value in (given or {}).items() if name not in of_steps} or None,
        step_inputs=dict(step_inputs or {}) if given is None else of_steps,
        block_overrides=body.block_overrides,
        offer=_offer(body, flow, offer),
        results=list(results),
        answers_call=is_step and call.key is not None,
    )


def _offer(body: ToolRequest, flow: Flow, before: ToolOffer | None) -> ToolOffer | None:
    """The tools of the call, or else `before`, those of the paused run; None where there are none.

    A `toolChoice` of the call applies to either. Raises TOOLS_INVALID, TOOL_NAME_INVALID, and
    TOOLS_IN_NON_SEQUENTIAL_STEP or TOOLS_NOT_ENABLED where no step of the flow takes the call's tools.
    """
    tools = body.tools or (before.tools if before is not None else [])
    check_tools(tools, body.tool_choice)
    if body.tools:
        asking = [step for step in leaves(flow.steps) if isinstance(step, LlmStep)]
        top = [step for step in flow.steps if isinstance(step, LlmStep)]
        if asking and not top:
            raise api_error(
                "TOOLS_IN_NON_SEQUENTIAL_STEP",
                f"all llm steps of flow {flow.slug!r} are inside loops, branches or parallel parts, where no"
                " run can wait for tool results",
            )
        if not any(step.tools for step in top):
            message = f"no llm step of flow {flow.slug!r} takes a caller's tools"
            raise api_error("TOOLS_NOT_ENABLED", message)
    if not tools or (not body.tools and body.tool_choice is None):
        return before
    return ToolOffer(tools=tools, choice=whole_choice(body.tool_choice))
