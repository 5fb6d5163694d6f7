"""The request of an attempt to its model: bounded in time, the text of the answer recorded as it comes."""

import asyncio

from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.models.budget import RunBudget
from runglass.engine.models.gateway import ModelAnswer, ModelCallFailed, ModelGateway, ModelRequest
from runglass.engine.scheduling.drain import StopRequest
from runglass.engine.steps.attempt_context import AttemptContext
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.deadline import within
from runglass.engine.steps.model_turn import ModelTurn
from runglass.engine.steps.text_batcher import TextBatcher
from runglass.errors import StepFailure
from runglass.flows.flow import LlmStep


async def ask_model(
    attempt: AttemptRecorder,
    step: LlmStep,
    request: ModelRequest,
    limit: asyncio.Timeout,
    *,
    writing: AttemptContext,
    models: ModelGateway,
    budget: RunBudget | None,
    ending: StopRequest,
) -> ModelAnswer:
    """The model's answer; the request is recorded in any case. Raises StepFailure, BudgetExceeded."""
    stream = TextBatcher(attempt, writing)
    asking = ModelTurn(attempt, request, writing=writing, models=models, budget=budget)
    await asking.begin()
    attempt.restart_clock()

    def hear(text: str) -> None:
        asking.hear(text)
        stream.write(text)

    outcome: ModelAnswer | StepFailure | None = None
    try:
        async with stream, within(limit, step.limit_ms):
            try:
                outcome = await asking.answer(hear)
            except StepFailure as failure:
                outcome = failure
        await asking.prepare_answer(outcome)
    except BaseException as error:
        # What had been answered when the attempt was cut off is to be paid for all the same.
        if outcome is None:
            outcome = ModelCallFailed(_why_cut_off(error, limit, ending), "cut off", may_be_charged=True)
        asking.end(outcome)
        raise
    asking.end(outcome)
    if isinstance(outcome, StepFailure):
        raise outcome
    return outcome


def _why_cut_off(error: BaseException, limit: asyncio.Timeout, ending: StopRequest) -> str:
    if limit.expired():
        return "STEP_TIMEOUT"
    if not isinstance(error, asyncio.CancelledError):
        return "INTERNAL_ERROR"
    return WORKER_LOST if ending.left else "CANCELLED"
