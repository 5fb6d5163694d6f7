"""One attempt of a leaf step: its work, recorded from its start to its end.

Being cut off is an end too: an ended run has no step that still runs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, MutableMapping
from contextlib import ExitStack
from functools import partial
from typing import Any, assert_never

import msgspec

from runglass.engine.journal.run_spec import ToolLoopState, ToolOffer
from runglass.engine.models.budget import BudgetExceeded
from runglass.engine.models.model_types import ModelAnswer, ModelRequest, last_user_text
from runglass.engine.payload import Payload
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.model_turn import ask_model
from runglass.engine.steps.outcomes import AwaitingToolResults
from runglass.engine.steps.run_context import RunContext
from runglass.errors import StepFailure, StoreError, without_traceback
from runglass.flows.flow import CodeStep, LeafStep, LlmStep, PassthroughStep, PlainStep, WaitStep
from runglass.limits.memory import COUNTED_BYTES
from runglass.wire.run_api import Attachment

log = logging.getLogger(__name__)

MAX_TOOL_ITERATIONS = 25
"""How often the model of one step may ask for tools: ends a conversation that leads nowhere."""


class LlmContext(msgspec.Struct, frozen=True, kw_only=True):
    """The context of an llm step beside its fields: turns before its prompt, tools, earlier turns."""

    history: list[dict[str, Any]] = []
    attachments: list[Attachment] = []
    offer: ToolOffer | None = None
    messages: list[dict[str, Any]] = []


async def run_attempt(
    context: RunContext,
    attempt: AttemptRecorder,
    step: LeafStep,
    names: MutableMapping[str, Any],
    llm_context: LlmContext,
    failure: StepFailure | None,
    waited_s: float,
    room: ExitStack | None,
) -> Payload | StepFailure:
    """The output of the attempt, recorded; or its failure, which the caller records.

    Raises AwaitingToolResults, LimitReached and StoreError.
    """
    if attempt.tool_loop is None:
        attempt.start()
    else:
        await attempt.record_resume([turn for turn in llm_context.messages if turn.get("role") == "tool"])
    limit: asyncio.Timeout | None = None
    try:
        turns = context.store_turns
        turns.inside += 1
        try:
            await context.writer.await_previous_append()
        finally:
            is_full = turns.leave()
        # Here and not before the start, which would then go to the store by itself.
        if is_full:
            await turns.turn()
        if failure is not None:
            return failure
        if isinstance(step, LlmStep):
            request = await model_request(step, names, context, llm_context)
            await attempt.prompt(last_user_text(request.messages))
            limit = asyncio.timeout(None)
            if room is not None:
                # A model may take minutes. Values decoded for its prompt are let go of, or other steps
                # would have to wait for the room until this answer has come.
                names.clear()
                room.close()
            async with context.model_calls.turn(context.project_id):
                answer = await ask_model(context, attempt, step, request, limit)
            if answer.response.tool_calls:
                raise AwaitingToolResults(_tool_loop(attempt, request, answer, llm_context))
            output = Payload(answer.output)
        else:
            work = perform(step, attempt.data, names, context, waited_s)
            if isinstance(work, Payload):
                output = work
            else:
                if step.timeout_ms is None:
                    value = await work
                else:
                    limit = asyncio.timeout(step.timeout_ms / 1000)
                    async with limit:
                        value = await work
                if isinstance(step, WaitStep):
                    output = attempt.data
                elif isinstance(value, dict):
                    output = Payload(value)
                else:
                    kind = "nothing" if value is None else f"a value of type {type(value).__name__}"
                    raise StepFailure(
                        "INVALID_OUTPUT",
                        f"the code of step {step.id!r} returned {kind}; it must return an object",
                    )
        await context.capture.prepare(output)
        size = output.size_bytes
        if size >= COUNTED_BYTES:
            context.memory.require_room(size, step_id=step.id)
        context.usage.keep(size, step_id=step.id)
        attempt.complete(output)
    except StepFailure as error:
        return without_traceback(error)
    except asyncio.CancelledError:
        _abandon(context, attempt)
        raise
    except BudgetExceeded as error:
        # The attempt ends with the run, which fails: its input is told as that of a failed one.
        attempt.record_failed_input()
        told = {"code": "CREDITS_EXHAUSTED", "message": f"step {step.id!r}: {error}"}
        raise context.stop.reached(step.id, told) from error
    except (StoreError, AwaitingToolResults):
        raise
    except Exception as error:
        if limit is not None and limit.expired():
            message = f"attempt {attempt.number} of step {step.id!r} took longer than {step.limit_ms} ms"
            return StepFailure("STEP_TIMEOUT", message)
        log.exception("step %r of run %s failed inside the engine", step.id, context.run_id)
        message = f"{type(error).__name__} inside the engine; see the server's log"
        return StepFailure("INTERNAL_ERROR", message, may_retry=False)
    return output


async def prepare_failure(context: RunContext, attempt: AttemptRecorder, failure: StepFailure) -> None:
    """As `AttemptRecorder.prepare_failure`; an attempt that is cut off meanwhile is recorded as such."""
    try:
        await attempt.prepare_failure(failure)
    except asyncio.CancelledError:
        _abandon(context, attempt)
        raise


def _abandon(context: RunContext, attempt: AttemptRecorder) -> None:
    """Records how an attempt that is cut off ends."""
    if context.stop.is_last_word:
        # The event that ends the run ends the attempt: clients take a `step_error` for the last word.
        attempt.record_failed_input()
    elif not context.stop.left:
        attempt.abandon(StepFailure("CANCELLED", f"step {attempt.step.id!r} was cut off", may_retry=False))


def perform(
    step: PlainStep, data: Payload, names: Mapping[str, Any], context: RunContext, waited_s: float
) -> Payload | Awaitable[Any]:
    """The output of a leaf step that asks no model, or what is to be awaited for it. Raises StepFailure.

    `waited_s` is how long a wait step has waited in attempts that were cut off.
    """
    match step:
        case CodeStep():
            return context.dependencies.sandbox.run(step.code, names, project_id=context.project_id)
        case WaitStep():
            wait = context.dependencies.clock.sleep(max(0.0, step.ms / 1000 - waited_s))
            return wait if data.holding is None else context.memory.without(data, wait)
        case PassthroughStep():
            return data
    assert_never(step)


async def model_request(
    step: LlmStep, names: Mapping[str, Any], context: RunContext, llm_context: LlmContext
) -> ModelRequest:
    """The request of an llm step to its model in this turn. Raises StepFailure."""
    render = partial(context.dependencies.templates.render, names=names, project_id=context.project_id)
    messages = llm_context.messages
    system = None if step.system is None else await render(step.system)
    if not messages:
        prompt = _message(step, names) if step.prompt is None else await render(step.prompt)
        user: dict[str, Any] = {"role": "user", "content": prompt}
        if llm_context.attachments:
            user["attachments"] = msgspec.to_builtins(llm_context.attachments)
        messages = [*llm_context.history, user]
    return ModelRequest(
        model=step.model,
        system=system,
        messages=messages,
        settings=step.settings,
        output_schema=step.output_schema,
        tools=llm_context.offer.tools if llm_context.offer else [],
        tool_choice=llm_context.offer.choice if llm_context.offer else None,
        timeout_s=step.limit_ms / 1000,
    )


def _message(step: LlmStep, names: Mapping[str, Any]) -> str:
    """The prompt of a step that has none of its own."""
    message = names.get("message", names["initial"].get("message"))
    if not isinstance(message, str):
        raise StepFailure(
            "TEMPLATE_ERROR",
            f"step {step.id!r} has no `prompt` and the run has no text `message`; give one of the two",
            may_retry=False,
        )
    return message


def _tool_loop(
    attempt: AttemptRecorder, request: ModelRequest, answer: ModelAnswer, llm_context: LlmContext
) -> ToolLoopState:
    """The turns so far, with the one that has asked for tools."""
    assert llm_context.offer is not None
    calls = answer.response.tool_calls
    asked = {"role": "assistant", "content": answer.output.get("text") or None, "toolCalls": calls}
    tool_loop = ToolLoopState(
        step_id=attempt.step.id,
        attempt=attempt.number,
        tried=attempt.tried,
        messages=[*request.messages, asked],
        calls=calls,
        iterations_used=attempt.tool_loop.iterations_used + 1 if attempt.tool_loop else 1,
        offer=llm_context.offer,
        duration_ms=attempt.duration_ms or 0,
    )
    if tool_loop.iterations_used > MAX_TOOL_ITERATIONS:
        raise StepFailure(
            "TOOL_ITERATION_LIMIT",
            f"step {attempt.step.id!r}: the model asked for tools more than {MAX_TOOL_ITERATIONS} times",
            may_retry=False,
        )
    return tool_loop
