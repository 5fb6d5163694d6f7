"""Tables of any length, that of runs among them: they fit the terminal by leaving out columns.

Only free text is cut.
Rich's table lays out every cell before it prints the first one, which a trace of 200,000 steps cannot afford,
and squeezes columns until none is readable.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import one_line, stdout, width_of, write_lines
from runglass.log.trace import RunSummary

GAP = 2


class Column(NamedTuple):
    """A column; the highest `spare` is left out first, 0 never.

    With `least` its text may be cut to so many cells, which is tried before any column is left out.
    """

    title: str
    right: bool = False
    spare: int = 0
    least: int = 0


class Cell(NamedTuple):
    text: str
    style: str = ""


class Row(NamedTuple):
    """One line of cells, and lines that stand below it across all columns."""

    cells: Sequence[Cell]
    below: Sequence[Text] = ()

    @classmethod
    def of(cls, *texts: str, style: str = "") -> "Row":
        """A row of texts in one style."""
        return cls([Cell(text, style) for text in texts])


def table_lines(
    columns: Sequence[Column], rows: Sequence[Row], *, width: int | None = None
) -> Iterator[Text]:
    """The lines of the table, its header first, and last a note of the columns that were left out.

    All columns fit in the width None. A column in which no row has text is never shown.
    """
    # A line break in a cell would look like another row.
    rows = [
        row
        if all(cell.text.isprintable() for cell in row.cells)
        else row._replace(cells=[Cell(one_line(text, limit=len(text)), style) for text, style in row.cells])
        for row in rows
    ]
    widths = [max((cell_len(row.cells[at].text) for row in rows), default=0) for at in range(len(columns))]
    shown = [at for at in range(len(columns)) if widths[at] or not rows]
    widths = [max(inner, cell_len(column.title)) for inner, column in zip(widths, columns, strict=True)]
    left_out = []
    if width is not None:
        for at in shown:
            excess = sum(widths[each] + GAP for each in shown) - GAP - width
            if excess > 0 and columns[at].least:
                widths[at] = max(min(widths[at], columns[at].least), widths[at] - excess)
    while width is not None and sum(widths[at] + GAP for at in shown) - GAP > width:
        spare = max(shown, key=lambda at: columns[at].spare, default=0)
        if not shown or columns[spare].spare == 0:
            break
        shown.remove(spare)
        left_out.append(columns[spare].title)
    fitting = [(at, columns[at].right, widths[at]) for at in shown]
    yield _line([Cell(column.title, "bold") for column in columns], fitting)
    for row in rows:
        yield _line(row.cells, fitting)
        yield from row.below
    if left_out:
        hidden = ", ".join(left_out)
        yield Text(f"(too narrow for: {hidden}; use a wider terminal or --json)", "dim")


def print_table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """The table on stdout, as wide as the terminal allows."""
    write_lines(table_lines(columns, rows, width=width_of(stdout())))


def _line(cells: Sequence[Cell], fitting: Sequence[tuple[int, bool, int]]) -> Text:
    """The cells of these columns, of each its index, whether it is at the right, and its width."""
    line = Text()
    for at, right, width in fitting:
        text, style = cells[at]
        if cell_len(text) > width:
            text = f"{set_cell_size(text, width - 1)}…"
        space = " " * (width - cell_len(text))
        line.append(space if right else "")
        line.append(text, style)
        line.append(" " * GAP if right else space + " " * GAP)
    line.rstrip()
    return line


RUN_COLUMNS = (
    Column("run"),
    Column("status"),
    Column("flow"),
    Column("started", spare=3),
    Column("duration", right=True, spare=2),
    Column("steps", right=True, spare=5),
    Column("tokens", right=True, spare=6),
    Column("cost", right=True),
    Column("trigger", spare=7),
    Column("remarks", spare=1, least=24),
)
SHORT_CHARS = 8
"""A short id is the end of the id: the beginning is its time, which runs of one moment share."""
PREVIEWS = (Column("input"), Column("result"))


def print_runs(runs: Sequence[RunSummary]) -> None:
    """The table on stdout.

    A terminal gets short ids, how long ago a run began, and the previews on a line below it; a program gets
    whole ids and times, and one line for each run.
    """
    width = width_of(stdout())
    short_ids = Counter(run.id[-SHORT_CHARS:] for run in runs)
    now = datetime.now(UTC)
    rows = []
    for run in runs:
        name, started = run.id, formatting.local_time(run.started_at)
        if width is not None:
            started = formatting.age(run.started_at, now=now)
            name = run.id[-SHORT_CHARS:] if short_ids[run.id[-SHORT_CHARS:]] == 1 else run.id
        tokens = run.totals.tokens if run.totals is not None else None
        remarks = _remarks(run)
        mark, style = formatting.mark(run.status)
        rows.append(
            Row(
                (
                    Cell(name),
                    Cell(f"{mark} {run.status}", style),
                    Cell(formatting.flow(run)),
                    Cell(started),
                    Cell(formatting.duration(run.duration_ms)),
                    Cell(formatting.steps(run)),
                    Cell(formatting.UNKNOWN if tokens is None else formatting.count(tokens.total)),
                    Cell(formatting.UNKNOWN if run.totals is None else formatting.least_money(run.totals)),
                    Cell(run.trigger_type or formatting.UNKNOWN),
                    Cell(remarks, "red" if run.error is not None else "yellow"),
                    Cell(run.input_preview or ""),
                    Cell(run.result_preview or ""),
                ),
                [] if width is None else [*_previews(run, width)],
            )
        )
    columns = RUN_COLUMNS if width is not None else (*RUN_COLUMNS, *PREVIEWS)
    write_lines(table_lines(columns, rows, width=width))


def _previews(run: RunSummary, width: int) -> Iterator[Text]:
    given, result = (Text(one_line(text or ""), "dim") for text in (run.input_preview, run.result_preview))
    if given or result:
        room = max(width - len("   → "), 2)
        given.truncate(max(room // 2, room - result.cell_len), overflow="ellipsis")
        result.truncate(room - given.cell_len, overflow="ellipsis")
        yield Text.assemble("  ", given, " → " if result else "", result)


def _remarks(run: RunSummary) -> str:
    parts = ["unreadable"] if run.unreadable else []
    if run.error is not None:
        parts.append(formatting.run_error(run.error))
    totals = run.totals
    # A run may complete though steps failed; where it failed, its error says so.
    if totals is not None and totals.failed and run.error is None:
        parts.append(f"{formatting.counted(totals.failed, 'step')} failed")
    if totals is not None and (cut := formatting.cut_short(totals)):
        parts.append(cut)
    if totals is not None and totals.unmetered_calls:
        parts.append(f"no usage reported for {formatting.counted(totals.unmetered_calls, 'model call')}")
    if run.overridden:
        parts.append("with overrides")
    return one_line("; ".join(parts), limit=400)
