"""What is shown of a run as a whole: its facts, its tree, and the errors of what failed in it."""

import shlex
from collections.abc import Iterator, Mapping
from itertools import islice

from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.outline_rows import OutlineRows, StepAddress
from runglass.cli.terminal.outline_tree import choose_rows, tree_lines
from runglass.cli.terminal.outline_view import outline_lines
from runglass.cli.terminal.output import one_line
from runglass.cli.terminal.run_view import reason_row, summary_lines, why_lines
from runglass.log.trace import RunSummary, StepTrace
from runglass.outlines.outline import NONE

MOST_SHOWN = 60
"""About so many rows are shown, unless all of them are asked for."""
MOST_ERRORS = 12
"""Errors that are shown in the tree."""


class RunOverview:
    """An overview of a run, or with `within` of what is inside of that row; `most` rows of it.

    `wanted` are the attempts that it needs by row, for `lines`.
    """

    def __init__(
        self, run: RunSummary, rows: OutlineRows, *, within: int = NONE, most: int = MOST_SHOWN
    ) -> None:
        self._run = run
        self._rows = rows
        self._reason = reason_row(run, rows)
        shown = choose_rows(rows, most=most, within=within)
        self._within = within
        self._size = len(rows) if within == NONE else rows.size[within]
        self._hidden = self._size - len(shown)
        self._tree = list(tree_lines(rows, shown, within=within))
        failed = (line.row for line in self._tree if line.row != NONE and _has_error(rows, line.row))
        looked_up = dict.fromkeys([*([self._reason] if within == NONE else []), *islice(failed, MOST_ERRORS)])
        self.wanted: list[tuple[int, StepAddress]] = [
            (row, rows.address(row)) for row in looked_up if row != NONE
        ]

    def lines(self, attempts: Mapping[int, StepTrace], *, named: str, width: int | None) -> Iterator[Text]:
        """The overview; `named` are the words by which commands name the run."""
        run, rows = self._run, self._rows
        begin_ms, end_ms = 0, max(rows.last_ms(), run.duration_ms or 0)
        if self._within == NONE:
            why = why_lines(run, rows, attempts.get(self._reason), named=named)
            yield from summary_lines(run, rows, why=why)
            if self._tree:
                yield Text()
        else:
            begin_ms = max(rows.start[self._within], 0)
            end_ms = rows.end[self._within] if rows.end[self._within] != NONE else end_ms
        if not self._tree:
            return
        errors = {
            row: formatting.error_text(attempt.error_context)
            for row, attempt in attempts.items()
            if attempt.error_context is not None and _has_error(rows, row)
        }
        yield from outline_lines(
            rows,
            self._tree,
            begin_ms=begin_ms,
            end_ms=end_ms,
            errors=errors,
            loops=run.loops,
            width=width,
        )
        yield from self._left_out(named)

    def _left_out(self, named: str) -> Iterator[Text]:
        rows = self._rows
        if self._hidden:
            shown = f"{self._hidden:,} of {self._size:,} rows are folded"
            yield Text(f"({shown}; all of them: runglass runs show {named} --all{self._closer()})", "dim")
        if len(rows) < rows.total:
            yield Text(f"(of the run's {rows.total:,} rows the first {len(rows):,} were read)", "yellow")

    def _closer(self) -> str:
        """How to look into the first loop of which iterations are folded."""
        for line in self._tree:
            loop = line.row if line.folded is None else line.folded.parent
            if (
                loop != NONE
                and self._rows.kind(loop) == "loop"
                and (line.is_closed or line.folded is not None)
            ):
                step_id = shlex.quote(one_line(self._rows.name(loop)))
                path = ".".join(map(str, (*self._rows.loop_path(loop), "N")))
                return f"; iteration N: --inside {step_id} --loop {path}"
        return ""


def _has_error(rows: OutlineRows, row: int) -> bool:
    return rows.status(row) in ("failed", "retried") and rows.size[row] == 1
