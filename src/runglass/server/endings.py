"""How a run that failed came to its end."""

from typing import Any

import msgspec

from runglass.errors import STEP_CODES
from runglass.store.base import RunRecord, Store


class Failure(msgspec.Struct, frozen=True, rename="camel"):
    """Why a run failed, and the step that was lost; None where it was no step."""

    error: dict[str, Any] = {}
    step_id: str | None = None

    @property
    def sentence(self) -> str:
        """The failure in words, with its code."""
        what = "the run" if self.step_id is None else f"step {self.step_id!r}"
        code = self.error.get("code")
        # Mode `off` keeps no message; what the code stands for is content of nobody's.
        message = self.error.get("message") or STEP_CODES.get(str(code))
        return f"{what} failed: {message} ({code})"


async def failure_of(store: Store, run: RunRecord) -> Failure:
    """The failure of a run whose status is `failed`: whole while that is owed, then what the log keeps."""
    # Nothing follows the event that says so.
    ((_, last),) = await store.events(run.no, after=run.head - 1, limit_bytes=1)
    failure = msgspec.json.decode(last, type=Failure)
    _, error = await store.outcome(run.no)
    return failure if error is None else Failure(msgspec.json.decode(error), failure.step_id)
