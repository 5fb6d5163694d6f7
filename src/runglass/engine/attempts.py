"""The attempts of leaf steps: each is recorded from its start to its end, whatever the end is.

Being cut off is an end too: an ended run has no step that still runs.
"""

import asyncio
import logging
from typing import Any, NoReturn

import msgspec

from runglass.engine import templates
from runglass.engine.capture import Capture
from runglass.engine.llm import AnswerRejected
from runglass.engine.output_stream import OutputStream
from runglass.engine.payload import Payload
from runglass.engine.prices import format_usd
from runglass.engine.recorder import Recorder, path_text
from runglass.engine.scope import Place, Scope
from runglass.engine.steps import Parts, Performed, perform
from runglass.engine.totals import Totals
from runglass.errors import StepFailure, StoreError
from runglass.events import StepCompleted, StepError, StepInput, StepRetrying, StepStarted
from runglass.flow import LeafStep, LlmStep, Retry, Step
from runglass.lazy import encoded
from runglass.store.base import Checkpoint

log = logging.getLogger(__name__)

NO_RETRY = Retry(max_attempts=1)
PROVIDER_RETRY = Retry(max_attempts=3)
"""For llm steps without `retry`: a busy provider gets two more chances, any other failure none."""
PROVIDER_BUSY = frozenset({"RATE_LIMITED", "PROVIDER_UNAVAILABLE"})


class StepLost(Exception):
    """A step failed for good and takes its surroundings with it, up to one with `on_error: continue`."""

    def __init__(self, step_id: str, error: dict[str, Any]) -> None:
        super().__init__(f"{step_id}: {error.get('message')}")
        self.step_id = step_id
        self.error = error


class Attempts:
    """Runs the leaf steps of one run, and counts in `totals` what came of them."""

    def __init__(self, *, execution_id: str, recorder: Recorder, capture: Capture, parts: Parts) -> None:
        self._id = execution_id
        self._recorder = recorder
        self._capture = capture
        self._parts = parts
        self.totals = Totals()

    async def run(self, step: LeafStep, data: Payload, scope: Scope, place: Place) -> Payload:
        """The step's output, after as many attempts as it takes. Raises StepLost and StoreError."""
        attempt = 1
        while True:
            delay_ms = await self._attempt(step, data, scope, place, attempt)
            if isinstance(delay_ms, Payload):
                return delay_ms
            attempt += 1
            await self._parts.clock.sleep(delay_ms / 1000)

    async def _attempt(
        self, step: LeafStep, data: Payload, scope: Scope, place: Place, attempt: int
    ) -> Payload | int:
        """The output, or the milliseconds to wait before the next attempt. Raises StepLost."""
        clock = self._parts.clock
        names = scope.names(data, attempt=attempt)
        failure: StepFailure | None = None
        if step.input is not None:
            try:
                data = Payload(templates.render_input(step.input, names))
                names = scope.names(data, attempt=attempt)
            except StepFailure as error:
                failure = error
        self._start(step, data, place, attempt)
        started_s = clock.monotonic_s()
        stream = OutputStream(
            self._recorder,
            self._capture,
            clock,
            execution_id=self._id,
            step_id=step.id,
            attempt=attempt,
            loop_path=place.loop_path,
        )
        try:
            await self._recorder.commit()
            if failure is not None:
                raise failure
            async with stream, asyncio.timeout(None if step.timeout_ms is None else step.timeout_ms / 1000):
                performed = await perform(step, data, names, self._parts, stream.write)
            self._complete(step, performed, place, attempt, _ms(clock.monotonic_s() - started_s))
            return performed.output
        except TimeoutError:
            failure = StepFailure(
                "STEP_TIMEOUT", f"attempt {attempt} of step {step.id!r} took longer than {step.timeout_ms} ms"
            )
        except StepFailure as error:
            failure = error
        except asyncio.CancelledError:
            cut_off = StepFailure("CANCELLED", f"step {step.id!r} was cut off", may_retry=False)
            self._error(step, data, cut_off, place, attempt, _ms(clock.monotonic_s() - started_s))
            raise
        except StoreError:
            raise
        except Exception as error:
            log.exception("step %r of run %s failed inside the engine", step.id, self._id)
            failure = StepFailure(
                "INTERNAL_ERROR",
                f"{type(error).__name__} inside the engine; see the server's log",
                may_retry=False,
            )
        return self._fail(step, data, failure, place, attempt, _ms(clock.monotonic_s() - started_s))

    def fail(self, step: Step, data: Payload, failure: StepFailure, place: Place) -> NoReturn:
        """Records a container that failed by itself, which alone puts it into a trace. Raises StepLost."""
        self._start(step, data, place, 1)
        raise StepLost(step.id, self._error(step, data, failure, place, 1, 0)) from failure

    def _start(self, step: Step, data: Payload, place: Place, attempt: int) -> None:
        self._recorder.record(
            StepStarted(
                execution_id=self._id,
                step_id=step.id,
                name=step.name,
                step_index=place.step_index,
                attempt=attempt,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                input_size_bytes=self._capture.size(data.json),
            )
        )
        if self._capture.keeps_snapshots:
            self._record_input(step, data, place, attempt)

    def _record_input(self, step: Step, data: Payload, place: Place, attempt: int) -> None:
        snapshot = self._capture.failed_input(data.json, data.value)
        self._recorder.record(
            StepInput(
                execution_id=self._id,
                step_id=step.id,
                attempt=attempt,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                input_data=encoded(snapshot.data),
                input_size_bytes=snapshot.size_bytes,
                truncated=snapshot.truncated,
            )
        )

    def _complete(
        self, step: LeafStep, performed: Performed, place: Place, attempt: int, duration_ms: int
    ) -> None:
        output = performed.output
        snapshot = self._capture.snapshot(output.json, output.value)
        self.totals.add(performed.tokens, performed.cost_usd, asked=performed.model_used is not None)
        self.totals.completed += 1
        self._recorder.record(
            StepCompleted(
                execution_id=self._id,
                step_id=step.id,
                name=step.name,
                step_index=place.step_index,
                attempt=attempt,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                output=encoded(snapshot.data),
                duration_ms=duration_ms,
                tokens=performed.tokens,
                cost_usd=None if performed.cost_usd is None else format_usd(performed.cost_usd),
                model_used=performed.model_used,
                output_size_bytes=snapshot.size_bytes,
                truncated=snapshot.truncated,
            ),
            checkpoint=Checkpoint(step.id, path_text(place.loop_path), output.json),
        )

    def _fail(
        self,
        step: LeafStep,
        data: Payload,
        failure: StepFailure,
        place: Place,
        attempt: int,
        duration_ms: int,
    ) -> int:
        """Records the failed attempt; returns the ms to wait before the next, or raises StepLost."""
        retry = step.retry or NO_RETRY
        if step.retry is None and isinstance(step, LlmStep) and failure.code in PROVIDER_BUSY:
            retry = PROVIDER_RETRY
        if not failure.may_retry or attempt >= retry.max_attempts:
            error = self._error(step, data, failure, place, attempt, duration_ms)
            raise StepLost(step.id, error) from failure
        delay_ms = max(retry.delay_ms(attempt), min(failure.retry_after_ms or 0, retry.max_delay_ms))
        paid = self._paid(failure)
        if not self._capture.keeps_snapshots:
            self._record_input(step, data, place, attempt)
        self.totals.retried += 1
        self._recorder.record(
            StepRetrying(
                execution_id=self._id,
                step_id=step.id,
                attempt=attempt,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                error=encoded(self._capture.error(_detail(failure))),
                next_attempt=attempt + 1,
                delay_ms=delay_ms,
                duration_ms=duration_ms,
                **paid,
            )
        )
        return delay_ms

    def _error(
        self, step: Step, data: Payload, failure: StepFailure, place: Place, attempt: int, duration_ms: int
    ) -> dict[str, Any]:
        if not self._capture.keeps_snapshots:
            self._record_input(step, data, place, attempt)
        error = self._capture.error(_detail(failure))
        paid = self._paid(failure)
        self.totals.failed += 1
        self._recorder.record(
            StepError(
                execution_id=self._id,
                step_id=step.id,
                name=step.name,
                step_index=place.step_index,
                attempt=attempt,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                error=encoded(error),
                duration_ms=duration_ms,
                **paid,
            )
        )
        recorded: dict[str, Any] = msgspec.json.decode(error)
        return recorded

    def _paid(self, failure: StepFailure) -> dict[str, Any]:
        """Tokens, cost and model of a call that was answered, and paid for, but whose answer was no good."""
        if not isinstance(failure, AnswerRejected):
            return {}
        self.totals.add(failure.tokens, failure.cost_usd, asked=True)
        return {
            "tokens": failure.tokens,
            "cost_usd": None if failure.cost_usd is None else format_usd(failure.cost_usd),
            "model_used": failure.model_used,
        }


def _detail(failure: StepFailure) -> dict[str, Any]:
    return {"code": failure.code, "message": failure.message, **failure.details}


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
