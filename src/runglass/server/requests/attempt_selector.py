"""Selects attempts of a step by `attempt` and `loop_index`. Pure: rows in, rows out."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class _Attempt(Protocol):
    @property
    def position(self) -> int: ...
    @property
    def loop_path(self) -> str: ...
    @property
    def attempt(self) -> int: ...


Row = TypeVar("Row", bound=_Attempt)


def choose(rows: Sequence[Row], *, attempt: str, loop_index: str | None) -> list[Row]:
    """The rows that the two parameters select, empty if there are none. `rows` are all attempts of one step.

    `loop_index` is `I`, or `I,J` from the outer loop in. With fewer indices than loops it selects by the
    innermost loops: `2` for a step in two loops selects every iteration whose `loopIndex` is 2. `attempt` is
    `all`, which sorts by iteration and attempt number, or `latest` or a number, which select within the
    iteration that started last.
    """
    if loop_index is not None:
        rows = [row for row in rows if f",{row.loop_path}".endswith(f",{loop_index}") and row.loop_path]
    if attempt == "all":
        return sorted(rows, key=lambda row: (_path(row), row.attempt))
    newest = max((row.position for row in rows), default=0)
    ours = [row for row in rows if row.position == newest]
    if attempt == "latest":
        return sorted(ours, key=lambda row: row.attempt)[-1:]
    return [row for row in ours if row.attempt == int(attempt)]


def _path(row: _Attempt) -> tuple[int, ...]:
    return tuple(int(index) for index in row.loop_path.split(",")) if row.loop_path else ()
