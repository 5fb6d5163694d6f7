"""The end of a run, for the caller that is owed its content."""

from typing import Any

import msgspec

from runglass.engine.capture.snapshots import is_whole
from runglass.errors import STEP_CODES, APIError, api_error
from runglass.log.events import FlowCancelled, FlowCompleted, FlowFailed, decode_event
from runglass.store.base import Store, decoding
from runglass.store.records import RunRecord


class RunFailure(msgspec.Struct, frozen=True, rename="camel"):
    """The error of a failed run, and the step that failed for good; None where no step did."""

    error: dict[str, Any] = {}
    step_id: str | None = None

    @property
    def sentence(self) -> str:
        """The failure in words, with its code."""
        what = "the run" if self.step_id is None else f"step {self.step_id!r}"
        code = self.error.get("code")
        # Mode `off` keeps no message. The meaning of the code is no content, so it stands in for the message.
        message = self.error.get("message") or STEP_CODES.get(str(code))
        return f"{what} failed: {message} ({code})"


class _Completed(msgspec.Struct, frozen=True):
    result: msgspec.Raw


async def failure_of(store: Store, run: RunRecord, *, whole: bool = True) -> RunFailure:
    """The failure of a run whose status is `failed`: `whole` while that is owed, else as the log has it.

    Raises StoreError, RunUnreadable.
    """
    # The event with the failure is the last of the log.
    events = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    error = (await store.outcome(run.no))[1] if whole else None
    with decoding(run.id):
        failure = msgspec.json.decode(events[0][1], type=RunFailure)
        return failure if error is None else RunFailure(msgspec.json.decode(error), failure.step_id)


async def result_of(store: Store, run: RunRecord) -> bytes:
    """The result of a run whose status is `completed`, as JSON, as long as its caller is owed it.

    After that it comes from the log, where that has it whole. Raises ANSWER_EXPIRED.
    """
    result, _ = await store.outcome(run.no)
    if result is not None:
        return result
    if run.capture == "full":
        events = await store.events(run.no, after=run.head - 1, limit_bytes=1)
        with decoding(run.id):
            logged = bytes(msgspec.json.decode(events[0][1], type=_Completed).result)
        if is_whole(logged):
            return logged
    raise answer_expired(run.id)


async def require_outcome(store: Store, run: RunRecord) -> None:
    """Raises ANSWER_EXPIRED for a run that has ended and whose outcome is not kept any more."""
    if run.ended and await store.outcome(run.no) == (None, None):
        raise answer_expired(run.id)


def answer_expired(run_id: str) -> APIError:
    message = f"run {run_id!r} is over, and what it came to is not kept for its caller any more"
    return api_error("ANSWER_EXPIRED", message, execution_id=run_id)


async def end_of(store: Store, run: RunRecord) -> FlowCompleted | FlowFailed | FlowCancelled | None:
    """The event that ended the run; None where it has not ended. Raises StoreError, RunUnreadable."""
    if not run.ended:
        return None
    events = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    with decoding(run.id):
        event = decode_event(events[0][1])
    return event if isinstance(event, FlowCompleted | FlowFailed | FlowCancelled) else None


def bad_end(end: FlowFailed | FlowCancelled) -> dict[str, Any]:
    """The error of a run that ended badly without a failed step, as callers of `step` get it."""
    if isinstance(end, FlowCancelled):
        return {"code": "CANCELLED", "message": f"the run was cancelled: {end.reason}"}
    cause = end.error or {}
    message = cause.get("message")
    # Mode `off` keeps no message; only the caller that waited for the end gets it.
    what = "the run failed" if message is None else f"the run failed: {message}"
    return {"code": "RUN_FAILED", "message": what, "error": cause}
