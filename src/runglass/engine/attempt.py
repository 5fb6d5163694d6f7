"""One attempt of one step, in the events that tell of it.

Nothing is decided here: whether there is another attempt is known in `attempts.py`, what the step does in
`steps.py`.
"""

from collections.abc import Mapping, MutableMapping
from decimal import Decimal
from typing import Any, TypedDict

import msgspec

from runglass.clock import Clock
from runglass.engine.capture import Capture
from runglass.engine.kept import Lost, lost_checkpoints, output_checkpoint
from runglass.engine.llm import AnswerRejected
from runglass.engine.payload import Payload
from runglass.engine.plan import Offer, Turns
from runglass.engine.prices import format_usd
from runglass.engine.recorder import Recorder
from runglass.engine.scope import Place
from runglass.engine.steps import Performed
from runglass.engine.totals import sum_of_tokens
from runglass.errors import StepFailure
from runglass.events import (
    StepCompleted,
    StepError,
    StepInput,
    StepOutput,
    StepResumed,
    StepRetrying,
    StepStarted,
)
from runglass.flow import Flow, Step
from runglass.lazy import encoded
from runglass.trace import TokenBreakdown


class Writing(msgspec.Struct, frozen=True, kw_only=True):
    """What the attempts of one run write with; secrets in the run's `inputs` are struck from errors.

    `outputs`, if given, gets what the caller of this stretch is to have of an event, by seq, whatever the log
    keeps; `answers_call` says that it is stored, too, for a call that may be sent again.
    """

    execution_id: str
    flow: Flow
    inputs: Mapping[str, Any]
    recorder: Recorder
    capture: Capture
    clock: Clock
    answers_call: bool = False
    outputs: MutableMapping[int, bytes] | None = None

    def owe(self, content: bytes) -> None:
        """Keeps the content of the last event for the caller of this stretch."""
        if self.outputs is not None:
            self.outputs[self.recorder.head] = content
        if self.answers_call:
            self.recorder.owe_content(content)


class _Address(TypedDict):
    execution_id: str
    step_id: str
    attempt: int
    loop_index: int | None
    loop_path: tuple[int, ...] | None


class _Paid(TypedDict):
    tokens: TokenBreakdown | None
    cost_usd: str | None
    model_used: str | None


class Attempt:
    """Attempt `number` of a step with the input `data`; `turns` are those of earlier stretches.

    `tried` is its number among those that `retry` counts.
    """

    def __init__(
        self,
        writing: Writing,
        step: Step,
        data: Payload,
        place: Place,
        number: int,
        *,
        turns: Turns | None = None,
        tried: int = 1,
    ) -> None:
        self.step = step
        self.data = data
        self.place = place
        self.number = number
        self.turns = turns
        self.tried = tried
        self._writing = writing
        self._started_s: float | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Counts the duration from now on; what earlier turns took is in it."""
        before_s = self.turns.duration_ms / 1000 if self.turns else 0.0
        self._started_s = self._writing.clock.monotonic_s() - before_s

    def stop_clock(self) -> None:
        """Says that nobody knows how long the attempt took: its process did not live to its end."""
        self._started_s = None

    @property
    def duration_ms(self) -> int | None:
        if self._started_s is None:
            return None
        return max(0, round((self._writing.clock.monotonic_s() - self._started_s) * 1000))

    def start(self) -> None:
        """Records that the attempt begins."""
        self._writing.recorder.record(
            StepStarted(
                **self._address(),
                name=self.step.name,
                step_index=self.place.step_index,
                input_size_bytes=self._writing.capture.size(self.data.json),
            )
        )
        if self._writing.capture.keeps_snapshots:
            self._record_input()

    def take_up(self, results: list[dict[str, Any]]) -> None:
        """Records that tool results are in: the run goes on, and the trace shows with what."""
        kept = self._writing.capture.snapshot(Payload({"toolResults": results})).data
        self._writing.recorder.record(
            StepResumed(**self._address(), step_index=self.place.step_index, input_data=encoded(kept))
        )

    def say(self, text: str) -> None:
        """Records a piece of the text that the attempt's model says."""
        self._record_output({"text": text})

    def tell_input(self) -> None:
        """Records the input of an attempt that fails, where that is kept and has not been recorded yet."""
        capture = self._writing.capture
        if capture.keeps_failures and not capture.keeps_snapshots and self.data.value is not None:
            self._record_input()

    def wait(self, performed: Performed, offer: Offer) -> Turns:
        """The turns so far, with the one that has asked for tools."""
        paid = self._paid(performed.tokens, performed.cost_usd, performed.model_used)
        return Turns(
            step_id=self.step.id,
            attempt=self.number,
            tried=self.tried,
            messages=performed.messages,
            calls=performed.calls,
            iterations_used=self.turns.iterations_used + 1 if self.turns else 1,
            offer=offer,
            duration_ms=self.duration_ms or 0,
            last_cost_usd=performed.cost_usd,
            **paid,
        )

    def complete(self, performed: Performed) -> None:
        """Records that the attempt ended well."""
        output = performed.output
        snapshot = self._writing.capture.snapshot(output)
        event = StepCompleted(
            **self._address(),
            **self._paid(performed.tokens, performed.cost_usd, performed.model_used),
            name=self.step.name,
            step_index=self.place.step_index,
            output=encoded(snapshot.data),
            duration_ms=self.duration_ms or 0,
            output_size_bytes=snapshot.size_bytes,
            truncated=snapshot.truncated,
        )
        checkpoint = output_checkpoint(self.step, self.place, output.json)
        self._writing.recorder.record(event, checkpoint=checkpoint, spent_usd=performed.cost_usd)
        self._writing.owe(output.json)

    def retry(self, failure: StepFailure, *, delay_ms: int) -> None:
        """Records that the attempt failed and the next one follows after `delay_ms`."""
        self.tell_input()
        error = self._error(failure)
        event = StepRetrying(
            **self._address(),
            **self._paid_before(failure),
            error=encoded(error.kept),
            next_attempt=self.number + 1,
            delay_ms=delay_ms,
            duration_ms=self.duration_ms,
        )
        self._writing.recorder.record(event, spent_usd=_spent(failure))
        self._owe(error)

    def cut_off(self, failure: StepFailure) -> None:
        """Records that the attempt is lost because what is around it is."""
        self._lose(failure, self._error(failure))

    def lose(self, failure: StepFailure) -> Lost:
        """Records that the attempt failed and none follows; returns the step and what it was lost with."""
        lost = self._error(failure)
        for checkpoint in lost_checkpoints(self._writing.flow, lost, self.place):
            self._writing.recorder.keep(checkpoint)
        self._lose(failure, lost)
        return lost

    def _lose(self, failure: StepFailure, lost: Lost) -> None:
        self.tell_input()
        event = StepError(
            **self._address(),
            **self._paid_before(failure),
            name=self.step.name,
            step_index=self.place.step_index,
            error=encoded(lost.kept),
            duration_ms=self.duration_ms,
        )
        self._writing.recorder.record(event, spent_usd=_spent(failure))
        self._owe(lost)

    def _address(self) -> _Address:
        return {
            "execution_id": self._writing.execution_id,
            "step_id": self.step.id,
            "attempt": self.number,
            "loop_index": self.place.loop_index,
            "loop_path": self.place.loop_path,
        }

    def _record_input(self) -> None:
        snapshot = self._writing.capture.failed_input(self.data)
        self._writing.recorder.record(
            StepInput(
                **self._address(),
                input_data=encoded(snapshot.data),
                input_size_bytes=snapshot.size_bytes,
                truncated=snapshot.truncated,
            )
        )

    def _record_output(self, output: dict[str, Any]) -> None:
        if not self._writing.capture.keeps_snapshots:
            return
        snapshot = self._writing.capture.snapshot(Payload(output))
        event = StepOutput(**self._address(), output_data=encoded(snapshot.data))
        self._writing.recorder.record(event)

    def _error(self, failure: StepFailure) -> Lost:
        error = {"code": failure.code, "message": failure.message, **failure.details}
        kept = self._writing.capture.error(error, [self.data.value, self._writing.inputs])
        return Lost(self.step.id, error, kept)

    def _owe(self, lost: Lost) -> None:
        whole = msgspec.json.encode(lost.error)
        # Most errors are kept as they are, and then the log has what the caller is to get.
        if whole != bytes(lost.kept):
            self._writing.owe(whole)

    def _paid_before(self, failure: StepFailure) -> _Paid:
        """What was answered, and paid for, before the attempt failed."""
        if isinstance(failure, AnswerRejected):
            return self._paid(failure.tokens, failure.cost_usd, failure.model_used)
        return self._paid(None, None, None)

    def _paid(self, tokens: TokenBreakdown | None, cost_usd: Decimal | None, model_used: str | None) -> _Paid:
        """Tokens, cost and model of all turns of the attempt; None where nothing is known."""
        turns = self.turns
        if turns is not None and turns.cost_usd is not None:
            cost_usd = Decimal(turns.cost_usd) + (cost_usd or 0)
        return {
            "tokens": sum_of_tokens(turns.tokens if turns else None, tokens),
            "cost_usd": None if cost_usd is None else format_usd(cost_usd),
            "model_used": model_used or (turns.model_used if turns else None),
        }


def _spent(failure: StepFailure) -> Decimal | None:
    return failure.cost_usd if isinstance(failure, AnswerRejected) else None
