"""One attempt of a leaf step: performed, and recorded from its start to its end.

Being cut off is an end too: an ended run has no step that still runs.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.budget import BudgetExceeded
from runglass.engine.payload import LARGE_BYTES
from runglass.engine.scheduling.memory_budget import MemoryHold, encode
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.handlers import (
    AttemptResult,
    LlmContext,
    model_request,
    perform,
    performed,
    rendered_prompt,
)
from runglass.engine.steps.model_turn import ask_model
from runglass.engine.steps.outcomes import AwaitingToolResults, out_of_credit
from runglass.engine.steps.run_context import RunContext
from runglass.errors import StepFailure, StoreError, without_traceback
from runglass.flows.flow import LeafStep, LlmStep, WaitStep

log = logging.getLogger(__name__)

MAX_TOOL_ITERATIONS = 25
"""How often the model of one step may ask for tools: ends a conversation that leads nowhere."""


async def run_attempt(
    context: RunContext,
    attempt: AttemptRecorder,
    step: LeafStep,
    names: MutableMapping[str, Any],
    llm_context: LlmContext,
    failure: StepFailure | None,
    waited_s: float,
    room: MemoryHold | None,
) -> AttemptResult | StepFailure:
    """Records the attempt from its start to its end; a failure is returned, and recorded by the caller.

    Raises AwaitingToolResults, CreditsExhausted and StoreError.
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
            await context.recorder.await_previous_append()
        finally:
            is_full = turns.leave()
        # Here and not before the start, which would then go to the store by itself.
        if is_full:
            await turns.turn()
        if failure is not None:
            return failure
        if isinstance(step, LlmStep):
            request = await model_request(step, names, context, llm_context)
            await attempt.prompt(rendered_prompt(request))
            limit = asyncio.timeout(None)
            if room is not None:
                # A model may take minutes. Values decoded for its prompt are let go of, or other steps
                # would have to wait for the room until this answer has come.
                names.clear()
                room.give_back()
            async with context.dependencies.model_turns.turn(context.project_id):
                done = performed(request, await ask_model(context, attempt, step, request, limit))
        else:
            work = perform(step, attempt.data, names, context, waited_s=waited_s)
            if isinstance(step, WaitStep) and attempt.data.holding is not None:
                work = context.memory.without(attempt.data, work)
            if step.timeout_ms is None:
                done = await work
            else:
                limit = asyncio.timeout(step.timeout_ms / 1000)
                async with limit:
                    done = await work
        await encode(done.output)
        await context.capture.prepare(done.output)
        if done.calls:
            raise AwaitingToolResults(_tool_loop(attempt, done, llm_context))
        size = done.output.size_bytes
        if size >= LARGE_BYTES:
            context.memory.require_room(size, step_id=step.id)
        context.usage.keep(size, step_id=step.id)
        attempt.complete(done)
    except StepFailure as error:
        return without_traceback(error)
    except asyncio.CancelledError:
        _cut(context, attempt)
        raise
    except BudgetExceeded as error:
        # As above: the attempt ends with the run.
        attempt.record_failed_input()
        raise out_of_credit(context.stop, step.id, f"step {step.id!r}: {error}") from error
    except (StoreError, AwaitingToolResults):
        raise
    except Exception as error:
        if limit is not None and limit.expired():
            message = f"attempt {attempt.number} of step {step.id!r} took longer than {step.limit_ms} ms"
            return StepFailure("STEP_TIMEOUT", message)
        log.exception("step %r of run %s failed inside the engine", step.id, context.run_id)
        message = f"{type(error).__name__} inside the engine; see the server's log"
        return StepFailure("INTERNAL_ERROR", message, may_retry=False)
    return done


async def prepare_failure(context: RunContext, attempt: AttemptRecorder, failure: StepFailure) -> None:
    """As `AttemptRecorder.prepare_failure`; an attempt that is cut off meanwhile is recorded as such."""
    try:
        await attempt.prepare_failure(failure)
    except asyncio.CancelledError:
        _cut(context, attempt)
        raise


def _cut(context: RunContext, attempt: AttemptRecorder) -> None:
    """Records how an attempt that is cut off ends."""
    if context.stop.is_last_word:
        # The event that ends the run ends the attempt: clients take a `step_error` for the last word.
        attempt.record_failed_input()
    elif not context.stop.left:
        attempt.cut_off(StepFailure("CANCELLED", f"step {attempt.step.id!r} was cut off", may_retry=False))


def _tool_loop(attempt: AttemptRecorder, done: AttemptResult, llm_context: LlmContext) -> ToolLoopState:
    """The turns so far, with the one that has asked for tools."""
    assert llm_context.offer is not None
    tool_loop = ToolLoopState(
        step_id=attempt.step.id,
        attempt=attempt.number,
        tried=attempt.tried,
        messages=done.messages,
        calls=done.calls,
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
