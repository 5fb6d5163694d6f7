"""The tree of a run on a terminal: a line for each row, with its bar on the time axis, its time and its cost.

It fits the width that there is: a narrow terminal loses columns and cells of the axis, never a line. What
failed, waits or goes on differs by its characters, not by colour alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.outline_rows import Folded, OutlineRows, TreeLine
from runglass.cli.terminal.output import one_line
from runglass.cli.terminal.table import Column, fit, line_of
from runglass.outlines.outline import NONE

THICK, THIN, DASHED, DOTTED = "━─┄·"
"""Cells of steps, of what has steps inside, of waits and of gaps."""


class Bar(NamedTuple):
    """A piece of time, in milliseconds since the start of the run; an `end` of -1 is not known yet."""

    start: int
    end: int
    status: str
    character: str = THICK


class TimeAxis(NamedTuple):
    """The time from `begin_ms` to `end_ms` after the start of a run, drawn so many cells wide."""

    begin_ms: int
    end_ms: int
    width: int

    def header(self) -> str:
        """The axis itself: its begin and its end, and where there is room its middle."""
        begin = formatting.duration(self.begin_ms) if self.begin_ms else "0"
        end = formatting.duration(self.end_ms)
        middle = formatting.duration((self.begin_ms + self.end_ms) // 2)
        space = self.width - len(begin) - len(end)
        if space < 1:
            return " " * self.width
        line = [*begin, *" " * space, *end]
        at = self.width // 2
        if self.end_ms - self.begin_ms >= 10 and space >= 5 * len(middle):
            line[at : at + len(middle)] = middle
        return "".join(line)

    def drawn(self, *bars: Bar) -> Text:
        """The bars on one line of cells; where two meet, the later one is seen."""
        cells: list[tuple[str, str]] = [(" ", "")] * self.width
        for bar in bars:
            if bar.start == NONE:
                continue
            style = "" if bar.status == "completed" else formatting.mark(bar.status)[1]
            first = min(int(self._cells(bar.start)), self.width - 1)
            end = self.width if bar.end == NONE else math.ceil(self._cells(bar.end))
            last = max(first + 1, min(end, self.width))
            cells[first:last] = [(bar.character, style)] * (last - first)
            if bar.end == NONE:
                cells[-1] = ("▸", style)
        line = Text()
        for style, alike in groupby(cells, itemgetter(1)):
            line.append("".join(character for character, _ in alike), style)
        return line

    def _cells(self, at_ms: int) -> float:
        """So many cells are before a moment."""
        return max(at_ms - self.begin_ms, 0) / (self.end_ms - self.begin_ms) * self.width


LEAST_BAR, USUAL_BAR, MOST_BAR = 12, 40, 100
"""Cells of the time axis: with fewer there is none; without a width; at most."""
WIDE = 120
"""With fewer cells there is no column for the start."""
LEAST_LABEL = 20
MOST_INDENT = 20
NAME_CHARS = 64


COLUMNS = (
    Column("step", least=LEAST_LABEL),
    Column("", least=LEAST_BAR, spare=1),
    Column("start", right=True, spare=4),
    Column("took", right=True),
    Column("tokens", right=True, spare=3),
    Column("cost", right=True, spare=2),
)


def outline_lines(
    rows: OutlineRows,
    tree: Sequence[TreeLine],
    *,
    begin_ms: int,
    end_ms: int,
    below: Mapping[int, Text],
    loops: Mapping[str, int],
    width: int | None,
) -> Iterator[Text]:
    """The tree below a header. Below a row stands its error, or what else `below` has of it.

    `loops` has the iterations that loops in no other loop will have.
    """
    most_indent = MOST_INDENT if width is None else max(2, min(width // 10, MOST_INDENT))
    cells = [[_label(rows, line, loops, most_indent), Text(), *_numbers(rows, line)] for line in tree]
    natural = [max((row[at].cell_len for row in cells), default=0) for at in range(len(COLUMNS))]
    natural[1] = USUAL_BAR if width is None else MOST_BAR
    if width is not None and width < WIDE:
        # On a long axis one sees when something began.
        natural[2] = 0
    wanted = {at: max(inner, len(COLUMNS[at].title)) for at, inner in enumerate(natural) if inner}
    # Words that are to be copied are whole.
    label = COLUMNS[0]._replace(least=0) if any(line.label for line in tree) else COLUMNS[0]
    columns = (label, *COLUMNS[1:])
    widths, left_out = fit(columns, wanted, width)
    axis = TimeAxis(begin_ms, max(end_ms, begin_ms + 1), widths.get(1, 0))
    heads = [Text(column.title, "bold") for column in columns]
    heads[1] = Text(axis.header(), "dim")
    yield line_of(heads, columns, widths)
    for line, row in zip(tree, cells, strict=True):
        if axis.width:
            row[1] = _bar(rows, line, axis)
        yield line_of(row, columns, widths)
        if (about := below.get(line.row)) is not None:
            indent = 2 * min(line.depth, most_indent) + 4
            told = Text.assemble(" " * indent, (one_line(about.plain, limit=400), about.style))
            if width is not None and not line.label:
                told.truncate(max(width, indent + 10), overflow="ellipsis")
            yield told
    yield from left_out


def _label(rows: OutlineRows, line: TreeLine, loops: Mapping[str, int], most_indent: int) -> Text:
    label = Text("  " * min(line.depth, most_indent))
    if line.depth > most_indent:
        label.append("> ", "dim")
    if line.folded is not None:
        label.append(f"⋮ {_folded(line.folded)}", "dim")
        return label
    row = line.row
    mark, style = formatting.mark(rows.status(row))
    label.append(f"{mark} ", style)
    if line.label:
        return label.append(line.label, "bold")
    kind = rows.kind(row)
    if line.iteration != NONE:
        label.append(f"[{rows.index[line.iteration]}] ")
    if kind == "iteration":
        label.append(f"[{rows.index[row]}]")
    elif kind == "attempt":
        label.append(f"attempt {rows.attempt[row]}", "dim")
    else:
        name = one_line(rows.name(row), limit=NAME_CHARS)
        is_worst = rows.status(row) == "failed" and (rows.is_recorded or rows.size[row] == 1)
        is_dim = rows.status(row) == "skipped" or row in rows.context or kind == "placeholder"
        label.append(name, "bold red" if is_worst else "dim" if is_dim else "")
    if note := _note(rows, line, loops):
        label.append(f"  {note}", "dim")
    return label


def _note(rows: OutlineRows, line: TreeLine, loops: Mapping[str, int]) -> str:
    row, kind = line.row, rows.kind(line.row)
    inside = f"{rows.size[row] - 1:,} inside …" if line.is_closed else ""
    if rows.is_recorded:
        return ", ".join(filter(None, (*_span_notes(rows, row), inside)))
    if kind == "loop":
        number = sum(1 for _ in rows.children(row))
        total = number if rows.loop_path(row) else loops.get(rows.name(row), number)
        of_total = "" if total == number else f"{number:,} of "
        return f"{of_total}{formatting.counted(total, 'iteration')}{' …' if line.is_closed else ''}"
    if rows.attempts[row] > 1:
        return f"{rows.attempts[row]} attempts"
    if rows.status(row) == "skipped" and rows.size[row] == 1:
        return "skipped"
    return inside


def _span_notes(rows: OutlineRows, row: int) -> Iterator[str]:
    name, kind, model = rows.name(row), rows.kind(row), rows.model(row)
    yield "context" if row in rows.context else "" if kind in ("placeholder", "other") else kind
    yield one_line(model, limit=40) if model is not None and model not in name else ""
    if row in rows.retry_of:
        yield f"retry of {one_line(str(rows.address(rows.retry_of[row])), limit=40)}"
    if row in rows.unattributed:
        tokens, cost = rows.unattributed[row]
        told = (formatting.counted(tokens, "token") if tokens else "", formatting.money(cost) if cost else "")
        yield f"unattributed: {', '.join(filter(None, told))}"
    yield "cycle broken above" if row in rows.cycles else ""
    yield "see its notes" if row in rows.noted else ""


def _folded(folded: Folded) -> str:
    noun = folded.kind if folded.kind in ("iteration", "attempt", "step") else "row"
    # The worst first.
    order = ("failed", "running", "waiting", "cancelled", "retried", "completed", "skipped")
    counts = [f"{folded.statuses[name]:,} {name}" for name in order if name in folded.statuses]
    by_status = next(iter(folded.statuses)) if len(folded.statuses) == 1 else ", ".join(counts)
    return f"{formatting.counted(folded.statuses.total(), f'more {noun}')}: {by_status}"


def _numbers(rows: OutlineRows, line: TreeLine) -> Iterator[Text]:
    """Start, duration, tokens and cost; of rows that are folded none."""
    row = line.row
    if line.folded is not None:
        return iter([Text()] * 4)
    start, took, tokens, cost = rows.start[row], rows.took_ms(row), rows.tokens[row], rows.cost[row]
    texts = (
        "" if start == NONE else formatting.duration(start),
        "" if took is None else formatting.duration(took),
        f"{tokens:,}" if tokens else "",
        "" if cost is None else formatting.money(cost),
    )
    return map(Text, texts)


def _bar(rows: OutlineRows, line: TreeLine, axis: TimeAxis) -> Text:
    if line.folded is not None:
        return Text()
    row, kind = line.row, rows.kind(line.row)
    status, start, end = rows.status(row), rows.start[row], rows.end[row]
    if kind == "step" and rows.size[row] > 1:
        # Between two attempts the step waits.
        waits = Bar(start, end, "retried", DOTTED)
        attempts = (Bar(rows.start[each], rows.end[each], rows.status(each)) for each in rows.children(row))
        return axis.drawn(waits, *attempts)
    if kind in ("step", "attempt") or (rows.is_recorded and rows.size[row] == 1):
        return axis.drawn(Bar(start, end, status, DASHED if status == "waiting" else THICK))
    return axis.drawn(Bar(start, end, "", THIN))
