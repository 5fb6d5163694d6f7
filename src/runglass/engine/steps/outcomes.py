"""How a leaf step can end other than with an output, and whether a failed attempt is followed by another.

Each such end ends, or holds up, the segment around the step.
"""

from collections.abc import Mapping
from typing import Any

from runglass.engine.journal.checkpoints import FailureCheckpoint
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.model_types import ModelCallFailed
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.errors import RETRY_AFTER, StepFailure
from runglass.flows.flow import LeafStep, LlmStep, Retry


class StepFailedPermanently(Exception):
    """A step failed for good; the containers around it fail with it, up to one with `on_error: continue`."""

    def __init__(self, lost: FailureCheckpoint) -> None:
        super().__init__(f"{lost.step_id}: {lost.error.get('message')}")
        self.lost = lost


class AwaitingToolResults(Exception):
    """An llm step has asked for tools, and cannot go on without their results."""

    def __init__(self, tool_loop: ToolLoopState) -> None:
        super().__init__(f"{tool_loop.step_id} waits for {len(tool_loop.calls)} tool results")
        self.tool_loop = tool_loop


NO_RETRY = Retry(max_attempts=1)
PROVIDER_RETRY = Retry(max_attempts=3)
"""For llm steps without `retry`: a busy provider gets two more chances, any other failure none."""
PROVIDER_BUSY = frozenset({"RATE_LIMITED", "PROVIDER_UNAVAILABLE"})


def end_if_repeated(failure: StepFailure, before: int | None) -> int | None:
    """Makes a failure final where the provider answered the attempt before with the same server error.

    `before` is the server error of that attempt; returns that of this one.
    """
    answered = failure.server_error if isinstance(failure, ModelCallFailed) else None
    if answered is not None and answered == before:
        failure.may_retry = False
        failure.message += "; not retried, since the previous attempt got the same answer"
    return answered


def retry_or_fail(attempt: AttemptRecorder, failure: StepFailure) -> int:
    """Records the failure; returns the ms until the next attempt. Raises StepFailedPermanently."""
    step = attempt.step
    assert isinstance(step, LeafStep)
    retry = step.retry or NO_RETRY
    if step.retry is None and isinstance(step, LlmStep) and failure.code in PROVIDER_BUSY:
        retry = PROVIDER_RETRY
    if not failure.may_retry or attempt.tried >= retry.max_attempts:
        raise StepFailedPermanently(attempt.record_failure(failure)) from failure
    delay_ms = delay_after(failure.as_json(), retry, attempt.tried)
    attempt.retry(failure, delay_ms=delay_ms)
    return delay_ms


def delay_after(error: Mapping[str, Any], retry: Retry, tried: int) -> int:
    """Ms from a failure to the next attempt: if longer, what a provider asked for, up to `max_delay_ms`."""
    return max(retry.delay_ms(tried), min(error.get(RETRY_AFTER) or 0, retry.max_delay_ms))
