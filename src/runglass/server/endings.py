"""How a run came to its end, as its last event says."""

from typing import Any

import msgspec

from runglass.events import FlowCancelled, FlowCompleted, FlowFailed, decode_event
from runglass.store.base import RunRecord, Store


class Failure(msgspec.Struct, frozen=True, rename="camel"):
    """Why a run failed, and the step that was lost; None where it was no step."""

    error: dict[str, Any] = {}
    step_id: str | None = None

    @property
    def sentence(self) -> str:
        """The failure in words, with its code."""
        what = "the run" if self.step_id is None else f"step {self.step_id!r}"
        return f"{what} failed: {self.error.get('message')} ({self.error.get('code')})"


async def failure_of(store: Store, run: RunRecord) -> Failure:
    """The failure of a run whose status is `failed`: nothing follows the event that says so."""
    ((_, last),) = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    return msgspec.json.decode(last, type=Failure)


async def end_of(store: Store, run: RunRecord) -> FlowCompleted | FlowFailed | FlowCancelled | None:
    """The event that ended the run; None where it has not ended."""
    if not run.ended:
        return None
    ((_, last),) = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    event = decode_event(last)
    return event if isinstance(event, FlowCompleted | FlowFailed | FlowCancelled) else None


def bad_end(end: FlowFailed | FlowCancelled) -> dict[str, Any]:
    """The error of a run that was lost with none of its steps, as callers of `step` are told it."""
    if isinstance(end, FlowCancelled):
        return {"code": "CANCELLED", "message": f"the run was cancelled: {end.reason}"}
    cause = end.error or {}
    return {"code": "RUN_FAILED", "message": f"the run failed: {cause.get('message')}", "error": cause}
