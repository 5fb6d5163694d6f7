"""What stands out in a run: the attempts that took longest, those that cost most, and those that failed."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.cli.terminal.output import one_line
from runglass.cli.terminal.run_view import step_arguments
from runglass.cli.terminal.table import Cell, Column, Row, table_lines
from runglass.log.trace import StepTrace

COLUMNS = (
    Column("took", right=True),
    Column("tokens", right=True, spare=2),
    Column("cost", right=True, spare=1),
    Column("status", spare=3),
    Column("step"),
)
ERROR_CHARS = 1000


def slowest(rows: OutlineRows, most: int) -> Sequence[int]:
    """Up to `most` attempts that have ended, the one that took longest first."""
    ended = (row for row in _attempts(rows) if rows.took_ms(row) is not None)
    return heapq.nlargest(most, ended, key=lambda row: rows.took_ms(row) or 0)


def costliest(rows: OutlineRows, most: int) -> Sequence[int]:
    """Up to `most` attempts whose cost is known, the most expensive one first."""
    priced = (row for row in _attempts(rows) if rows.cost[row] is not None)
    return heapq.nlargest(most, priced, key=lambda row: Decimal(rows.cost[row] or 0))


def failed(rows: OutlineRows) -> Sequence[int]:
    """All attempts that failed, in the order of the tree."""
    return list(rows.rows_with("failed", "retried"))


def ranking_lines(rows: OutlineRows, ranking: Sequence[int], *, width: int | None) -> Iterator[Text]:
    """A table of attempts; the last column is what `runs step` takes."""
    table = []
    for row in ranking:
        mark, style = formatting.mark(rows.status(row))
        cells = (
            Cell(formatting.duration(rows.took_ms(row))),
            Cell(formatting.count(rows.tokens[row]) if rows.tokens[row] else ""),
            Cell("" if rows.cost[row] is None else formatting.money(rows.cost[row])),
            Cell(f"{mark} {rows.status(row)}", style),
            Cell(step_arguments(rows, row)),
        )
        table.append(Row(cells))
    return table_lines(COLUMNS, table, width=width)


def failed_lines(
    rows: OutlineRows, failed: Sequence[int], attempts: Mapping[int, StepTrace]
) -> Iterator[Text]:
    """Each failed attempt of which `attempts` tells more, with its error; of the others their number."""
    for row in failed:
        if (attempt := attempts.get(row)) is not None:
            mark, style = formatting.mark(rows.status(row))
            number, of = rows.attempt[row], rows.attempts_of(row)
            line = Text.assemble((f"{mark} ", style), (step_arguments(rows, row), "bold"))
            again = ", tried again" if rows.status(row) == "retried" else ""
            took = formatting.duration(rows.took_ms(row))
            line.append(f"  {f'attempt {number} of {of}, ' if of > 1 else ''}{took}{again}", "dim")
            yield line
            yield Text(
                f"  {one_line(formatting.error_text(attempt.error_context), limit=ERROR_CHARS)}", "red"
            )
    rest = Counter(rows.name(row) for row in failed if row not in attempts)
    if rest:
        steps = ", ".join(f"{one_line(name)} {number:,} times" for name, number in rest.most_common(5))
        more = " and others" if len(rest) > 5 else ""
        yield Text(f"… and {formatting.counted(rest.total(), 'attempt')} more: {steps}{more}", "dim")


def _attempts(rows: OutlineRows) -> Iterator[int]:
    return rows.rows_with("completed", "retried", "cancelled", "failed", "running", "waiting")
