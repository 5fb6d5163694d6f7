"""The attempts of leaf steps: when a step is tried, with what input, and how often."""

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from datetime import datetime
from typing import Any, NoReturn

from runglass.engine.journal.checkpoints import StepPosition
from runglass.engine.journal.resume import InterruptedAttempt
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.payload import Payload
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.attempt_runner import LlmContext, prepare_failure, run_attempt
from runglass.engine.steps.interrupted_attempts import InterruptedAttempts
from runglass.engine.steps.outcomes import (
    PROVIDER_RETRY,
    StepFailedPermanently,
    delay_after,
    end_if_repeated,
    retry_or_fail,
)
from runglass.engine.steps.run_context import RunContext
from runglass.engine.steps.scope import Scope, names_for, needed_by, uses_names
from runglass.errors import StepFailure, without_traceback
from runglass.flows.flow import ForwardingStep, LeafStep, Step, WaitStep
from runglass.log.fold import Address, StepChange

NOT_HELD = nullcontext()


class StepExecutor:
    """Runs the leaf steps of one run.

    `earlier` holds steps that have been run before and may be run again, `interrupted` the attempts whose
    process died. `step_inputs` by step id stand over fields of a step's input.
    """

    __slots__ = ("_context", "_earlier", "_step_inputs", "interrupted")

    def __init__(
        self,
        context: RunContext,
        interrupted: InterruptedAttempts,
        *,
        earlier: Mapping[Address, StepChange],
        step_inputs: Mapping[str, dict[str, Any]],
    ) -> None:
        self.interrupted = interrupted
        self._context = context
        self._earlier = earlier
        self._step_inputs = step_inputs

    async def run(
        self,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        position: StepPosition,
        llm_context: LlmContext,
        tool_loop: ToolLoopState | None = None,
    ) -> Payload:
        """The step's output, after as many attempts as it takes; `tool_loop` goes on with one that waited.

        Raises StepFailedPermanently, AwaitingToolResults, LimitReached and StoreError.
        """
        context = self._context
        if context.writer.log_bytes > context.usage.log_bytes:
            self._end_at_limit(step)
        if context.budget is not None and not await context.budget.has_credit():
            message = f"the project's budget is spent; step {step.id!r} was not begun"
            raise context.stop.reached(step.id, {"code": "CREDITS_EXHAUSTED", "message": message})
        waited_s = 0.0
        interrupted = self.interrupted.take(step, position) if self.interrupted.attempts else None
        if interrupted is not None:
            await self._go_on_after(interrupted, step, data, scope, position, tool_loop)
            number, tried, tool_loop = interrupted.change.step.attempt + 1, interrupted.failures + 1, None
            waited_s = self.seconds_since(interrupted.since)
        else:
            number = tool_loop.attempt if tool_loop else self.next_attempt(step.id, position)
            tried = tool_loop.tried if tool_loop else 1
        server_error: int | None = None
        delay_ms = 0
        while True:
            if context.gate.closed:
                await context.gate.opened()
            # A stop does not wait for a wait step: its deadline is kept in the log.
            with NOT_HELD if isinstance(step, WaitStep) else context.gate:
                # A wait may take a day: it is not to keep other steps from decoding.
                async with self._in_memory(step, data, scope, decoded=not isinstance(step, WaitStep)) as room:
                    given, names, failure = await self._input_of(step, data, scope, number)
                    attempt = AttemptRecorder(
                        context, step, given, position, number, tool_loop=tool_loop, tried=tried
                    )
                    outcome = await run_attempt(
                        context, attempt, step, names, llm_context, failure, waited_s, room
                    )
                    if not isinstance(outcome, Payload):
                        server_error = end_if_repeated(outcome, server_error)
                        await prepare_failure(context, attempt, outcome)
                        delay_ms = retry_or_fail(attempt, outcome)
            if isinstance(outcome, Payload):
                # Not before: what the step has used may now be put away for its output.
                context.memory.keep(outcome, (step.id, position.path_text))
                return outcome
            # Nothing of the attempt is held on to while the next one is waited for.
            del names, given, attempt, outcome
            await context.dependencies.clock.sleep(delay_ms / 1000)
            number, tried, tool_loop = number + 1, tried + 1, None
            if context.writer.log_bytes > context.usage.log_bytes:
                self._end_at_limit(step)

    async def pace(self, step: Step) -> None:
        """To be called where events of a container are recorded: there may be any number of them in a row.

        Lets other runs on the event loop while they are stored. Raises LimitReached and StoreError.
        """
        writer = self._context.writer
        if writer.log_bytes > self._context.usage.log_bytes:
            self._end_at_limit(step)
        if writer.is_behind:
            await writer.await_previous_append()

    def _end_at_limit(self, step: Step) -> NoReturn:
        context = self._context
        raise context.stop.reached(step.id, context.usage.log_is_full(step.id, context.writer.log_bytes))

    def next_attempt(self, step_id: str, position: StepPosition) -> int:
        """The number of the next attempt, which takes the place in the trace that the step has already."""
        open_step = self._context.writer.fold.open_step(step_id, position.loop_path)
        if open_step is not None:
            return open_step.attempt + 1
        known = self._earlier.get(Address(step_id, position.loop_path))
        if known is None:
            return 1
        self._context.writer.fold.reopen(known)
        return known.step.attempt + 1

    def overridden(self, step: Step, data: Payload) -> Payload:
        """The step's input with the fields that the call sets."""
        fields = self._step_inputs.get(step.id)
        return Payload({**(data.value or {}), **fields}) if fields else data

    async def fail(self, step: Step, data: Payload, failure: StepFailure, position: StepPosition) -> NoReturn:
        """Records that a container failed by itself, which alone puts it into a trace.

        Raises StepFailedPermanently.
        """
        async with self._context.memory.using([data], decoded=False):
            number = self.next_attempt(step.id, position)
            attempt = AttemptRecorder(self._context, step, data, position, number)
            await attempt.prepare_failure(failure)
            attempt.start()
            raise StepFailedPermanently(attempt.record_failure(failure)) from failure

    async def _go_on_after(
        self,
        interrupted: InterruptedAttempt,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        position: StepPosition,
        tool_loop: ToolLoopState | None,
    ) -> None:
        """Ends the interrupted attempt; returns when the next one may begin.

        Raises StepFailedPermanently where none may.
        """
        before = interrupted.change.step
        if before.status != "running":
            # It had failed and was to be tried again after a while, which has passed in part or as a whole.
            retry = step.retry or PROVIDER_RETRY
            delay_s = delay_after(before.error_context or {}, retry, max(1, interrupted.failures)) / 1000
            passed_s = self.seconds_since(before.completed_at or before.started_at or "")
            await self._context.dependencies.clock.sleep(min(delay_s, max(0.0, delay_s - passed_s)))
            return
        async with self._in_memory(step, data, scope):
            given, _, _ = await self._input_of(step, data, scope, before.attempt)
            attempt = AttemptRecorder(self._context, step, given, position, before.attempt)
            self.interrupted.end(interrupted, attempt, step, tool_loop)

    def seconds_since(self, moment: str) -> float:
        """How long ago a time of the log was; 0 for one that is not known."""
        if not moment:
            return 0.0
        # Never negative: clocks are set back now and then.
        return max(
            0.0, (self._context.dependencies.clock.now() - datetime.fromisoformat(moment)).total_seconds()
        )

    def _in_memory(
        self, step: LeafStep, data: Payload, scope: Scope, *, decoded: bool = True
    ) -> AbstractAsyncContextManager[ExitStack | None]:
        """Inside the block the large payloads that the step needs are in memory."""
        # Most runs have none.
        if data.holding is None and not scope.seen.large:
            return NOT_HELD
        needed = needed_by(step, data, scope)
        return self._context.memory.using(needed, decoded=decoded and uses_names(step))

    async def _input_of(
        self, step: LeafStep, data: Payload, scope: Scope, number: int
    ) -> tuple[Payload, MutableMapping[str, Any], StepFailure | None]:
        """The step's input, its own or the output before it, and the names that the step sees.

        A failure to make the input belongs to the attempt.
        """
        given, failure = data, None
        names: MutableMapping[str, Any] = {}
        if step.input is not None:
            names = await names_for(step, data, scope, attempt=number)
            try:
                templates, project_id = self._context.dependencies.templates, self._context.project_id
                given = Payload(await templates.render_input(step.input, names, project_id=project_id))
            except StepFailure as error:
                failure = without_traceback(error)
        if step.id in self._step_inputs:
            given = self.overridden(step, given)
        await self._context.capture.prepare(given)
        if isinstance(step, ForwardingStep):
            return given, {}, failure
        if step.input is None or given is not data:
            names = await names_for(step, given, scope, attempt=number)
        return given, names, failure
