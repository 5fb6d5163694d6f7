"""Tables of any length that fit the terminal by leaving out columns; only free text is cut.

Rich's table lays out every cell before it prints the first one, which a trace of 200,000 steps cannot afford,
and squeezes columns until none is readable.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from runglass.cli.terminal.output import one_line, stdout, width_of, write_line

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


class Layout(NamedTuple):
    """The indexes of the columns to show, the widths of all, and the titles of those left out."""

    shown: list[int]
    widths: list[int]
    left_out: list[str]


def _plain(row: Row) -> Row:
    # A line break in a cell would look like another row.
    if all(cell.text.isprintable() for cell in row.cells):
        return row
    return row._replace(
        cells=[cell._replace(text=one_line(cell.text, limit=len(cell.text))) for cell in row.cells]
    )


def lay_out(columns: Sequence[Column], rows: Sequence[Row], *, width: int | None) -> Layout:
    """The columns that fit in `width` (None: all). A column in which no row has text is never shown."""
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
    return Layout(shown, widths, left_out)


def table_lines(
    columns: Sequence[Column], rows: Sequence[Row], *, width: int | None = None
) -> Iterator[Text]:
    """The lines of the table, its header first, and last a note of the columns that were left out."""
    rows = [_plain(row) for row in rows]
    layout = lay_out(columns, rows, width=width)
    yield _line(columns, [Cell(column.title, "bold") for column in columns], layout)
    for row in rows:
        yield _line(columns, row.cells, layout)
        yield from row.below
    if layout.left_out:
        hidden = ", ".join(layout.left_out)
        yield Text(f"(too narrow for: {hidden}; use a wider terminal or --json)", "dim")


def print_table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """The table on stdout, as wide as the terminal allows."""
    console = stdout()
    for line in table_lines(columns, rows, width=width_of(console)):
        write_line(console, line)


def _line(columns: Sequence[Column], cells: Sequence[Cell], layout: Layout) -> Text:
    line = Text()
    for at in layout.shown:
        cell = cells[at]
        if cell_len(cell.text) > layout.widths[at]:
            cell = cell._replace(text=f"{set_cell_size(cell.text, layout.widths[at] - 1)}…")
        space = " " * (layout.widths[at] - cell_len(cell.text))
        if columns[at].right:
            line.append(space)
            line.append(cell.text, cell.style)
            line.append(" " * GAP)
        else:
            line.append(cell.text, cell.style)
            line.append(space + " " * GAP)
    line.rstrip()
    return line
