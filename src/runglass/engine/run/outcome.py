"""How a segment of a run ends, as its caller hears of it."""

from typing import Any, NamedTuple

import msgspec

from runglass.engine.journal.run_spec import Pause
from runglass.errors import RunglassError


class RunReleased(RunglassError):
    """The run was left by the process that went on with it; it goes on elsewhere, or after the next start."""


class LeaseLost(RunReleased):
    """Another process goes on with the run: this one has lost its lease, or never had the run."""


class AppendRefused(LeaseLost):
    """The store refused what this process recorded: another one has the run, or the store has gone back.

    It goes back where PostgreSQL has been replaced by a standby that lacks the newest commits. The run may
    then be this process's still.
    """


class RunOutcome(NamedTuple):
    """How a segment ended: `status` as in the trace, and the `error` of a run that failed.

    `result_json` is the result of a completed one. A paused run has its `pause` and the `outputs` by step id
    so far.
    """

    status: str
    error: dict[str, Any] | None = None
    step_id: str | None = None
    pause: Pause | None = None
    outputs: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default, never changed
    result_json: bytes = b"null"

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, decoded anew each time."""
        result: dict[str, Any] | None = msgspec.json.decode(self.result_json)
        return result
