"""The attempts of leaf steps: how often a step is tried, and that each try is recorded to its end.

Being cut off is an end too: an ended run has no step that still runs.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any, NoReturn

from runglass.engine.drain import DrainGate, StopRequest
from runglass.engine.journal.checkpoints import FailureCheckpoint
from runglass.engine.journal.resume import WORKER_LOST, InterruptedAttempt
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.budget import BudgetExceeded, RunBudget
from runglass.engine.models.gateway import ModelAnswer, ModelCallFailed, ModelRequest
from runglass.engine.payload import LARGE_BYTES, Payload
from runglass.engine.scheduling.memory_budget import MemoryHold, RunMemory, encode
from runglass.engine.scheduling.run_limits import Allowance
from runglass.engine.scheduling.store_turns import StoreTurns
from runglass.engine.scope import Scope, StepPosition
from runglass.engine.step_variables import PASSES_ON, names_for, needed_by, uses_names
from runglass.engine.steps.attempt_recorder import AttemptContext, AttemptRecorder
from runglass.engine.steps.call_recorder import lost_call
from runglass.engine.steps.handlers import (
    AttemptResult,
    LlmContext,
    StepDependencies,
    model_request,
    perform,
    performed,
    rendered_prompt,
)
from runglass.engine.steps.model_turn import ModelTurn
from runglass.engine.steps.text_batcher import TextBatcher
from runglass.errors import StepFailure, StoreError, without_traceback
from runglass.flow import LeafStep, LlmStep, Retry, Step, WaitStep, within
from runglass.fold import Address, StepChange
from runglass.trace import ModelCall, StepTrace

log = logging.getLogger(__name__)

NO_RETRY = Retry(max_attempts=1)
PROVIDER_RETRY = Retry(max_attempts=3)
"""For llm steps without `retry`: a busy provider gets two more chances, any other failure none."""
MAX_TOOL_ITERATIONS = 25
"""How often the model of one step may ask for tools: ends a conversation that leads nowhere."""
PROVIDER_BUSY = frozenset({"RATE_LIMITED", "PROVIDER_UNAVAILABLE"})
NOT_HELD = nullcontext()


class StepFailedPermanently(Exception):
    """A step failed for good and takes its surroundings with it, up to one with `on_error: continue`."""

    def __init__(self, lost: FailureCheckpoint) -> None:
        super().__init__(f"{lost.step_id}: {lost.error.get('message')}")
        self.lost = lost


class AwaitingToolResults(Exception):
    """An llm step has asked for tools, and cannot go on without their results."""

    def __init__(self, turns: ToolLoopState) -> None:
        super().__init__(f"{turns.step_id} waits for {len(turns.calls)} tool results")
        self.turns = turns


class CreditsExhausted(Exception):
    """The project's budget is spent, or too little of it is left for a call of the step; `str` says which."""

    def __init__(self, step_id: str, message: str) -> None:
        super().__init__(message)
        self.step_id = step_id


class StepExecutor:
    """Runs the leaf steps of one run.

    `earlier` holds steps that have been run before and may be run again, `cut_off` those whose process died;
    that may happen to a step `crash_retries` times. `step_inputs` by step id stand over fields of a step's
    input. `budget` is asked before each step and before each request to a model. `memory` and `allowance` are
    those of the run; `turns` are shared by all runs.
    """

    def __init__(
        self,
        writing: AttemptContext,
        *,
        parts: StepDependencies,
        gate: DrainGate,
        ending: StopRequest,
        crash_retries: int,
        memory: RunMemory,
        allowance: Allowance,
        turns: StoreTurns,
        budget: RunBudget | None = None,
        earlier: Mapping[Address, StepChange] | None = None,
        cut_off: Mapping[Address, InterruptedAttempt] | None = None,
        step_inputs: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self._writing = writing
        self._parts = parts
        self._gate = gate
        self._ending = ending
        self._crash_retries = crash_retries
        self._budget = budget
        self._memory = memory
        self._allowance = allowance
        self._turns = turns
        self._earlier = earlier or {}
        self._cut_off = dict(cut_off or {})
        self._step_inputs = step_inputs or {}

    async def run(
        self,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        place: StepPosition,
        talk: LlmContext,
        turns: ToolLoopState | None = None,
    ) -> Payload:
        """The step's output, after as many attempts as it takes; `turns` goes on with one that waited.

        Raises StepLost, StepWaits, CreditsExhausted, LimitReached and StoreError.
        """
        if self._writing.recorder.log_bytes > self._allowance.log_bytes:
            self._end_at_limit(step)
        if self._budget is not None and not await self._budget.has_credit():
            raise self._spent(step, f"the project's budget is spent; step {step.id!r} was not begun")
        waited_s, has_names = 0.0, uses_names(step)
        cut_off = self._cut_off.pop(Address(step.id, place.loop_path), None) if self._cut_off else None
        if cut_off is not None:
            await self._go_on_after(cut_off, step, data, scope, place, turns)
            number, tried, turns = cut_off.change.step.attempt + 1, cut_off.failures + 1, None
            waited_s = self._seconds_since(cut_off.since)
        else:
            number = turns.attempt if turns else self.next_attempt(step.id, place)
            tried = turns.tried if turns else 1
        while True:
            await self._gate.opened()
            # Nobody need wait for a step that only waits: its deadline is kept.
            with NOT_HELD if isinstance(step, WaitStep) else self._gate:
                needed = needed_by(step, data, scope) if has_names or data.holding is not None else ()
                # A wait may take a day: it is not to keep others from decoding.
                async with (
                    self._memory.using(needed, decoded=has_names and not isinstance(step, WaitStep))
                    if needed
                    else NOT_HELD
                ) as room:
                    names = await names_for(step, data, scope, attempt=number) if has_names else {}
                    given, failure = await self._input_of(step, data, names)
                    attempt = AttemptRecorder(
                        self._writing, step, given, place, number, turns=turns, tried=tried
                    )
                    if has_names and isinstance(step, PASSES_ON):
                        names = {}
                    elif given is not data and has_names:
                        names = await names_for(step, given, scope, attempt=number)
                    outcome = await self._perform(attempt, step, names, talk, failure, waited_s, room)
                    if isinstance(outcome, AttemptResult):
                        return outcome.output
                    await self._prepare(attempt, outcome)
                    delay_ms = self._retry_or_fail(attempt, outcome)
            # Nothing of the attempt is held on to while the next one is waited for.
            del names, given, attempt, outcome
            await self._parts.clock.sleep(delay_ms / 1000)
            number, tried, turns = number + 1, tried + 1, None
            if self._writing.recorder.log_bytes > self._allowance.log_bytes:
                self._end_at_limit(step)

    async def turn(self) -> None:
        """Returns when it is the run's turn to go on: nobody may hold the event loop for long."""
        if self._turns.is_full:
            await self._turns.turn()

    async def pace(self, step: Step) -> None:
        """To be called where events of a container are recorded: there may be any number of them in a row.

        Lets others on the event loop while they are stored. Raises LimitReached and StoreError.
        """
        recorder = self._writing.recorder
        if recorder.log_bytes > self._allowance.log_bytes:
            self._end_at_limit(step)
        if recorder.is_behind:
            await recorder.await_previous_append()

    def _end_at_limit(self, step: Step) -> NoReturn:
        self._ending.limit = self._allowance.log_is_full(step.id, self._writing.recorder.log_bytes)
        raise self._ending.limit

    def _spent(self, step: Step, message: str) -> CreditsExhausted:
        self._ending.spent_at, self._ending.spent = step.id, message
        return CreditsExhausted(step.id, message)

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
        """The step's input with what the call says of it."""
        fields = self._step_inputs.get(step.id)
        return Payload({**(data.value or {}), **fields}) if fields else data

    async def fail(self, step: Step, data: Payload, failure: StepFailure, place: StepPosition) -> NoReturn:
        """Records a container that failed by itself, which alone puts it into a trace. Raises StepLost."""
        attempt = AttemptRecorder(self._writing, step, data, place, self.next_attempt(step.id, place))
        await attempt.prepare_failure(failure)
        attempt.start()
        raise StepFailedPermanently(attempt.record_failure(failure)) from failure

    def abandon_inner(self, container: Step, place: StepPosition) -> None:
        """Records that what was cut off inside of the container is lost: so is what is around it."""
        outer = place.loop_path or ()
        inner = {step.id for step in within(container)}
        for address, cut_off in list(self._cut_off.items()):
            path = address.loop_path or ()
            if address.step_id in inner and path[: len(outer)] == outer:
                del self._cut_off[address]
                if cut_off.change.step.status == "running":
                    step = next(step for step in within(container) if step.id == address.step_id)
                    there = place._replace(loop_path=address.loop_path)
                    attempt = AttemptRecorder(
                        self._writing, step, Payload(None), there, cut_off.change.step.attempt
                    )
                    attempt.stop_clock()
                    if cut_off.change.step.reservation is not None:
                        attempt.record_call(_lost(step, cut_off.change.step))
                    attempt.cut_off(_crash(step))

    async def _go_on_after(
        self,
        cut_off: InterruptedAttempt,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        place: StepPosition,
        turns: ToolLoopState | None,
    ) -> None:
        """Ends the attempt that was cut off; returns when the next one may begin, or raises StepLost."""
        before = cut_off.change.step
        if before.status != "running":
            # It had failed and was to be tried again after a while, which has passed in part or as a whole.
            retry = step.retry or PROVIDER_RETRY
            delay_s = retry.delay_ms(max(1, cut_off.failures)) / 1000
            passed_s = self._seconds_since(before.completed_at or before.started_at or "")
            await self._parts.clock.sleep(min(delay_s, max(0.0, delay_s - passed_s)))
            return
        needed = needed_by(step, data, scope)
        async with self._memory.using(needed, decoded=uses_names(step)) if needed else NOT_HELD:
            names = await names_for(step, data, scope, attempt=before.attempt) if uses_names(step) else {}
            given, _ = await self._input_of(step, data, names)
            attempt = AttemptRecorder(self._writing, step, given, place, before.attempt)
            self._end_cut_off(cut_off, attempt, step, turns)

    def _end_cut_off(
        self,
        cut_off: InterruptedAttempt,
        attempt: AttemptRecorder,
        step: LeafStep,
        turns: ToolLoopState | None,
    ) -> None:
        before = cut_off.change.step
        attempt.stop_clock()
        # Of the turns before a pause each has made its call; those of an earlier attempt do not count here.
        turns_before = turns.iterations_used if turns is not None and turns.attempt == before.attempt else 0
        reserved = before.reservation
        if reserved is not None or (isinstance(step, LlmStep) and len(before.model_calls) <= turns_before):
            attempt.record_call(_lost(step, before))
        crash = _crash(step)
        if cut_off.crashes >= self._crash_retries and not isinstance(step, WaitStep):
            raise StepFailedPermanently(attempt.record_failure(crash)) from crash
        attempt.retry(crash, delay_ms=0)

    def _seconds_since(self, moment: str) -> float:
        if not moment:
            return 0.0
        # Never negative: clocks are set back now and then.
        return max(0.0, (self._parts.clock.now() - datetime.fromisoformat(moment)).total_seconds())

    async def _input_of(
        self, step: LeafStep, data: Payload, names: Mapping[str, Any]
    ) -> tuple[Payload, StepFailure | None]:
        """The step's input, its own or what comes in; a failure to make it belongs to the attempt."""
        failure = None
        if step.input is not None:
            try:
                parts = self._parts
                given = await parts.templates.render_input(step.input, names, project_id=parts.project_id)
                data = Payload(given)
            except StepFailure as error:
                failure = without_traceback(error)
        data = self.overridden(step, data)
        await encode(data)
        await self._writing.capture.prepare(data)
        return data, failure

    async def _perform(
        self,
        attempt: AttemptRecorder,
        step: LeafStep,
        names: MutableMapping[str, Any],
        talk: LlmContext,
        failure: StepFailure | None,
        waited_s: float,
        room: MemoryHold | None,
    ) -> AttemptResult | StepFailure:
        """One attempt, recorded from its start to its end, whatever the end is, but for a failure."""
        if attempt.turns is None:
            attempt.start()
        else:
            await attempt.record_resume([turn for turn in talk.messages if turn.get("role") == "tool"])
        limit: asyncio.Timeout | None = None
        try:
            self._turns.inside += 1
            try:
                await self._writing.recorder.await_previous_append()
            finally:
                is_full = self._turns.leave()
            # Here and not before the start, which would go to the store by itself then.
            if is_full:
                await self._turns.turn()
            if failure is not None:
                return failure
            if isinstance(step, LlmStep):
                request = await model_request(step, names, self._parts, talk)
                await attempt.prompt(rendered_prompt(request))
                limit = asyncio.timeout(None)
                if room is not None:
                    # A model may take minutes. What was decoded for its prompt is let go of: the room is for
                    # others, whose steps would have to wait for this answer otherwise.
                    names.clear()
                    room.give_back()
                done = performed(request, await self._ask(attempt, step, request, limit))
            else:
                work = perform(step, attempt.data, names, self._parts, waited_s=waited_s)
                if isinstance(step, WaitStep) and attempt.data.holding is not None:
                    work = self._memory.without(attempt.data, work)
                if step.timeout_ms is None:
                    done = await work
                else:
                    limit = asyncio.timeout(None)
                    async with _within(limit, step.timeout_ms):
                        done = await work
            await encode(done.output)
            await self._writing.capture.prepare(done.output)
            if done.calls:
                raise AwaitingToolResults(self._wait(attempt, done, talk))
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
            raise self._spent(step, f"step {step.id!r}: {error}") from error
        except (StoreError, AwaitingToolResults):
            raise
        except Exception as error:
            if limit is not None and limit.expired():
                message = (
                    f"attempt {attempt.number} of step {step.id!r} took longer than {step.timeout_ms} ms"
                )
                return StepFailure("STEP_TIMEOUT", message)
            log.exception("step %r of run %s failed inside the engine", step.id, self._writing.execution_id)
            message = f"{type(error).__name__} inside the engine; see the server's log"
            return StepFailure("INTERNAL_ERROR", message, may_retry=False)
        return done

    async def _prepare(self, attempt: AttemptRecorder, failure: StepFailure) -> None:
        try:
            await attempt.prepare_failure(failure)
        except asyncio.CancelledError:
            self._cut(attempt)
            raise

    def _cut(self, attempt: AttemptRecorder) -> None:
        """Records how an attempt ends that is cut off."""
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
        async with self._parts.model_turns.turn(self._parts.project_id):
            return await self._ask_now(attempt, step, request, limit)

    async def _ask_now(
        self, attempt: AttemptRecorder, step: LlmStep, request: ModelRequest, limit: asyncio.Timeout
    ) -> ModelAnswer:
        """The model's answer; that it was asked is recorded, whatever came of it."""
        stream = TextBatcher(attempt, self._writing)
        asking = ModelTurn(
            attempt, request, writing=self._writing, models=self._parts.models, budget=self._budget
        )
        await asking.begin()
        attempt.restart_clock()
        asking.start()

        def hear(text: str) -> None:
            asking.hear()
            stream.write(text)

        outcome: ModelAnswer | StepFailure | None = None
        try:
            async with stream, _within(limit, step.timeout_ms):
                try:
                    outcome = await asking.answer(hear)
                except StepFailure as failure:
                    outcome = failure
            await asking.prepare_answer(outcome)
        except BaseException as error:
            # What had been answered when the attempt was cut off is to be paid for all the same.
            if outcome is None:
                outcome = ModelCallFailed(self._why_cut_off(error, limit), "cut off", may_be_charged=True)
            asking.end(outcome)
            raise
        asking.end(outcome)
        if isinstance(outcome, StepFailure):
            raise outcome
        return outcome

    def _why_cut_off(self, error: BaseException, limit: asyncio.Timeout) -> str:
        if limit.expired():
            return "STEP_TIMEOUT"
        if not isinstance(error, asyncio.CancelledError):
            return "INTERNAL_ERROR"
        return WORKER_LOST if self._ending.left else "CANCELLED"

    def _wait(self, attempt: AttemptRecorder, done: AttemptResult, talk: LlmContext) -> ToolLoopState:
        assert talk.offer is not None
        turns = attempt.wait(done, talk.offer)
        if turns.iterations_used > MAX_TOOL_ITERATIONS:
            raise StepFailure(
                "TOOL_ITERATION_LIMIT",
                f"step {attempt.step.id!r}: the model asked for tools more than {MAX_TOOL_ITERATIONS} times",
                may_retry=False,
            )
        return turns

    def _retry_or_fail(self, attempt: AttemptRecorder, failure: StepFailure) -> int:
        """Records the failure; returns the ms to wait before the next attempt, or raises StepLost."""
        step = attempt.step
        assert isinstance(step, LeafStep)
        retry = step.retry or NO_RETRY
        if step.retry is None and isinstance(step, LlmStep) and failure.code in PROVIDER_BUSY:
            retry = PROVIDER_RETRY
        if not failure.may_retry or attempt.tried >= retry.max_attempts:
            raise StepFailedPermanently(attempt.record_failure(failure)) from failure
        delay_ms = max(retry.delay_ms(attempt.tried), min(failure.retry_after_ms or 0, retry.max_delay_ms))
        attempt.retry(failure, delay_ms=delay_ms)
        return delay_ms


@asynccontextmanager
async def _within(limit: asyncio.Timeout, timeout_ms: int | None) -> AsyncIterator[None]:
    """Bounds the block by the step's time limit, if it has one."""
    async with limit:
        if timeout_ms is not None:
            limit.reschedule(asyncio.get_running_loop().time() + timeout_ms / 1000)
        yield


def _lost(step: Step, attempt: StepTrace) -> ModelCall:
    """The call that an attempt may have been making when its process ended."""
    assert isinstance(step, LlmStep)
    number = len(attempt.model_calls) + 1
    return lost_call(step.model, number, error_code=WORKER_LOST, reservation=attempt.reservation)


def _crash(step: Step) -> StepFailure:
    return StepFailure(
        WORKER_LOST, f"the process that ran this attempt of step {step.id!r} ended before the attempt did"
    )
