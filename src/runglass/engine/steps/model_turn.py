"""The requests to a model that one turn of an attempt makes: one, or more where a server declines a form.

Each is a model call of its own. On a budget it is reserved before it is made. Its end is recorded with its
cost, which is the reservation where the real cost is not known.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from runglass.engine.models.budget import RunBudget
from runglass.engine.models.gateway import (
    AnswerRejected,
    ModelAnswer,
    ModelCallFailed,
    ModelGateway,
    ModelRequest,
)
from runglass.engine.steps.attempt_context import AttemptContext
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.call_recorder import CallRecorder
from runglass.errors import StepFailure
from runglass.log.money import ZERO


class ModelTurn:
    """A turn in which `attempt` sends `request` to a model; the budget may bound it before."""

    def __init__(
        self,
        attempt: AttemptRecorder,
        request: ModelRequest,
        *,
        writing: AttemptContext,
        models: ModelGateway,
        budget: RunBudget | None,
    ) -> None:
        self.request = request
        self._attempt = attempt
        self._writing = writing
        self._models = models
        self._budget = budget
        self._most_usd = ZERO
        self._call: CallRecorder | None = None

    async def begin(self) -> None:
        """Makes ready for the first request; when this returns, the log has all that is to be asked.

        Raises StepFailure where a model on a budget has no price, BudgetExceeded and StoreError.
        """
        if self._budget is not None and not await self._budget.is_set():
            self._budget = None
        if self._budget is not None:
            self.request, self._most_usd = await self._models.bounded(self.request)
        await self._prepare()
        try:
            await self._models.ready(self.request.model)
        except BaseException:
            assert self._call is not None
            self._cancel_reservation(self._call)
            raise

    def hear(self, text: str) -> None:
        """A part of the answer has come."""
        if self._call is not None:
            self._call.hear(text)

    async def answer(self, on_text: Callable[[str], None]) -> ModelAnswer:
        """The model's answer. Raises StepFailure, BudgetExceeded."""
        return await self._models.complete(self.request, on_text, observer=self)

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
            await self._writing.recorder.commit()
        else:
            is_reserved = False
            try:
                # Recorded at once after that end, it takes its place in the same append: the next request is
                # no larger, and nobody gets the money between the two.
                async with nullcontext() if is_paid_for else self._budget.reserved(self._most_usd):
                    self._attempt.reserve(call)
                    is_reserved = True
                await self._writing.recorder.commit()
            except BaseException:
                if is_reserved:
                    self._cancel_reservation(call)
                raise
        self._call = call

    def _cancel_reservation(self, call: CallRecorder) -> None:
        """Records that a request was not made, so that its reservation is not charged."""
        if call.is_reserved:
            self._attempt.record_call(call.never_made())
