"""How a run that failed came to its end, as its last event says."""

from typing import Any

import msgspec

from runglass.store.base import RunRecord, Store, decoding


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
    """The failure of a run whose status is `failed`: nothing follows the event that says so.

    Raises StoreError, RunUnreadable.
    """
    events = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    with decoding(run.id):
        return msgspec.json.decode(events[0][1], type=Failure)
