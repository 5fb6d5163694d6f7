"""One attempt of one step, in the events that tell of it.

Nothing is decided here: whether another attempt follows is for `outcomes.py`, and the work of the step is in
`attempt_runner.py`.
"""

from decimal import Decimal
from typing import Any, TypedDict

import msgspec

from runglass.engine.journal.checkpoints import FailureCheckpoint, StepPosition, lost_checkpoints
from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.model_types import ModelRequest
from runglass.engine.payload import Payload
from runglass.engine.run_memory import value_of
from runglass.engine.steps.call_recorder import CallRecorder
from runglass.engine.steps.run_context import RunContext
from runglass.errors import StepFailure
from runglass.flows.flow import LlmStep, Step
from runglass.log.events import (
    StepCompleted,
    StepError,
    StepInput,
    StepModelCall,
    StepModelReserved,
    StepOutput,
    StepProgress,
    StepResumed,
    StepRetrying,
    StepStarted,
)
from runglass.log.trace import ModelCall, StepTrace, TokenBreakdown
from runglass.store.records import Checkpoint
from runglass.support.lazy_json import encoded, json_bytes

RENDERED_PROMPT = "__rendered_prompt__"
"""Where the captured input of an llm step has its prompt, as clients of other makers know it."""
OWN_WORDS = frozenset({"CANCELLED", WORKER_LOST})
"""Codes of failures whose texts hold nothing that came from a caller or a step."""


class _StepKey(TypedDict):
    execution_id: str
    step_id: str
    attempt: int
    loop_index: int | None
    loop_path: tuple[int, ...] | None


class _Paid(TypedDict, total=False):
    tokens: TokenBreakdown | None
    cost_usd: str | None
    model_used: str | None


class AttemptRecorder:
    """Attempt `number` of a step with the input `data`; `tool_loop` is that of earlier segments.

    `tried` is its number among those that `retry` counts.
    """

    def __init__(
        self,
        context: RunContext,
        step: Step,
        data: Payload,
        position: StepPosition,
        number: int,
        *,
        tool_loop: ToolLoopState | None = None,
        tried: int = 1,
    ) -> None:
        self.step = step
        self.data = data
        self.position = position
        self.number = number
        self.tool_loop = tool_loop
        self.tried = tried
        self._context = context
        self._key: _StepKey = {
            "execution_id": context.run_id,
            "step_id": step.id,
            "attempt": number,
            "loop_index": position.loop_index,
            "loop_path": position.loop_path,
        }
        self._prompt: str | None = None
        self._shown: Payload | None = None
        self._prepared: tuple[StepFailure, FailureCheckpoint] | None = None
        self._earlier_s = tool_loop.duration_ms / 1000 if tool_loop is not None else 0.0
        self._started_s: float | None = context.dependencies.clock.monotonic_s() - self._earlier_s

    def restart_clock(self) -> None:
        """Counts the duration from now on; that of earlier turns is in it."""
        self._started_s = self._context.dependencies.clock.monotonic_s() - self._earlier_s

    def stop_clock(self) -> None:
        """Leaves the duration unknown: the process of the attempt did not live to its end."""
        self._started_s = None

    @property
    def duration_ms(self) -> int | None:
        if self._started_s is None:
            return None
        return max(0, round((self._context.dependencies.clock.monotonic_s() - self._started_s) * 1000))

    def start(self) -> None:
        """Records that the attempt begins. The input of an llm step follows, with its prompt."""
        capture = self._context.capture
        told = [self._input()] if capture.keeps_snapshots and not isinstance(self.step, LlmStep) else []
        started = StepStarted(
            **self._key,
            name=self.step.name,
            step_index=self.position.step_index,
            input_size_bytes=told[0].input_size_bytes if told else capture.size(self.data),
        )
        self._context.writer.record(started, *told)

    async def prompt(self, text: str) -> None:
        """Adds the rendered prompt to the attempt's input, and records that where it is kept."""
        self._prompt = text
        if self._context.capture.keeps_snapshots and not self._has_input():
            self._shown = await self._with_prompt()
            await self._context.capture.prepare(self._shown)
            self._context.writer.record(self._input())
            # It is in the log, and may be large.
            self._shown = None

    async def _with_prompt(self) -> Payload:
        if self._prompt is None:
            return self.data
        return Payload({**(await value_of(self.data) or {}), RENDERED_PROMPT: self._prompt})

    def call(self, request: ModelRequest, *, reserved_usd: Decimal | None = None) -> CallRecorder:
        """A request to the attempt's model that is about to be made."""
        so_far = self._so_far()
        return CallRecorder(
            request,
            1 if so_far is None else len(so_far.model_calls) + 1,
            capture=self._context.capture,
            clock=self._context.dependencies.clock,
            reserved_usd=reserved_usd,
        )

    def reserve(self, call: CallRecorder) -> None:
        """Records the part of the budget that is reserved for a request about to be made."""
        self._context.writer.record(StepModelReserved(**self._key, reservation=call.reservation))

    def record_call(self, call: ModelCall) -> None:
        """Records a request to the attempt's model that has ended."""
        assert call.cost_usd is None or Decimal(call.cost_usd) >= 0, call.cost_usd
        self._context.writer.record(StepModelCall(**self._key, model_call=call))

    async def record_resume(self, results: list[dict[str, Any]]) -> None:
        """Records that tool results are in: the run goes on, and the trace shows the results."""
        payload = Payload({"toolResults": results})
        await self._context.capture.prepare(payload)
        snapshot = self._context.capture.snapshot(payload)
        self._context.writer.record(
            StepResumed(**self._key, step_index=self.position.step_index, input_data=encoded(snapshot.data))
        )

    def record_text(self, text: str) -> None:
        """Records a piece of the text that the attempt's model says."""
        self._context.writer.record(StepProgress(**self._key, text=text))

    async def prepare_failure(self, failure: StepFailure) -> None:
        """Looks through a large input off the event loop, before the failure is recorded.

        Needed for every failure that is not in the engine's own words: it may repeat secrets of the input.
        """
        capture, error = self._context.capture, failure.as_json()
        if capture.keeps_failures and not self._has_input():
            self._shown = await self._with_prompt()
            await capture.prepare(self._shown, failed=True)
        captured = await capture.error_of(error, [self.data, self._context.inputs])
        self._prepared = failure, FailureCheckpoint(self.step.id, error, captured)

    def record_failed_input(self) -> None:
        """Records the input of an attempt that fails, where the mode keeps that, unless it has been."""
        is_known = not self.data.is_null or self._prompt is not None
        if is_known and self._context.capture.keeps_failures and not self._has_input():
            self._context.writer.record(self._input())

    def complete(self, payload: Payload) -> None:
        """Records that the attempt ended well, with this output."""
        snapshot = self._context.capture.snapshot(payload)
        output = encoded(snapshot.data)
        so_far = self._so_far() if isinstance(self.step, LlmStep) else None
        completed = StepCompleted(
            **self._key,
            **({} if so_far is None else _paid(so_far)),
            name=self.step.name,
            step_index=self.position.step_index,
            output=output,
            duration_ms=self.duration_ms or 0,
            output_size_bytes=snapshot.size_bytes,
            truncated=snapshot.truncated,
            finish_reason=None if so_far is None else so_far.finish_reason,
        )
        checkpoint = Checkpoint(self.step.id, self.position.path_text, payload.json)
        if output is None:
            self._context.writer.record(completed, checkpoint=checkpoint)
        else:
            shown = StepOutput(**self._key, output_data=output, output_context=output)
            self._context.writer.record(shown, completed, checkpoint=checkpoint)
        self._keep_replay(checkpoint.data)

    def retry(self, failure: StepFailure, *, delay_ms: int) -> None:
        """Records that the attempt failed and the next one follows after `delay_ms`."""
        self.record_failed_input()
        error = self._error(failure)
        event = StepRetrying(
            **self._key,
            **_paid(self._so_far()),
            error=encoded(error.captured),
            next_attempt=self.number + 1,
            delay_ms=delay_ms,
            duration_ms=self.duration_ms,
        )
        self._context.writer.record(event)
        self._owe(error)

    def abandon(self, failure: StepFailure) -> None:
        """Records that the attempt is lost because the container around it, or the run, is."""
        self._lose(failure, self._error(failure))

    def record_failure(self, failure: StepFailure) -> FailureCheckpoint:
        """Records that the attempt failed and none follows; returns the step with its error."""
        lost = self._error(failure)
        for checkpoint in lost_checkpoints(self._context.flow, lost, self.position):
            self._context.writer.add_checkpoint(checkpoint)
        self._lose(failure, lost)
        return lost

    def _lose(self, failure: StepFailure, lost: FailureCheckpoint) -> None:
        self.record_failed_input()
        event = StepError(
            **self._key,
            **_paid(self._so_far()),
            name=self.step.name,
            step_index=self.position.step_index,
            error=encoded(lost.captured),
            duration_ms=self.duration_ms,
        )
        self._context.writer.record(event)
        self._owe(lost)

    def _input(self) -> StepInput:
        shown = self._shown
        if shown is None and self._prompt is not None:
            # Cut off before its failure could be prepared.
            shown = Payload({**(self.data.value or {}), RENDERED_PROMPT: self._prompt})
        capture = self._context.capture
        snapshot = capture.kept(shown or self.data)
        return StepInput(
            **self._key,
            input_data=encoded(snapshot.data),
            # The prompt is no part of what the step was given.
            input_size_bytes=snapshot.size_bytes if shown is None else capture.size(self.data),
            truncated=snapshot.truncated,
        )

    def _error(self, failure: StepFailure) -> FailureCheckpoint:
        if self._prepared is not None and self._prepared[0] is failure:
            return self._prepared[1]
        # The engine's own words: nothing of the input is in them.
        assert failure.code in OWN_WORDS, f"{failure.code} was not prepared"
        error = failure.as_json()
        return FailureCheckpoint(self.step.id, error, self._context.capture.error(error))

    def _owe(self, lost: FailureCheckpoint) -> None:
        whole = msgspec.json.encode(lost.error)
        # Most errors are kept as they are, and then the log has what the caller is to get.
        if whole != bytes(lost.captured):
            self._keep_replay(whole)

    def _keep_replay(self, content: bytes) -> None:
        """Keeps the content of the last event for the caller of this segment."""
        writer, outputs = self._context.writer, self._context.outputs
        is_held = outputs is None or outputs.keep(writer.head, content)
        if self._context.answers_call or not is_held:
            writer.keep_replay(content)

    def _has_input(self) -> bool:
        so_far = self._so_far()
        return so_far is not None and json_bytes(so_far, "input_context") is not None

    def _so_far(self) -> StepTrace | None:
        """The attempt so far, as the log has it."""
        return self._context.writer.fold.open_step(self.step.id, self.position.loop_path)


def _paid(attempt: StepTrace | None) -> _Paid:
    """Tokens, cost and model of all calls of an attempt; nothing where none is known."""
    if attempt is None:
        return {}
    return {"tokens": attempt.tokens, "cost_usd": attempt.cost_usd, "model_used": attempt.model_used}
