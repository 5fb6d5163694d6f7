"""How a leaf step can end other than with an output: each ends, or holds up, the segment around it."""

from runglass.engine.journal.checkpoints import FailureCheckpoint
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.scheduling.drain import StopRequest


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


class CreditsExhausted(Exception):
    """The project's budget is spent, or too little of it is left for a call of the step; `str` says which."""

    def __init__(self, step_id: str, message: str) -> None:
        super().__init__(message)
        self.step_id = step_id


def out_of_credit(stop: StopRequest, step_id: str, message: str) -> CreditsExhausted:
    """The error to raise; all other steps of the run end with it."""
    stop.spent_at, stop.spent = step_id, message
    return CreditsExhausted(step_id, message)
