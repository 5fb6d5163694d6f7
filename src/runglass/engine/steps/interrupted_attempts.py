"""Attempts whose process ended before they did: each is recorded to its end before its step is run again."""

from collections.abc import Mapping

from runglass.engine.journal.checkpoints import StepPosition
from runglass.engine.journal.resume import WORKER_LOST, InterruptedAttempt
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.payload import Payload
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.call_recorder import lost_call
from runglass.engine.steps.outcomes import StepFailedPermanently
from runglass.engine.steps.run_context import RunContext
from runglass.errors import StepFailure
from runglass.flows.flow import LeafStep, Step, WaitStep, within
from runglass.log.fold import Address
from runglass.log.trace import StepTrace


class InterruptedAttempts:
    """The interrupted `attempts` of one run. A step may be interrupted `crash_retries` times."""

    __slots__ = ("_context", "_crash_retries", "attempts")

    def __init__(
        self,
        context: RunContext,
        attempts: Mapping[Address, InterruptedAttempt],
        *,
        crash_retries: int,
    ) -> None:
        self.attempts = dict(attempts)
        self._context = context
        self._crash_retries = crash_retries

    def take(self, step: Step, position: StepPosition) -> InterruptedAttempt | None:
        """The step's interrupted attempt in this iteration, each once."""
        return self.attempts.pop(Address(step.id, position.loop_path), None)

    def end(
        self,
        interrupted: InterruptedAttempt,
        attempt: AttemptRecorder,
        step: LeafStep,
        tool_loop: ToolLoopState | None,
    ) -> None:
        """Records the attempt's end: another is to follow, or StepFailedPermanently is raised."""
        before = interrupted.change.step
        attempt.stop_clock()
        _record_lost_call(attempt, before, tool_loop)
        crash = _crash(step)
        if interrupted.crashes >= self._crash_retries and not isinstance(step, WaitStep):
            raise StepFailedPermanently(attempt.record_failure(crash)) from crash
        attempt.retry(crash, delay_ms=0)

    def abandon_inner(self, container: Step, position: StepPosition) -> None:
        """Records the interrupted attempts inside of the container as lost, since the container is."""
        outer = position.loop_path or ()
        inner = {step.id: step for step in within(container)}
        for address, interrupted in list(self.attempts.items()):
            path = address.loop_path or ()
            if address.step_id in inner and path[: len(outer)] == outer:
                del self.attempts[address]
                if interrupted.change.step.status == "running":
                    step = inner[address.step_id]
                    there = position.inside(address.loop_path)
                    attempt = AttemptRecorder(
                        self._context, step, Payload(None), there, interrupted.change.step.attempt
                    )
                    attempt.stop_clock()
                    _record_lost_call(attempt, interrupted.change.step)
                    attempt.abandon(_crash(step))


def _record_lost_call(
    attempt: AttemptRecorder, before: StepTrace, tool_loop: ToolLoopState | None = None
) -> None:
    if (call := lost_call(attempt.step, before, tool_loop)) is not None:
        attempt.record_call(call)


def _crash(step: Step) -> StepFailure:
    message = f"the process that ran this attempt of step {step.id!r} ended before the attempt did"
    return StepFailure(WORKER_LOST, message)
