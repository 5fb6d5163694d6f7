"""The tables in which a run is kept, the same in each database, and which of them have content."""

from collections.abc import Callable
from typing import NamedTuple

from runglass.log.content import strip_event, strip_step
from runglass.log.trace import TERMINAL
from runglass.store.records import ContentPlace

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
"""The tables with rows of a run, each with the condition for those of one run."""

SIZES = {
    "void_checkpoint": "length(step_id)",
    "run_request": "length(request)",
    "run_outcome": "coalesce(length(result), 0) + coalesce(length(error), 0)",
    "call_answer": "length(answer)",
}
"""What a row takes, as SQL, in the tables that do not keep it in `data`."""

ENDED = f"status IN ({', '.join(repr(status) for status in sorted(TERMINAL))})"

CONTENT: dict[str, Callable[[bytes], bytes]] = {
    "event": strip_event,
    "step": strip_step,
    "step_attempt": strip_step,
}
"""The tables with content, and the function that takes it out of a row's data."""


class Stripped(NamedTuple):
    """Rows without their content, where to go on, None at the end, and how many bytes are saved."""

    rows: list[tuple[str, tuple[int, ...], bytes]]
    outcome: bytes | None
    summary: bytes | None
    place: ContentPlace | None
    freed: int
