"""The end of a run, as each caller is told it: that of `execute`, of `step`, of a job, of a trace."""

from typing import Any

import msgspec

from runglass.engine.capture.snapshots import is_whole
from runglass.errors import STEP_CODES, APIError, api_error, run_failed
from runglass.log.events import FlowCancelled, FlowCompleted, FlowFailed, decode_event
from runglass.store.base import decoding
from runglass.store.records import RunRecord
from runglass.store.run_logs import RunLog
from runglass.support.lazy_json import json_bytes


class RunFailure(msgspec.Struct, frozen=True, rename="camel"):
    """The error of a run that ended badly, and the step that failed for good; None where no step did."""

    error: dict[str, Any] = {}
    step_id: str | None = None
    is_cancelled: bool = False

    @property
    def message(self) -> str | None:
        """The message. Mode `off` keeps none; the meaning of the code is no content, so it stands in."""
        return self.error.get("message") or STEP_CODES.get(str(self.error.get("code")))

    @property
    def sentence(self) -> str:
        """The failure in words, with its code, as the caller of a job gets it."""
        what = "the run" if self.step_id is None else f"step {self.step_id!r}"
        return f"{what} failed: {self.message} ({self.error.get('code')})"

    def answer(self, run_id: str) -> APIError:
        """The response of `execute`."""
        return run_failed(run_id, self.error, self.step_id, is_cancelled=self.is_cancelled)

    def step_error(self) -> dict[str, Any]:
        """The error of a step for the caller of `step`, who is told no other bad end."""
        message = self.error.get("message")
        if self.is_cancelled:
            return {"code": "CANCELLED", "message": f"the run was cancelled: {message}"}
        # Mode `off` keeps no message; only the caller that waited for the end gets it.
        said = "the run failed" if message is None else f"the run failed: {message}"
        return {"code": "RUN_FAILED", "message": said, "error": self.error}

    def told(self, run: RunRecord) -> dict[str, Any]:
        """The error as the caller of the run got it, with that of the log in `error` where they differ."""
        if run.trigger_type == "api":
            error = self.error if self.is_cancelled else {**self.error, "message": self.message}
            answered = msgspec.structs.replace(self, error=error).answer(run.id)
            return {"code": answered.code, "message": answered.message, "error": self.error}
        lost_a_step = self.step_id is not None and self.error.get("code") != "CREDITS_EXHAUSTED"
        return self.step_error() if run.trigger_type == "step" and not lost_a_step else self.error


def failure_at(end: FlowFailed | FlowCancelled) -> RunFailure:
    """The failure as the last event of the run has it."""
    if isinstance(end, FlowCancelled):
        return RunFailure({"code": "CANCELLED", "message": end.reason}, is_cancelled=True)
    return RunFailure(end.error or {}, end.step_id)


async def failure_of(store: RunLog, run: RunRecord, *, whole: bool = True) -> RunFailure:
    """The failure of a run that ended badly: `whole` while that is owed, else as the log has it.

    Raises StoreError, RunUnreadable.
    """
    end = await end_of(store, run)
    assert isinstance(end, FlowFailed | FlowCancelled), f"run {run.id!r} is {run.status}"
    failure = failure_at(end)
    error = (await store.outcome(run.no))[1] if whole and not failure.is_cancelled else None
    with decoding(run.id):
        return failure if error is None else RunFailure(msgspec.json.decode(error), failure.step_id)


async def result_of(store: RunLog, run: RunRecord) -> bytes:
    """The result of a run whose status is `completed`, as JSON, as long as its caller is owed it.

    After that it comes from the log, where that has it whole. Raises ANSWER_EXPIRED.
    """
    result, _ = await store.outcome(run.no)
    if result is not None:
        return result
    if run.capture == "full":
        end = await end_of(store, run)
        logged: Any = json_bytes(end, "result") if isinstance(end, FlowCompleted) else None
        if logged is not None and is_whole(bytes(logged)):
            return bytes(logged)
    raise answer_expired(run.id)


async def require_outcome(store: RunLog, run: RunRecord) -> tuple[bytes | None, bytes | None]:
    """The result or the error that is kept for the caller of a run that has ended. Raises ANSWER_EXPIRED."""
    kept = await store.outcome(run.no) if run.ended else (None, None)
    if run.ended and kept == (None, None):
        raise answer_expired(run.id)
    return kept


def answer_expired(run_id: str) -> APIError:
    message = f"run {run_id!r} is over, and what it came to is not kept for its caller any more"
    return api_error("ANSWER_EXPIRED", message, execution_id=run_id)


async def end_of(store: RunLog, run: RunRecord) -> FlowCompleted | FlowFailed | FlowCancelled | None:
    """The event that ended the run; None where it has not ended. Raises StoreError, RunUnreadable."""
    if not run.ended:
        return None
    events = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    with decoding(run.id):
        event = decode_event(events[0][1])
    return event if isinstance(event, FlowCompleted | FlowFailed | FlowCancelled) else None
