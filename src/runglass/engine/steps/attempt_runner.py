"""One attempt of a leaf step: performed, and recorded from its start to its end.

Being cut off is an end too: an ended run has no step that still runs.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.budget import BudgetExceeded, RunBudget
from runglass.engine.models.gateway import ModelAnswer, ModelRequest
from runglass.engine.payload import LARGE_BYTES
from runglass.engine.scheduling.drain import StopRequest
from runglass.engine.scheduling.memory_budget import MemoryHold, RunMemory, encode
from runglass.engine.scheduling.run_limits import Allowance
from runglass.engine.scheduling.store_turns import StoreTurns
from runglass.engine.steps.attempt_context import AttemptContext
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.deadline import within
from runglass.engine.steps.dependencies import StepDependencies
from runglass.engine.steps.handlers import (
    AttemptResult,
    LlmContext,
    model_request,
    perform,
    performed,
    rendered_prompt,
)
from runglass.engine.steps.model_call import ask_model
from runglass.engine.steps.outcomes import AwaitingToolResults, out_of_credit
from runglass.errors import StepFailure, StoreError, without_traceback
from runglass.flows.flow import LeafStep, LlmStep, WaitStep

log = logging.getLogger(__name__)

MAX_TOOL_ITERATIONS = 25
"""How often the model of one step may ask for tools: ends a conversation that leads nowhere."""


class AttemptRunner:
    """Runs the attempts of one run."""

    def __init__(
        self,
        writing: AttemptContext,
        *,
        dependencies: StepDependencies,
        ending: StopRequest,
        memory: RunMemory,
        allowance: Allowance,
        store_turns: StoreTurns,
        budget: RunBudget | None,
    ) -> None:
        self._writing = writing
        self._dependencies = dependencies
        self._ending = ending
        self._memory = memory
        self._allowance = allowance
        self._store_turns = store_turns
        self._budget = budget

    async def run(
        self,
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
            self._store_turns.inside += 1
            try:
                await self._writing.recorder.await_previous_append()
            finally:
                is_full = self._store_turns.leave()
            # Here and not before the start, which would then go to the store by itself.
            if is_full:
                await self._store_turns.turn()
            if failure is not None:
                return failure
            if isinstance(step, LlmStep):
                request = await model_request(step, names, self._dependencies, llm_context)
                await attempt.prompt(rendered_prompt(request))
                limit = asyncio.timeout(None)
                if room is not None:
                    # A model may take minutes. Values decoded for its prompt are let go of, or other steps
                    # would have to wait for the room until this answer has come.
                    names.clear()
                    room.give_back()
                done = performed(request, await self._ask(attempt, step, request, limit))
            else:
                work = perform(step, attempt.data, names, self._dependencies, waited_s=waited_s)
                if isinstance(step, WaitStep) and attempt.data.holding is not None:
                    work = self._memory.without(attempt.data, work)
                if step.limit_ms is None:
                    done = await work
                else:
                    limit = asyncio.timeout(None)
                    async with within(limit, step.limit_ms):
                        done = await work
            await encode(done.output)
            await self._writing.capture.prepare(done.output)
            if done.calls:
                raise AwaitingToolResults(self._wait(attempt, done, llm_context))
            size = done.output.size_bytes
            if size >= LARGE_BYTES:
                self._memory.require_room(size, step_id=step.id)
            self._allowance.keep(size, step_id=step.id)
            attempt.complete(done)
        except StepFailure as error:
            return without_traceback(error)
        except asyncio.CancelledError:
            self._cut(attempt)
            raise
        except BudgetExceeded as error:
            # As above: the attempt ends with the run.
            attempt.record_failed_input()
            raise out_of_credit(self._ending, step.id, f"step {step.id!r}: {error}") from error
        except (StoreError, AwaitingToolResults):
            raise
        except Exception as error:
            if limit is not None and limit.expired():
                message = f"attempt {attempt.number} of step {step.id!r} took longer than {step.limit_ms} ms"
                return StepFailure("STEP_TIMEOUT", message)
            log.exception("step %r of run %s failed inside the engine", step.id, self._writing.execution_id)
            message = f"{type(error).__name__} inside the engine; see the server's log"
            return StepFailure("INTERNAL_ERROR", message, may_retry=False)
        return done

    async def prepare_failure(self, attempt: AttemptRecorder, failure: StepFailure) -> None:
        """As `AttemptRecorder.prepare_failure`; an attempt that is cut off meanwhile is recorded as such."""
        try:
            await attempt.prepare_failure(failure)
        except asyncio.CancelledError:
            self._cut(attempt)
            raise

    def _cut(self, attempt: AttemptRecorder) -> None:
        """Records how an attempt that is cut off ends."""
        step_id = attempt.step.id
        if self._ending.is_last_word:
            # The event that ends the run ends the attempt: clients take a `step_error` for the last word.
            attempt.record_failed_input()
        elif not self._ending.left:
            attempt.cut_off(StepFailure("CANCELLED", f"step {step_id!r} was cut off", may_retry=False))

    async def _ask(
        self, attempt: AttemptRecorder, step: LlmStep, request: ModelRequest, limit: asyncio.Timeout
    ) -> ModelAnswer:
        """The model's answer, asked for when it is the project's turn."""
        async with self._dependencies.model_turns.turn(self._dependencies.project_id):
            return await ask_model(
                attempt,
                step,
                request,
                limit,
                writing=self._writing,
                models=self._dependencies.models,
                budget=self._budget,
                ending=self._ending,
            )

    def _wait(self, attempt: AttemptRecorder, done: AttemptResult, llm_context: LlmContext) -> ToolLoopState:
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
