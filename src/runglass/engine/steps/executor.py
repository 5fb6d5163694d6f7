"""The attempts of leaf steps: when a step is tried, with what input, and how often."""

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from typing import Any, NoReturn

from runglass.engine.journal.resume import InterruptedAttempt
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.budget import RunBudget
from runglass.engine.payload import Payload
from runglass.engine.scheduling.drain import DrainGate, StopRequest
from runglass.engine.scheduling.memory_budget import RunMemory, encode
from runglass.engine.scheduling.run_limits import Allowance
from runglass.engine.scheduling.store_turns import StoreTurns
from runglass.engine.scope import Scope, StepPosition
from runglass.engine.steps.attempt_context import AttemptContext
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.attempt_runner import AttemptRunner
from runglass.engine.steps.dependencies import StepDependencies
from runglass.engine.steps.handlers import AttemptResult, LlmContext
from runglass.engine.steps.interrupted_attempts import InterruptedAttempts
from runglass.engine.steps.outcomes import StepFailedPermanently, out_of_credit
from runglass.engine.steps.retries import PROVIDER_RETRY, delay_after, end_if_repeated, retry_or_fail
from runglass.engine.steps.step_variables import names_for, needed_by, uses_names
from runglass.errors import StepFailure, without_traceback
from runglass.flows.flow import ForwardingStep, LeafStep, Step, WaitStep
from runglass.log.fold import Address, StepChange

NOT_HELD = nullcontext()


class StepExecutor:
    """Runs the leaf steps of one run.

    `earlier` holds steps that have been run before and may be run again, `cut_off` those whose process died;
    that may happen to a step `crash_retries` times. `step_inputs` by step id stand over fields of a step's
    input. `budget` is asked before each step and before each request to a model. `memory` and `allowance` are
    those of the run; `store_turns` are those of the project.
    """

    def __init__(
        self,
        writing: AttemptContext,
        *,
        dependencies: StepDependencies,
        gate: DrainGate,
        ending: StopRequest,
        crash_retries: int,
        memory: RunMemory,
        allowance: Allowance,
        store_turns: StoreTurns,
        budget: RunBudget | None = None,
        earlier: Mapping[Address, StepChange] | None = None,
        cut_off: Mapping[Address, InterruptedAttempt] | None = None,
        step_inputs: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self.interrupted = InterruptedAttempts(writing, cut_off, crash_retries=crash_retries)
        self._runner = AttemptRunner(
            writing,
            dependencies=dependencies,
            ending=ending,
            memory=memory,
            allowance=allowance,
            store_turns=store_turns,
            budget=budget,
        )
        self._writing = writing
        self._dependencies = dependencies
        self._gate = gate
        self._ending = ending
        self._budget = budget
        self._memory = memory
        self._allowance = allowance
        self._store_turns = store_turns
        self._earlier = {} if earlier is None else earlier
        self._step_inputs = {} if step_inputs is None else step_inputs

    async def run(
        self,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        place: StepPosition,
        llm_context: LlmContext,
        tool_loop: ToolLoopState | None = None,
    ) -> Payload:
        """The step's output, after as many attempts as it takes; `tool_loop` goes on with one that waited.

        Raises StepFailedPermanently, AwaitingToolResults, CreditsExhausted, LimitReached and StoreError.
        """
        if self._writing.recorder.log_bytes > self._allowance.log_bytes:
            self._end_at_limit(step)
        if self._budget is not None and not await self._budget.has_credit():
            raise out_of_credit(
                self._ending, step.id, f"the project's budget is spent; step {step.id!r} was not begun"
            )
        waited_s, has_names = 0.0, uses_names(step)
        cut_off = self.interrupted.take(step, place) if self.interrupted.attempts else None
        if cut_off is not None:
            await self._go_on_after(cut_off, step, data, scope, place, tool_loop)
            number, tried, tool_loop = cut_off.change.step.attempt + 1, cut_off.failures + 1, None
            waited_s = self._seconds_since(cut_off.since)
        else:
            number = tool_loop.attempt if tool_loop else self.next_attempt(step.id, place)
            tried = tool_loop.tried if tool_loop else 1
        server_error: int | None = None
        while True:
            await self._gate.opened()
            # A stop does not wait for a wait step: its deadline is kept in the log.
            with NOT_HELD if isinstance(step, WaitStep) else self._gate:
                needed = needed_by(step, data, scope) if has_names or data.holding is not None else ()
                # A wait may take a day: it is not to keep other steps from decoding.
                async with (
                    self._memory.using(needed, decoded=has_names and not isinstance(step, WaitStep))
                    if needed
                    else NOT_HELD
                ) as room:
                    names = await names_for(step, data, scope, attempt=number) if has_names else {}
                    given, failure = await self._input_of(step, data, names)
                    attempt = AttemptRecorder(
                        self._writing, step, given, place, number, tool_loop=tool_loop, tried=tried
                    )
                    if has_names and isinstance(step, ForwardingStep):
                        names = {}
                    elif given is not data and has_names:
                        names = await names_for(step, given, scope, attempt=number)
                    outcome = await self._runner.run(
                        attempt, step, names, llm_context, failure, waited_s, room
                    )
                    if isinstance(outcome, AttemptResult):
                        return outcome.output
                    server_error = end_if_repeated(outcome, server_error)
                    await self._runner.prepare_failure(attempt, outcome)
                    delay_ms = retry_or_fail(attempt, outcome)
            # Nothing of the attempt is held on to while the next one is waited for.
            del names, given, attempt, outcome
            await self._dependencies.clock.sleep(delay_ms / 1000)
            number, tried, tool_loop = number + 1, tried + 1, None
            if self._writing.recorder.log_bytes > self._allowance.log_bytes:
                self._end_at_limit(step)

    async def turn(self) -> None:
        """Returns when it is the run's turn to go on: no run may hold the event loop for long."""
        if self._store_turns.is_full:
            await self._store_turns.turn()

    async def pace(self, step: Step) -> None:
        """To be called where events of a container are recorded: there may be any number of them in a row.

        Lets other runs on the event loop while they are stored. Raises LimitReached and StoreError.
        """
        recorder = self._writing.recorder
        if recorder.log_bytes > self._allowance.log_bytes:
            self._end_at_limit(step)
        if recorder.is_behind:
            await recorder.await_previous_append()

    def _end_at_limit(self, step: Step) -> NoReturn:
        self._ending.limit = self._allowance.log_is_full(step.id, self._writing.recorder.log_bytes)
        raise self._ending.limit

    def next_attempt(self, step_id: str, place: StepPosition) -> int:
        """The number of the next attempt, which takes the place in the trace that the step has already."""
        begun = self._writing.recorder.fold.open_step(step_id, place.loop_path)
        if begun is not None:
            return begun.attempt + 1
        known = self._earlier.get(Address(step_id, place.loop_path))
        if known is None:
            return 1
        self._writing.recorder.fold.reopen(known)
        return known.step.attempt + 1

    def overridden(self, step: Step, data: Payload) -> Payload:
        """The step's input with the fields that the call sets."""
        fields = self._step_inputs.get(step.id)
        return Payload({**(data.value or {}), **fields}) if fields else data

    async def fail(self, step: Step, data: Payload, failure: StepFailure, place: StepPosition) -> NoReturn:
        """Records that a container failed by itself, which alone puts it into a trace.

        Raises StepFailedPermanently.
        """
        attempt = AttemptRecorder(self._writing, step, data, place, self.next_attempt(step.id, place))
        await attempt.prepare_failure(failure)
        attempt.start()
        raise StepFailedPermanently(attempt.record_failure(failure)) from failure

    async def _go_on_after(
        self,
        cut_off: InterruptedAttempt,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        place: StepPosition,
        tool_loop: ToolLoopState | None,
    ) -> None:
        """Ends the attempt that was cut off; returns when the next one may begin.

        Raises StepFailedPermanently where none may.
        """
        before = cut_off.change.step
        if before.status != "running":
            # It had failed and was to be tried again after a while, which has passed in part or as a whole.
            retry = step.retry or PROVIDER_RETRY
            delay_s = delay_after(before.error_context or {}, retry, max(1, cut_off.failures)) / 1000
            passed_s = self._seconds_since(before.completed_at or before.started_at or "")
            await self._dependencies.clock.sleep(min(delay_s, max(0.0, delay_s - passed_s)))
            return
        needed = needed_by(step, data, scope)
        async with self._memory.using(needed, decoded=uses_names(step)) if needed else NOT_HELD:
            names = await names_for(step, data, scope, attempt=before.attempt) if uses_names(step) else {}
            given, _ = await self._input_of(step, data, names)
            attempt = AttemptRecorder(self._writing, step, given, place, before.attempt)
            self.interrupted.end(cut_off, attempt, step, tool_loop)

    def _seconds_since(self, moment: str) -> float:
        if not moment:
            return 0.0
        # Never negative: clocks are set back now and then.
        return max(0.0, (self._dependencies.clock.now() - datetime.fromisoformat(moment)).total_seconds())

    async def _input_of(
        self, step: LeafStep, data: Payload, names: Mapping[str, Any]
    ) -> tuple[Payload, StepFailure | None]:
        """The step's input, its own or the output before it; a failure to make it belongs to the attempt."""
        failure = None
        if step.input is not None:
            try:
                dependencies = self._dependencies
                given = await dependencies.templates.render_input(
                    step.input, names, project_id=dependencies.project_id
                )
                data = Payload(given)
            except StepFailure as error:
                failure = without_traceback(error)
        data = self.overridden(step, data)
        await encode(data)
        await self._writing.capture.prepare(data)
        return data, failure
