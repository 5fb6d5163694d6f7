"""The attempts of leaf steps: each is recorded from its start to its end, whatever the end is.

Being cut off is an end too: an ended run has no step that still runs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from decimal import Decimal
from typing import Any, NoReturn

import msgspec

from runglass.engine.capture import Capture
from runglass.engine.llm import AnswerRejected
from runglass.engine.output_stream import OutputStream
from runglass.engine.payload import Payload
from runglass.engine.plan import Turns
from runglass.engine.prices import format_usd
from runglass.engine.recorder import Recorder, path_text
from runglass.engine.scope import Place, Scope
from runglass.engine.steps import Parts, Performed, Talk, perform
from runglass.engine.totals import Totals, sum_of_tokens
from runglass.errors import StepFailure, StoreError
from runglass.events import StepCompleted, StepError, StepInput, StepOutput, StepRetrying, StepStarted
from runglass.flow import LeafStep, LlmStep, Retry, Step
from runglass.fold import Address, StepChange
from runglass.lazy import encoded
from runglass.store.base import Checkpoint

log = logging.getLogger(__name__)

NO_RETRY = Retry(max_attempts=1)
PROVIDER_RETRY = Retry(max_attempts=3)
"""For llm steps without `retry`: a busy provider gets two more chances, any other failure none."""
MAX_TOOL_ITERATIONS = 25
"""How often the model of one step may ask for tools: ends a conversation that leads nowhere."""
PROVIDER_BUSY = frozenset({"RATE_LIMITED", "PROVIDER_UNAVAILABLE"})


class StepLost(Exception):
    """A step failed for good and takes its surroundings with it, up to one with `on_error: continue`."""

    def __init__(self, step_id: str, error: dict[str, Any]) -> None:
        super().__init__(f"{step_id}: {error.get('message')}")
        self.step_id = step_id
        self.error = error


class StepWaits(Exception):
    """An llm step has asked for tools, and cannot go on without their results."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(f"{turns.step_id} waits for {len(turns.calls)} tool results")
        self.turns = turns


class CreditsExhausted(Exception):
    """The project's budget is spent; the step was not begun."""

    def __init__(self, step_id: str) -> None:
        super().__init__(step_id)
        self.step_id = step_id


class Attempts:
    """Runs the leaf steps of one run, and counts in `totals` what came of them.

    `earlier` holds steps that have been run before and may be run again; `outputs`, if given, gets each
    output by the seq of its `step_completed`. `has_credit` is asked before each step.
    """

    def __init__(
        self,
        *,
        execution_id: str,
        inputs: Mapping[str, Any],
        recorder: Recorder,
        capture: Capture,
        parts: Parts,
        totals: Totals,
        has_credit: Callable[[], Awaitable[bool]] | None = None,
        earlier: Mapping[Address, StepChange] | None = None,
        outputs: MutableMapping[int, bytes] | None = None,
    ) -> None:
        self._id = execution_id
        self._inputs = inputs
        self._recorder = recorder
        self._capture = capture
        self._parts = parts
        self._has_credit = has_credit
        self._earlier = earlier or {}
        self._outputs = outputs
        self.totals = totals

    async def run(
        self,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        place: Place,
        talk: Talk,
        turns: Turns | None = None,
    ) -> Payload:
        """The step's output, after as many attempts as it takes; `turns` goes on with one that waited.

        Raises StepLost, StepWaits, CreditsExhausted and StoreError.
        """
        if self._has_credit is not None and not await self._has_credit():
            raise CreditsExhausted(step.id)
        attempt = turns.attempt if turns else self.next_attempt(step.id, place)
        first = attempt
        while True:
            delay_ms = await self._attempt(
                step, data, scope, place, attempt, talk, turns, attempt - first + 1
            )
            if isinstance(delay_ms, Payload):
                return delay_ms
            attempt += 1
            turns = None
            await self._parts.clock.sleep(delay_ms / 1000)

    def next_attempt(self, step_id: str, place: Place) -> int:
        """The number of the next attempt, which takes the place in the trace that the step has already."""
        known = self._earlier.get(Address(step_id, place.loop_path))
        if known is None:
            return 1
        self._recorder.fold.reopen(known)
        return known.step.attempt + 1

    async def _attempt(
        self,
        step: LeafStep,
        data: Payload,
        scope: Scope,
        place: Place,
        attempt: int,
        talk: Talk,
        turns: Turns | None,
        tried: int,
    ) -> Payload | int:
        """The output, or the milliseconds to wait before the next attempt. Raises StepLost."""
        clock = self._parts.clock
        if isinstance(step, LlmStep):
            await self._parts.models.ready(step.model)
        names = scope.names(data, attempt=attempt)
        failure: StepFailure | None = None
        if step.input is not None:
            try:
                data = Payload(await self._parts.templates.render_input(step.input, names))
                names = scope.names(data, attempt=attempt)
            except StepFailure as error:
                failure = error
        await self._capture.prepare(data)
        if turns is None:
            self._start(step, data, place, attempt)
        else:
            self._take_up(step, place, attempt, talk)
        started_s = clock.monotonic_s() - (turns.duration_ms / 1000 if turns else 0)
        stream = OutputStream(
            self._recorder,
            self._capture,
            clock,
            execution_id=self._id,
            step_id=step.id,
            attempt=attempt,
            loop_path=place.loop_path,
        )
        limit: asyncio.Timeout | None = None
        try:
            await self._recorder.commit()
            if failure is not None:
                raise failure
            limit_s = None if step.timeout_ms is None else step.timeout_ms / 1000
            async with stream, asyncio.timeout(limit_s) as limit:
                performed = await perform(step, data, names, self._parts, stream.write, talk)
                await self._capture.prepare(performed.output)
            duration_ms = _ms(clock.monotonic_s() - started_s)
            if performed.calls:
                raise StepWaits(self._wait(step, performed, attempt, talk, turns, duration_ms))
            self._complete(step, performed, place, attempt, turns, duration_ms)
            return performed.output
        except StepFailure as error:
            failure = error
        except asyncio.CancelledError:
            cut_off = StepFailure("CANCELLED", f"step {step.id!r} was cut off", may_retry=False)
            self._error(step, data, cut_off, place, attempt, turns, _ms(clock.monotonic_s() - started_s))
            raise
        except (StoreError, StepWaits):
            raise
        except Exception as error:
            if limit is not None and limit.expired():
                message = f"attempt {attempt} of step {step.id!r} took longer than {step.timeout_ms} ms"
                failure = StepFailure("STEP_TIMEOUT", message)
            else:
                log.exception("step %r of run %s failed inside the engine", step.id, self._id)
                message = f"{type(error).__name__} inside the engine; see the server's log"
                failure = StepFailure("INTERNAL_ERROR", message, may_retry=False)
        duration_ms = _ms(clock.monotonic_s() - started_s)
        return self._fail(step, data, failure, place, attempt, tried, turns, duration_ms)

    def fail(self, step: Step, data: Payload, failure: StepFailure, place: Place) -> NoReturn:
        """Records a container that failed by itself, which alone puts it into a trace. Raises StepLost."""
        attempt = self.next_attempt(step.id, place)
        self._start(step, data, place, attempt)
        raise StepLost(step.id, self._error(step, data, failure, place, attempt, None, 0)) from failure

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
        snapshot = self._capture.failed_input(data)
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

    def _take_up(self, step: LeafStep, place: Place, attempt: int, talk: Talk) -> None:
        """Records that the results are in: the run goes on, and the trace shows with what."""
        results = {"toolResults": [turn for turn in talk.messages if turn.get("role") == "tool"]}
        self._record_turn(step, place, attempt, results)

    def _record_turn(self, step: LeafStep, place: Place, attempt: int, turn: dict[str, Any]) -> None:
        snapshot = self._capture.snapshot(Payload(turn))
        self._recorder.record(
            StepOutput(
                execution_id=self._id,
                step_id=step.id,
                attempt=attempt,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                output_data=encoded(snapshot.data),
            )
        )

    def _wait(
        self,
        step: LeafStep,
        performed: Performed,
        attempt: int,
        talk: Talk,
        turns: Turns | None,
        duration_ms: int,
    ) -> Turns:
        used = turns.iterations_used + 1 if turns else 1
        assert talk.offer is not None
        if used > MAX_TOOL_ITERATIONS:
            raise AnswerRejected(
                "TOOL_ITERATION_LIMIT",
                f"the model of step {step.id!r} asked for tools more than {MAX_TOOL_ITERATIONS} times",
                may_retry=False,
                tokens=performed.tokens,
                cost_usd=performed.cost_usd,
                model_used=performed.model_used or "",
            )
        self.totals.add(performed.tokens, performed.cost_usd, asked=True)
        cost_usd = _sum(turns, performed.cost_usd)
        return Turns(
            step_id=step.id,
            attempt=attempt,
            messages=performed.messages,
            calls=performed.calls,
            iterations_used=used,
            offer=talk.offer,
            duration_ms=duration_ms,
            tokens=sum_of_tokens(turns.tokens if turns else None, performed.tokens),
            cost_usd=None if cost_usd is None else format_usd(cost_usd),
            model_used=performed.model_used,
            last_cost_usd=performed.cost_usd,
        )

    def _complete(
        self,
        step: LeafStep,
        performed: Performed,
        place: Place,
        attempt: int,
        turns: Turns | None,
        duration_ms: int,
    ) -> None:
        output = performed.output
        snapshot = self._capture.snapshot(output)
        self.totals.add(performed.tokens, performed.cost_usd, asked=performed.model_used is not None)
        self.totals.completed += 1
        cost_usd = _sum(turns, performed.cost_usd)
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
                tokens=sum_of_tokens(turns.tokens if turns else None, performed.tokens),
                cost_usd=None if cost_usd is None else format_usd(cost_usd),
                model_used=performed.model_used,
                output_size_bytes=snapshot.size_bytes,
                truncated=snapshot.truncated,
            ),
            checkpoint=Checkpoint(step.id, path_text(place.loop_path), output.json),
            spent_usd=performed.cost_usd,
        )
        if self._outputs is not None:
            self._outputs[self._recorder.head] = output.json

    def _fail(
        self,
        step: LeafStep,
        data: Payload,
        failure: StepFailure,
        place: Place,
        attempt: int,
        tried: int,
        turns: Turns | None,
        duration_ms: int,
    ) -> int:
        """Records the failed attempt; returns the ms to wait before the next, or raises StepLost."""
        retry = step.retry or NO_RETRY
        if step.retry is None and isinstance(step, LlmStep) and failure.code in PROVIDER_BUSY:
            retry = PROVIDER_RETRY
        if not failure.may_retry or tried >= retry.max_attempts:
            error = self._error(step, data, failure, place, attempt, turns, duration_ms)
            raise StepLost(step.id, error) from failure
        delay_ms = max(retry.delay_ms(tried), min(failure.retry_after_ms or 0, retry.max_delay_ms))
        paid = self._paid(failure, turns)
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
                error=encoded(self._capture.error(_detail(failure), [data.value, self._inputs])),
                next_attempt=attempt + 1,
                delay_ms=delay_ms,
                duration_ms=duration_ms,
                **paid,
            ),
            spent_usd=_spent(failure),
        )
        return delay_ms

    def _error(
        self,
        step: Step,
        data: Payload,
        failure: StepFailure,
        place: Place,
        attempt: int,
        turns: Turns | None,
        duration_ms: int,
    ) -> dict[str, Any]:
        if not self._capture.keeps_snapshots:
            self._record_input(step, data, place, attempt)
        error = self._capture.error(_detail(failure), [data.value, self._inputs])
        paid = self._paid(failure, turns)
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
            ),
            spent_usd=_spent(failure),
        )
        recorded: dict[str, Any] = msgspec.json.decode(error)
        return recorded

    def _paid(self, failure: StepFailure, turns: Turns | None) -> dict[str, Any]:
        """Tokens, cost and model of what was answered, and paid for, before the attempt failed."""
        rejected = failure if isinstance(failure, AnswerRejected) else None
        if rejected is not None:
            self.totals.add(rejected.tokens, rejected.cost_usd, asked=True)
        if rejected is None and turns is None:
            return {}
        cost_usd = _sum(turns, rejected.cost_usd if rejected else None)
        return {
            "tokens": sum_of_tokens(turns.tokens if turns else None, rejected.tokens if rejected else None),
            "cost_usd": None if cost_usd is None else format_usd(cost_usd),
            "model_used": (rejected.model_used if rejected else None)
            or (turns.model_used if turns else None),
        }


def _spent(failure: StepFailure) -> Decimal | None:
    return failure.cost_usd if isinstance(failure, AnswerRejected) else None


def _sum(turns: Turns | None, cost_usd: Decimal | None) -> Decimal | None:
    """The cost of all turns of an attempt; None where that of none is known."""
    before = None if turns is None or turns.cost_usd is None else Decimal(turns.cost_usd)
    return cost_usd if before is None else before + (cost_usd or 0)


def _detail(failure: StepFailure) -> dict[str, Any]:
    return {"code": failure.code, "message": failure.message, **failure.details}


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
