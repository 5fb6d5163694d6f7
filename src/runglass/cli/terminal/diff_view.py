"""The diff of two runs for the eye: both runs, the first divergence, and a table of all changes."""

from collections.abc import Iterator

from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import one_line
from runglass.cli.terminal.table import Cell, Column, Row, table_lines
from runglass.diff.json_diff import brief_pair
from runglass.diff.run_diff import (
    CONTENT_FIELDS,
    FieldChange,
    RowDiff,
    RunDiff,
    address_text,
    field_text,
    plain_text,
)
from runglass.log.trace import RunSummary

COLUMNS = (
    Column("attempt"),
    Column("differs", least=20),
    Column("first run", least=20),
    Column("second run", least=10),
)
MOST_PATHS = 10
"""Places in one input or output that the table shows."""
_FLOWS = {
    "same": "",
    "drafts": "both are runs of the draft, which may have changed between them",
    "versions": "the runs are of different versions of the flow",
    "different": "the runs are of different flows; their attempts are paired by step, iteration and number",
}


def head_lines(found: RunDiff) -> Iterator[Text]:
    """Both runs, and the first divergence."""
    yield _run("first run", found.a)
    yield _run("second run", found.b)
    if _FLOWS[found.flows]:
        yield Text(_FLOWS[found.flows], "yellow")
    yield Text()
    if found.first_divergence is not None:
        yield Text.assemble(
            ("first divergence  ", "bold"), one_line(found.first_divergence.sentence, limit=400)
        )
    elif found.same:
        yield Text("the runs are the same", "green")
    else:
        yield Text("no difference was found, but not all was compared", "yellow")


def diff_lines(found: RunDiff, *, width: int | None) -> Iterator[Text]:
    """The rows as a table, a line for each change, below an empty line; nothing where there are no rows."""
    lines = []
    for row in found.rows:
        # The first line of an attempt names it.
        name = address_text(row.step_id, row.loop_path, row.attempt)
        for cells in _cells(row):
            lines.append(Row((Cell(name, "bold"), *cells)))
            name = ""
    if lines:
        yield Text()
        yield from table_lines(COLUMNS, lines, width=width)


def conclusion(found: RunDiff) -> Iterator[str]:
    """How many attempts differ, and what was not compared."""
    yield f"attempts that differ: {found.different_rows:,}; that are the same: {found.same_rows:,}"
    if found.size_only_rows:
        yield (
            f"input or output was not kept of {formatting.counted(found.size_only_rows, 'attempt')}:"
            " there sizes alone were compared, as far as they are known"
        )
    if found.cut:
        yield "cut: not all was compared or listed, as the runs are large"


def _run(name: str, run: RunSummary) -> Text:
    return Text.assemble(
        (f"{name:<12}", "bold"),
        f"{run.id}  {formatting.flow(run)}  ",
        (run.status, formatting.mark(run.status)[1]),
        f"  {formatting.duration(run.duration_ms)}",
    )


def _cells(row: RowDiff) -> Iterator[tuple[Cell, Cell, Cell]]:
    if not (row.in_a and row.in_b):
        # What is known of an attempt in one run alone, its status first.
        changes = sorted(row.changes, key=lambda change: change.field != "status")
        known = ", ".join(_value(change, change.a if row.in_a else change.b) for change in changes)
        there, absent = Cell(known, "green" if row.in_b else "red"), Cell("–", "dim")
        values = (there, absent) if row.in_a else (absent, there)
        yield Cell("only in one run", "yellow"), *values
        return
    if not row.changes:
        yield Cell("the same", "dim"), Cell(""), Cell("")
    for change in row.changes:
        if change.field in CONTENT_FIELDS:
            yield from _content_cells(change)
            continue
        style = "dim" if change.field == "durationMs" else ""
        styles = (style, style)
        if change.field == "status":
            styles = formatting.mark(change.a)[1], formatting.mark(change.b)[1]
        a, b = map(Cell, (_value(change, change.a), _value(change, change.b)), styles)
        yield Cell(field_text(change.field), style), a, b


def _value(change: FieldChange, value: object) -> str:
    if change.field == "durationMs" and isinstance(value, int):
        return formatting.duration(value)
    if change.field == "tokens" and value is not None:
        return f"{plain_text(change.field, value)} tokens"
    return plain_text(change.field, value)


def _content_cells(change: FieldChange) -> Iterator[tuple[Cell, Cell, Cell]]:
    name = field_text(change.field)
    for difference in change.paths[:MOST_PATHS]:
        a, b = brief_pair(difference.a, difference.b)
        yield (
            Cell(f"{name} {difference.path}".rstrip()),
            Cell("") if difference.kind == "added" else Cell(a, "red"),
            Cell("") if difference.kind == "removed" else Cell(b, "green"),
        )
    more = len(change.paths) - MOST_PATHS
    if more > 0:
        yield Cell(f"{name}: {more:,} more places in --json", "dim"), Cell(""), Cell("")
    if change.cut:
        yield Cell(f"{name}: not compared to the end", "yellow"), Cell(""), Cell("")
