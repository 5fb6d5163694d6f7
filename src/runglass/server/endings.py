"""How a run that failed came to its end, as its last event says."""

from typing import Any

import msgspec

from runglass.store.base import RunRecord, Store


class Failure(msgspec.Struct, frozen=True, rename="camel"):
    """Why a run failed, and the step that was lost; None where it was no step."""

    error: dict[str, Any] = {}
    step_id: str | None = None

    @property
    def sentence(self) -> str:
        """The failure in words, with its code."""
        what = "the run" if self.step_id is None else f"step {self.step_id!r}"
        message = self.error.get("message")
        return f"{what} failed{'' if message is None else f': {message}'} ({self.error.get('code')})"


async def failure_of(store: Store, run: RunRecord) -> Failure:
    """The failure of a run whose status is `failed`: nothing follows the event that says so."""
    ((_, last),) = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    return msgspec.json.decode(last, type=Failure)
