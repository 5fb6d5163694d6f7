"""The requests to a model that one turn of an attempt makes: one, or more where a server declines a form.

Each is a model call of its own. On a budget it is reserved before it is made. Its end is recorded with its
cost, which is the reservation where the real cost is not known.
"""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Self

from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.models.gateway import (
    AnswerRejected,
    ModelAnswer,
    ModelCallFailed,
    ModelRequest,
)
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.call_recorder import CallRecorder
from runglass.engine.steps.run_context import RunContext
from runglass.errors import StepFailure
from runglass.flows.flow import LlmStep
from runglass.log.money import ZERO
from runglass.support.clock import Clock

INTERVAL_S = 0.05


class TextBatcher:
    """Takes text while an attempt runs, and calls `record` with it. Leaving the block records what is left.

    At most `most` characters are recorded: the whole text is the output's business.
    """

    def __init__(self, record: Callable[[str], None], clock: Clock, *, most: int) -> None:
        self._record_text = record
        self._clock = clock
        self._room = most
        self._parts: list[str] = []
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.wait({self._pump})
                # Its exception holds its frame, which holds this stream and with it the attempt.
                self._pump = None
        finally:
            self._record()

    def write(self, text: str) -> None:
        """Adds a piece of text; it reaches the log within 50 ms."""
        if not text or not self._room:
            return
        text = text[: self._room]
        self._room -= len(text)
        self._parts.append(text)
        if self._pump is None:
            self._pump = asyncio.create_task(self._record_in_time())

    async def _record_in_time(self) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            self._record()

    def _record(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts.clear()
            self._record_text(text)


async def ask_model(
    context: RunContext,
    attempt: AttemptRecorder,
    step: LlmStep,
    request: ModelRequest,
    limit: asyncio.Timeout,
) -> ModelAnswer:
    """The model's answer, within the step's time `limit`, its text recorded as it comes.

    The request is recorded in any case. Raises StepFailure, BudgetExceeded.
    """
    # In other modes none: a secret cut in two by the stream could not be redacted. Cut as a snapshot is.
    most = context.capture.limit_bytes if context.capture.mode == "full" else 0
    stream = TextBatcher(attempt.record_text, context.dependencies.clock, most=most)
    turn = ModelTurn(context, attempt, request)
    await turn.begin()
    attempt.restart_clock()

    def hear(text: str) -> None:
        turn.hear(text)
        stream.write(text)

    outcome: ModelAnswer | StepFailure | None = None
    try:
        async with stream, limit:
            if step.limit_ms is not None:
                limit.reschedule(asyncio.get_running_loop().time() + step.limit_ms / 1000)
            try:
                outcome = await context.dependencies.models.complete(turn.request, hear, observer=turn)
            except StepFailure as failure:
                outcome = failure
        await turn.prepare_answer(outcome)
    except BaseException as error:
        # Cut off, the attempt has a call all the same: what the model has done by then may be charged.
        if outcome is None:
            code = WORKER_LOST if context.stop.left else "CANCELLED"
            if limit.expired():
                code = "STEP_TIMEOUT"
            elif not isinstance(error, asyncio.CancelledError):
                code = "INTERNAL_ERROR"
            outcome = ModelCallFailed(code, "cut off", may_be_charged=True)
        turn.end(outcome)
        raise
    turn.end(outcome)
    if isinstance(outcome, StepFailure):
        raise outcome
    return outcome


class ModelTurn:
    """A turn in which `attempt` sends `request` to a model; the budget may bound it before."""

    def __init__(self, context: RunContext, attempt: AttemptRecorder, request: ModelRequest) -> None:
        self.request = request
        self._attempt = attempt
        self._context = context
        self._budget = context.budget
        self._most_usd = ZERO
        self._call: CallRecorder | None = None

    async def begin(self) -> None:
        """Makes ready for the first request; when this returns, the log has all that is to be asked.

        Raises StepFailure where a model on a budget has no price, BudgetExceeded and StoreError.
        """
        if self._budget is not None and not await self._budget.is_set():
            self._budget = None
        if self._budget is not None:
            self.request, self._most_usd = await self._context.dependencies.models.bounded(self.request)
        await self._prepare()
        try:
            await self._context.dependencies.models.ready(self.request.model)
        except BaseException:
            assert self._call is not None
            self._cancel_reservation(self._call)
            raise

    def hear(self, text: str) -> None:
        """A part of the answer has come."""
        if self._call is not None:
            self._call.hear(text)

    async def sent(self, read: Callable[[], dict[str, Any]], size_bytes: int) -> None:
        """A request goes out, as `RequestObserver` has it."""
        if self._call is not None and self._call.is_sent:
            # The provider's library asks again by itself where a login has run out, which costs nothing.
            await self.declined(
                ModelCallFailed("PROVIDER_ERROR", "asked again at once", may_be_charged=False)
            )
        assert self._call is not None
        await self._call.sent(read, size_bytes)

    async def prepare_answer(self, outcome: ModelAnswer | StepFailure) -> None:
        """Looks through a long answer off the event loop, before the call is told."""
        if self._call is not None and self._call.is_sent:
            await self._call.prepare_answer(outcome)

    def end(self, outcome: ModelAnswer | StepFailure) -> None:
        """Records how the last request ended."""
        is_answered = isinstance(outcome, ModelAnswer | AnswerRejected)
        # What was not sent is no call; its reservation ends with the attempt. An answer costs in any case.
        if self._call is None or not (self._call.is_sent or is_answered):
            return
        if isinstance(outcome, ModelAnswer | ModelCallFailed | AnswerRejected):
            self._attempt.record_call(self._call.ended(outcome))

    async def declined(self, failure: ModelCallFailed) -> None:
        """A request was declined, and another one is about to be made. Raises BudgetExceeded, StoreError."""
        if self._call is None or not self._call.is_sent:
            # The provider's library declined the form itself: nothing went out.
            return
        self._attempt.record_call(self._call.declined(failure))
        # Until the next one is reserved there is none.
        self._call = None
        await self._prepare(is_paid_for=not failure.may_be_charged)

    async def _prepare(self, *, is_paid_for: bool = False) -> None:
        """Makes ready for the next request; `is_paid_for` by the reservation of a free one, just ended."""
        call = self._attempt.call(self.request, reserved_usd=self._most_usd or None)
        if self._budget is None or not self._most_usd:
            # What others are asked to do is not asked before it is sure to be in the log.
            await self._context.writer.commit()
        else:
            is_reserved = False
            try:
                # Recorded at once after that end, it takes its place in the same append: the next request is
                # no larger, and nobody gets the money between the two.
                async with nullcontext() if is_paid_for else self._budget.reserved(self._most_usd):
                    self._attempt.reserve(call)
                    is_reserved = True
                await self._context.writer.commit()
            except BaseException:
                if is_reserved:
                    self._cancel_reservation(call)
                raise
        self._call = call

    def _cancel_reservation(self, call: CallRecorder) -> None:
        """Records that a request was not made, so that its reservation is not charged."""
        if call.is_reserved:
            self._attempt.record_call(call.never_made())
