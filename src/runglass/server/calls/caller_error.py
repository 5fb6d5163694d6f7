"""The error of a run that ended badly, as its caller got it at the end of the run."""

from typing import Any

from runglass.engine.run.outcome import RunOutcome
from runglass.errors import STEP_CODES
from runglass.log.events import FlowCancelled, FlowFailed
from runglass.server.calls.execute_responses import failure
from runglass.server.calls.run_failure import bad_end
from runglass.store.records import RunRecord


def caller_error(run: RunRecord, end: FlowFailed | FlowCancelled) -> tuple[dict[str, Any], dict[str, Any]]:
    """The error as the log has it, and as the caller got it, with the former in `error` if they differ."""
    if isinstance(end, FlowCancelled):
        error: dict[str, Any] = {"code": "CANCELLED", "message": end.reason}
        outcome = RunOutcome("cancelled", error=error)
    else:
        error = end.error or {}
        # Mode `off` keeps no message. The meaning of the code is no content, so it stands in for the message.
        message = error.get("message") or STEP_CODES.get(str(error.get("code")))
        outcome = RunOutcome("failed", error={**error, "message": message}, step_id=end.step_id)
    if run.trigger_type == "api":
        answered = failure(run.id, outcome)
        return error, {"code": answered.code, "message": answered.message, "error": error}
    lost_a_step = outcome.step_id is not None and error.get("code") != "CREDITS_EXHAUSTED"
    if run.trigger_type == "step" and not lost_a_step:
        return error, bad_end(end)
    return error, error
