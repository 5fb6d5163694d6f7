"""The tables in which a run is kept, the same in each database: its row, and which of them have content.

What of them goes together, where runs or their content are removed in bites, is told here as well.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from runglass.log.content import strip_event, strip_step
from runglass.log.trace import TERMINAL
from runglass.store.records import RECORDED, RunRecord, StepRow

RUN_COLUMNS = (
    "no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, head, fence,"
    " claims, summary, key_id, log_bytes, open_bytes, resume_head, cancel_reason"
)
RUN = f"SELECT {RUN_COLUMNS} FROM run"


def run_of(row: Any) -> RunRecord:
    """A run from a row as `RUN` selects it."""
    return RunRecord(**dict(zip(RunRecord.__struct_fields__, row, strict=True)))


ROWS_OF_RUN: dict[str, tuple[str, ...]] = {
    "event": ("seq",),
    "step": ("position",),
    "step_attempt": ("position", "attempt"),
    "kept_outline": ("part",),
    "checkpoint": ("step_id", "loop_path"),
    "void_checkpoint": ("step_id",),
    "owed": ("seq",),
    "run_request": (),
    "run_outcome": (),
    "call_answer": ("no",),
}
"""The tables with rows of a run, each with the columns that tell its rows of one run apart."""


class RowsOfRun(NamedTuple):
    """Rows of one run as pages of them are read: in the order of their `key`, each with its data last."""

    tables: tuple[str, ...]
    columns: str
    key: tuple[str, ...]


EVENTS = RowsOfRun(("event",), "seq, data", ("seq",))
STEPS = RowsOfRun(("step",), "position, data", ("position",))
ATTEMPTS = RowsOfRun(
    ("step", "step_attempt"),
    "position, step_id, loop_path, attempt, status, data",
    ("position", "attempt"),
)

SIZES = {
    "void_checkpoint": "length(step_id)",
    "run_request": "length(request)",
    "run_outcome": "coalesce(length(result), 0) + coalesce(length(error), 0)",
    "call_answer": "length(answer)",
}
"""What a row takes, as SQL, in the tables that do not keep it in `data`."""

OF_TRACE = "project_id = :project_id AND trace_id = :trace_id"
ADD_PART = (
    "INSERT INTO recorded_trace (project_id, trace_id, part, run_no, due_at, plain_at)"
    " VALUES (:project_id, :trace_id, :part, :run_no, :due_at, :plain_at) ON CONFLICT DO NOTHING"
)
"""Makes a run a part of a trace."""

ENDED = f"status IN ({', '.join(repr(status) for status in sorted(TERMINAL))})"
IS_RECORDED = f"trigger_type IN ({', '.join(repr(trigger) for trigger in sorted(RECORDED))})"

CONTENT: dict[str, Callable[[bytes], bytes]] = {
    "event": strip_event,
    "step": strip_step,
    "step_attempt": strip_step,
}
"""The tables with content, and the function that takes it out of a row's data."""


def split_attempts(steps: Iterable[StepRow]) -> tuple[list[StepRow], list[StepRow]]:
    """The last state of each step, and the last states of the attempts before it."""
    states: dict[int, dict[int, StepRow]] = {}
    newest: dict[int, int] = {}
    for step in steps:
        states.setdefault(step.position, {})[step.attempt] = step
        newest[step.position] = step.attempt
    latest = [states[position].pop(attempt) for position, attempt in newest.items()]
    return latest, [step for attempts in states.values() for step in attempts.values()]


def count_that_fit(sizes: Sequence[Sequence[int | None]], *, limit_rows: int, limit_bytes: int) -> int:
    """How many of the first fit into one bite together, each with its rows and bytes; None is not known."""
    for count, (rows, size) in enumerate(sizes):
        if rows is None or size is None:
            return count
        limit_rows, limit_bytes = limit_rows - rows, limit_bytes - size
        if limit_rows < 0 or limit_bytes < 0:
            return count
    return len(sizes)


def first_that_fit(rows: Sequence[Any], *, limit_bytes: int) -> Sequence[Any]:
    """The first rows, each with its bytes at the end: one at least if there is one, about `limit_bytes`."""
    for count, row in enumerate(rows, 1):
        limit_bytes -= row[-1]
        if limit_bytes <= 0:
            return rows[:count]
    return rows


def placeholders(columns: Iterable[str]) -> str:
    """A value for each of these columns, by its name."""
    return ", ".join(f":{column}" for column in columns)
