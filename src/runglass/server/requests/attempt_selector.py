"""Selects attempts of a step by number, and puts them in order. Pure: rows in, rows out."""

import heapq
from collections.abc import Sequence
from typing import Protocol, TypeVar

SLICE_ROWS = 4096
"""Rows that are sorted in one go, which lets no other thread in: some milliseconds."""


class _Attempt(Protocol):
    @property
    def position(self) -> int: ...
    @property
    def loop_path(self) -> str: ...
    @property
    def attempt(self) -> int: ...


Row = TypeVar("Row", bound=_Attempt)


def choose(rows: Sequence[Row], *, attempt: str) -> list[Row]:
    """The rows that the parameter selects, empty if there are none. `rows` are attempts of one step.

    `attempt` is `all`, which sorts by iteration and attempt number, or `latest` or a number, which select
    within the iteration that started last.
    """
    if attempt == "all":
        slices = range(0, len(rows), SLICE_ROWS)
        return list(heapq.merge(*(sorted(rows[at : at + SLICE_ROWS], key=_key) for at in slices), key=_key))
    newest = max((row.position for row in rows), default=0)
    ours = [row for row in rows if row.position == newest]
    if attempt == "latest":
        return sorted(ours, key=lambda row: row.attempt)[-1:]
    return [row for row in ours if row.attempt == int(attempt)]


def _key(row: _Attempt) -> tuple[tuple[int, ...], int]:
    return tuple(int(index) for index in row.loop_path.split(",")) if row.loop_path else (), row.attempt
