"""Tables, that of runs among them: they fit the terminal by leaving out columns. Only free text is cut.

Rich's table squeezes columns until none is readable.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from rich.cells import cell_len
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


class Row(NamedTuple):
    """One line of cells, and lines that stand below it across all columns."""

    cells: Sequence[Text]
    below: Sequence[Text] = ()

    @classmethod
    def of(cls, *cells: str | tuple[str, str], style: str = "") -> "Row":
        """A row of texts in one style, or each with its own."""
        pairs = ((cell, style) if isinstance(cell, str) else cell for cell in cells)
        # A line break in a cell would look like another row.
        return cls([Text(one_line(text, limit=len(text)), own) for text, own in pairs])


def table_lines(
    columns: Sequence[Column], rows: Sequence[Row], *, width: int | None = None
) -> Iterator[Text]:
    """The lines of the table, its header first, and last a note of the columns that were left out.

    All columns fit in the width None. A column in which no row has text is never shown.
    """
    natural = [max((row.cells[at].cell_len for row in rows), default=0) for at in range(len(columns))]
    cells = {
        at: max(inner, cell_len(columns[at].title)) for at, inner in enumerate(natural) if inner or not rows
    }
    widths, left_out = fit(columns, cells, width)
    yield line_of([Text(column.title, "bold") for column in columns], columns, widths)
    for row in rows:
        yield line_of(row.cells, columns, widths)
        yield from row.below
    yield from left_out


def fit(
    columns: Sequence[Column], natural: Mapping[int, int], width: int | None
) -> tuple[dict[int, int], list[Text]]:
    """The widths of the columns that are shown, by their indexes, and a note of those that are left out."""
    shown, left_out = dict(natural), list[str]()
    while True:
        widths = dict(shown)
        excess = 0 if width is None else sum(widths.values()) + GAP * (len(widths) - 1) - width
        for at in sorted(shown, key=lambda at: -shown[at]):
            if excess > 0 and columns[at].least:
                widths[at] = max(min(shown[at], columns[at].least), shown[at] - excess)
                excess -= shown[at] - widths[at]
        spare = max(shown, key=lambda at: columns[at].spare, default=None)
        if excess <= 0 or spare is None or columns[spare].spare == 0:
            break
        del shown[spare]
        left_out.append(columns[spare].title)
    hidden = ", ".join(filter(None, left_out))
    note = Text(f"(too narrow for: {hidden}; use a wider terminal or --json)", "dim")
    return widths, [note] if hidden else []


def line_of(cells: Sequence[Text], columns: Sequence[Column], widths: Mapping[int, int]) -> Text:
    """The cells of the columns that have a width."""
    line = Text()
    for at, width in widths.items():
        cell = cells[at].copy()
        cell.truncate(width, overflow="ellipsis")
        space = " " * (width - cell.cell_len)
        line.append(space if columns[at].right else "").append_text(cell)
        line.append(" " * GAP if columns[at].right else space + " " * GAP)
    line.rstrip()
    return line


def print_table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """The table on stdout, as wide as the terminal allows."""
    write_lines(table_lines(columns, rows, width=width_of(stdout())))


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
        totals = run.totals
        tokens = totals.tokens if totals is not None else None
        mark, style = formatting.mark(run.status)
        row = Row.of(
            name,
            (f"{mark} {run.status}", style),
            formatting.flow(run),
            started,
            formatting.duration(run.duration_ms),
            formatting.steps(run),
            formatting.UNKNOWN if tokens is None else formatting.count(tokens.total),
            formatting.UNKNOWN if totals is None else formatting.least_money(totals),
            run.trigger_type or formatting.UNKNOWN,
            (_remarks(run), "red" if run.error is not None else "yellow"),
            run.input_preview or "",
            run.result_preview or "",
        )
        rows.append(row if width is None else row._replace(below=[*_previews(run, width)]))
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
    parts = ["unreadable" if run.unreadable else ""]
    if run.error is not None:
        parts.append(formatting.run_error(run.error))
    if (totals := run.totals) is not None:
        # A run may complete though steps failed; where it failed, its error says so.
        if totals.failed and run.error is None:
            parts.append(f"{formatting.counted(totals.failed, 'step')} failed")
        parts.append(formatting.cut_short(totals))
        if totals.unmetered_calls:
            parts.append(f"no usage reported for {formatting.counted(totals.unmetered_calls, 'model call')}")
    parts.append("with overrides" if run.overridden else "")
    return one_line("; ".join(filter(None, parts)), limit=400)
