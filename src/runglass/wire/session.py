"""The public types of a session: runs that share a session id, each with the snapshots of its steps.

Shared by client and server. The JSON has no members for missing values.
"""

import msgspec

from runglass.log.trace import written
from runglass.support.lazy_json import Json, LazyStruct, decode_when_read


class SessionStep(LazyStruct, frozen=True, kw_only=True, eq=False):
    """The latest attempt of a step in one iteration; the snapshots are what the trace calls contexts.

    The error of a failed run is the one that its caller got. Where the run ended in a container, the last
    step is that container, and its output the run's result. Snapshots decode when they are first read.
    """

    step_id: str
    attempt: int
    loop_index: int | None = None
    status: str
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    input_snapshot: Json = None
    output_snapshot: Json = None
    error_snapshot: Json = None
    truncated: bool = written(False)

    def __hash__(self) -> int:
        return hash((self.step_id, self.attempt, self.loop_index, self.status, self.started_at))


decode_when_read(SessionStep, ("input_snapshot", "output_snapshot", "error_snapshot"))


class SessionExecution(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A run of the session. `error_at_step` is the step with which the run failed, if one did.

    `trigger_type` is `execute`, `step`, `job` or `recorded`; `trace_capture_mode` is the run's capture mode,
    and `snapshots_available` says whether any step has a snapshot.
    """

    execution_id: str
    flow_id: str
    slug: str
    trigger_type: str
    status: str
    started_at: str | None = None
    completed_at: str | None = None
    trace_capture_mode: str
    snapshots_available: bool
    error_at_step: str | None = None
    steps: list[SessionStep]


class SessionPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Runs of a session, oldest first. `next_cursor` is None on the last page."""

    session_id: str
    executions: list[SessionExecution]
    next_cursor: str | None = None
