"""The outline of a run, read page by page, and single attempts that are looked at with it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from runglass.cli.terminal.outline_rows import OutlineRows, StepAddress
from runglass.log.trace import StepTrace

if TYPE_CHECKING:
    from runglass.client import Run

PAGE_ROWS = 100_000
MOST_ROWS = 1_000_000
"""Rows that are read; what a run has beyond them is not looked at."""
MOST_BEGINNINGS = 3
"""How often an outline is begun again because the run has gone on meanwhile."""


def read_outline(run: "Run") -> OutlineRows:
    """The rows of the run, all of one moment where the server still has it. Raises as `Run.outline` does."""
    rows, beginnings = OutlineRows(), 1
    page = run.outline(limit=PAGE_ROWS)
    rows.add(page)
    while len(rows) < min(rows.total, MOST_ROWS):
        following = run.outline(after=len(rows) - 1, limit=PAGE_ROWS, seq=page.seq)
        if following.seq != page.seq:
            if beginnings == MOST_BEGINNINGS:
                break
            beginnings += 1
            rows, following = OutlineRows(), run.outline(limit=PAGE_ROWS)
        page = following
        rows.add(page)
    rows.finish()
    return rows


def read_attempts(run: "Run", addresses: Iterable[tuple[int, StepAddress]]) -> dict[int, StepTrace]:
    """The attempts by the numbers that are given with them. Raises as `Run.step_trace` does."""
    return {
        number: run.step_trace(each.step_id, attempt=each.attempt, loop_index=each.loop_path or None)
        for number, each in addresses
    }
