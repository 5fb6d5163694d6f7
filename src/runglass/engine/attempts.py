"""The attempts of leaf steps: how often a step is tried, and that each try is recorded to its end.

Being cut off is an end too: an ended run has no step that still runs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NoReturn

from runglass.engine.attempt import Attempt, Writing
from runglass.engine.llm import AnswerRejected
from runglass.engine.output_stream import OutputStream
from runglass.engine.payload import Payload
from runglass.engine.plan import Turns
from runglass.engine.scope import Place, Scope
from runglass.engine.steps import Parts, Performed, Talk, perform
from runglass.engine.totals import Totals
from runglass.errors import StepFailure, StoreError
from runglass.flow import LeafStep, LlmStep, Retry, Step
from runglass.fold import Address, StepChange

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
        writing: Writing,
        *,
        parts: Parts,
        totals: Totals,
        has_credit: Callable[[], Awaitable[bool]] | None = None,
        earlier: Mapping[Address, StepChange] | None = None,
        outputs: MutableMapping[int, bytes] | None = None,
    ) -> None:
        self._writing = writing
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
        if self._has_credit is not None:
            # What the step before has spent must be in the store before that is asked.
            await self._writing.recorder.commit()
            if not await self._has_credit():
                raise CreditsExhausted(step.id)
        number = turns.attempt if turns else self.next_attempt(step.id, place)
        tried = 1
        while True:
            names = scope.names(data, attempt=number)
            given, failure = await self._input_of(step, data, names)
            attempt = Attempt(self._writing, step, given, place, number, turns=turns)
            if given is not data:
                names = scope.names(given, attempt=number)
            performed = await self._perform(attempt, step, names, talk, failure)
            if isinstance(performed, Performed):
                return performed.output
            await self._parts.clock.sleep(self._judge(attempt, performed, tried) / 1000)
            number, tried, turns = number + 1, tried + 1, None

    def next_attempt(self, step_id: str, place: Place) -> int:
        """The number of the next attempt, which takes the place in the trace that the step has already."""
        known = self._earlier.get(Address(step_id, place.loop_path))
        if known is None:
            return 1
        self._writing.recorder.fold.reopen(known)
        return known.step.attempt + 1

    def fail(self, step: Step, data: Payload, failure: StepFailure, place: Place) -> NoReturn:
        """Records a container that failed by itself, which alone puts it into a trace. Raises StepLost."""
        attempt = Attempt(self._writing, step, data, place, self.next_attempt(step.id, place))
        attempt.start()
        self.totals.failed += 1
        raise StepLost(step.id, attempt.lose(failure)) from failure

    async def _input_of(
        self, step: LeafStep, data: Payload, names: Mapping[str, Any]
    ) -> tuple[Payload, StepFailure | None]:
        """The step's input, its own or what comes in; a failure to make it belongs to the attempt."""
        failure = None
        if step.input is not None:
            try:
                data = Payload(await self._parts.templates.render_input(step.input, names))
            except StepFailure as error:
                failure = error
        await self._writing.capture.prepare(data)
        return data, failure

    async def _perform(
        self,
        attempt: Attempt,
        step: LeafStep,
        names: Mapping[str, Any],
        talk: Talk,
        failure: StepFailure | None,
    ) -> Performed | StepFailure:
        """One attempt, recorded from its start to its end, whatever the end is, but for a failure."""
        if attempt.turns is None:
            attempt.start()
        else:
            attempt.take_up([turn for turn in talk.messages if turn.get("role") == "tool"])
        stream = OutputStream(attempt, self._writing)
        limit: asyncio.Timeout | None = None
        try:
            await self._writing.recorder.commit()
            if failure is not None:
                return failure
            if isinstance(step, LlmStep):
                await self._parts.models.ready(step.model)
                attempt.restart_clock()
            limit_s = None if step.timeout_ms is None else step.timeout_ms / 1000
            async with stream, asyncio.timeout(limit_s) as limit:
                performed = await perform(step, attempt.data, names, self._parts, stream.write, talk)
                await self._writing.capture.prepare(performed.output)
            if performed.calls:
                raise StepWaits(self._wait(attempt, performed, talk))
            self._complete(attempt, performed)
        except StepFailure as error:
            return error
        except asyncio.CancelledError:
            self.totals.failed += 1
            attempt.lose(StepFailure("CANCELLED", f"step {step.id!r} was cut off", may_retry=False))
            raise
        except (StoreError, StepWaits):
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
        return performed

    def _complete(self, attempt: Attempt, performed: Performed) -> None:
        self.totals.add(performed.tokens, performed.cost_usd, asked=performed.model_used is not None)
        self.totals.completed += 1
        attempt.complete(performed)
        if self._outputs is not None:
            self._outputs[self._writing.recorder.head] = performed.output.json

    def _wait(self, attempt: Attempt, performed: Performed, talk: Talk) -> Turns:
        assert talk.offer is not None
        turns = attempt.wait(performed, talk.offer)
        if turns.iterations_used > MAX_TOOL_ITERATIONS:
            raise AnswerRejected(
                "TOOL_ITERATION_LIMIT",
                f"step {attempt.step.id!r}: the model asked for tools more than {MAX_TOOL_ITERATIONS} times",
                may_retry=False,
                tokens=performed.tokens,
                cost_usd=performed.cost_usd,
                model_used=performed.model_used or "",
            )
        self.totals.add(performed.tokens, performed.cost_usd, asked=True)
        return turns

    def _judge(self, attempt: Attempt, failure: StepFailure, tried: int) -> int:
        """Records the failure; returns the ms to wait before the next attempt, or raises StepLost."""
        step = attempt.step
        assert isinstance(step, LeafStep)
        retry = step.retry or NO_RETRY
        if step.retry is None and isinstance(step, LlmStep) and failure.code in PROVIDER_BUSY:
            retry = PROVIDER_RETRY
        if isinstance(failure, AnswerRejected):
            self.totals.add(failure.tokens, failure.cost_usd, asked=True)
        if not failure.may_retry or tried >= retry.max_attempts:
            self.totals.failed += 1
            raise StepLost(step.id, attempt.lose(failure)) from failure
        delay_ms = max(retry.delay_ms(tried), min(failure.retry_after_ms or 0, retry.max_delay_ms))
        self.totals.retried += 1
        attempt.retry(failure, delay_ms=delay_ms)
        return delay_ms
