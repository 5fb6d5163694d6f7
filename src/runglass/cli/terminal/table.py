"""Tables of any length that fit the terminal by leaving out columns; only free text is cut.

Rich's table lays out every cell before it prints the first one, which a trace of 200,000 steps cannot afford,
and squeezes columns until none is readable.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from runglass.cli.terminal.output import one_line, stdout, width_of, write_lines

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


def _plain(row: Row) -> Row:
    # A line break in a cell would look like another row.
    if all(cell.text.isprintable() for cell in row.cells):
        return row
    return row._replace(
        cells=[cell._replace(text=one_line(cell.text, limit=len(cell.text))) for cell in row.cells]
    )


def table_lines(
    columns: Sequence[Column], rows: Sequence[Row], *, width: int | None = None
) -> Iterator[Text]:
    """The lines of the table, its header first, and last a note of the columns that were left out.

    All columns fit in the width None. A column in which no row has text is never shown.
    """
    rows = [_plain(row) for row in rows]
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
