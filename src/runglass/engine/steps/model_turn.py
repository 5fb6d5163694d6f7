"""The requests to a model that one turn of an attempt makes: one, or more where a server declines a form.

On a budget each is reserved before it is made. Its end is recorded with its cost, which is the reservation
where the real cost is not known.
"""

from collections.abc import Callable
from decimal import Decimal

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
from runglass.money import ZERO


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

    def start(self) -> None:
        """The first request goes out now."""
        assert self._call is not None
        self._call.start()

    def hear(self, text: str) -> None:
        """A part of the answer has come."""
        if self._call is not None:
            self._call.hear(text)

    async def answer(self, on_text: Callable[[str], None]) -> ModelAnswer:
        """The model's answer. Raises StepFailure, BudgetExceeded."""
        if self._budget is None:
            return await self._models.complete(self.request, on_text)
        return await self._models.complete(self.request, on_text, on_declined=self._again)

    async def prepare_answer(self, outcome: ModelAnswer | StepFailure) -> None:
        """Looks through a long answer off the event loop, before the call is told."""
        if self._call is not None:
            await self._call.prepare_answer(outcome)

    def end(self, outcome: ModelAnswer | StepFailure) -> None:
        """Records how the last request ended."""
        # Any other failure came about before anything was sent: then no model was asked.
        if self._call is not None and isinstance(outcome, ModelAnswer | ModelCallFailed | AnswerRejected):
            self._attempt.record_call(self._call.ended(outcome))

    async def _again(self, declined: ModelCallFailed) -> None:
        """A request was declined, and another one is about to be made."""
        if not declined.may_be_charged:
            # It was free, so what was reserved for it does for the next one, which is no larger.
            return
        self.end(declined)
        # Until the next one is reserved there is none.
        self._call = None
        await self._prepare()
        self.start()

    async def _prepare(self) -> None:
        call = self._attempt.call(self.request, reserved_usd=self._reserved_usd)
        await call.prepare()
        if self._budget is None or not self._most_usd:
            # What others are asked to do is not asked before it is sure to be in the log.
            await self._writing.recorder.commit()
        else:
            is_reserved = False
            try:
                async with self._budget.reserved(self._most_usd):
                    self._attempt.reserve(call)
                    is_reserved = True
            except BaseException:
                if is_reserved:
                    self._cancel_reservation(call)
                raise
        self._call = call

    def _cancel_reservation(self, call: CallRecorder) -> None:
        """Records that a request was not made, so that its reservation is not charged."""
        if call.is_reserved:
            self._attempt.record_call(call.never_made())

    @property
    def _reserved_usd(self) -> Decimal | None:
        return self._most_usd or None
