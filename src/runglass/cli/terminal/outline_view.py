"""The tree of a run on a terminal: a line for each row, with its bar on the time axis, its time and its cost.

It fits the width that there is: a narrow terminal loses columns and cells of the axis, never a line. A bar
begins and ends at half a cell. What failed, waits or goes on differs by its characters, not by colour alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.outline_rows import Folded, OutlineRows, TreeLine
from runglass.cli.terminal.output import one_line
from runglass.outlines.outline import NONE

THICK, THIN, DASHED, DOTTED = ("━", "╸", "╺"), ("─", "╴", "╶"), ("┄", "┄", "┄"), ("·", "·", "·")
"""A whole cell, its left half, its right half: of steps, of what has steps inside, of waits and of gaps."""

STYLES: dict[str, str] = {
    "failed": "red",
    "retried": "yellow",
    "cancelled": "dim",
    "running": "cyan",
    "waiting": "yellow",
}


class Bar(NamedTuple):
    """A piece of time, in milliseconds since the start of the run; an `end` of -1 is not known yet."""

    start: int
    end: int
    status: str
    characters: tuple[str, str, str] = THICK


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
            whole, left, right = bar.characters
            style = STYLES.get(bar.status, "")
            first = min(self._halves(bar.start), 2 * self.width - 1)
            last = 2 * self.width if bar.end == NONE else self._halves(bar.end, round_up=True)
            last = max(first + 1, min(last, 2 * self.width))
            for cell in range(first // 2, (last + 1) // 2):
                is_left, is_right = first <= 2 * cell < last, first <= 2 * cell + 1 < last
                cells[cell] = (whole if is_left and is_right else left if is_left else right, style)
            if bar.end == NONE:
                cells[(last - 1) // 2] = ("▸", style)
        line = Text()
        for style, alike in groupby(cells, itemgetter(1)):
            line.append("".join(character for character, _ in alike), style)
        return line

    def _halves(self, at_ms: int, *, round_up: bool = False) -> int:
        """Half cells from the begin to a moment."""
        halves, rest = divmod(max(at_ms - self.begin_ms, 0) * 2 * self.width, self.end_ms - self.begin_ms)
        return halves + (round_up and rest > 0)


GAP = 2
LEAST_BAR, GOOD_BAR, USUAL_BAR, MOST_BAR = 8, 20, 40, 100
"""Cells of the time axis: with fewer there is none; labels are cut for so many; without a width; at most."""
LEAST_LABEL = 20
MOST_INDENT = 20
NAME_CHARS = 64
NARROW = 60
"""Below so many cells numbers of iterations and attempts are told in short."""


class Columns(NamedTuple):
    """Cells of the label and of the axis, and the numbers at the right with their widths."""

    label: int
    bar: int
    numbers: Mapping[str, int]


def outline_lines(
    rows: OutlineRows,
    tree: Sequence[TreeLine],
    *,
    begin_ms: int,
    end_ms: int,
    below: Mapping[int, Text],
    loops: Mapping[str, int],
    begun: Mapping[str, int] | None = None,
    now_ms: int | None = None,
    width: int | None,
) -> Iterator[Text]:
    """The tree below a header. Below a row stands its error, or what else `below` has of it.

    `loops` has the iterations that loops in no other loop will have, `begun` those that have begun, where
    they are not all among the rows. What goes on counts up until `now_ms`.
    """
    most_indent = MOST_INDENT if width is None else max(2, min(width // 10, MOST_INDENT))
    is_narrow = width is not None and width < NARROW
    labels = [_label(rows, line, loops, begun or {}, most_indent, is_narrow=is_narrow) for line in tree]
    numbers = [_numbers(rows, line, now_ms) for line in tree]
    columns, left_out = _columns(labels, numbers, width, is_list=any(line.label for line in tree))
    axis = TimeAxis(begin_ms, max(end_ms, begin_ms + 1), columns.bar)
    heads = {name: name for name in columns.numbers}
    yield _line(Text("step", "bold"), Text(axis.header(), "dim"), heads, columns, "bold")
    for line, label, values in zip(tree, labels, numbers, strict=True):
        bar = _bar(rows, line, axis) if columns.bar else Text()
        yield _line(label, bar, values, columns, "" if line.folded is None else "dim")
        if (about := below.get(line.row)) is not None:
            indent = 2 * min(line.depth, most_indent) + 4
            told = Text.assemble(" " * indent, (one_line(about.plain, limit=400), about.style))
            if width is not None and not line.label:
                told.truncate(max(width, indent + 10), overflow="ellipsis")
            yield told
    if left_out:
        yield Text(f"(too narrow for: {', '.join(left_out)}; use a wider terminal)", "dim")


def _columns(
    labels: Sequence[Text], numbers: Sequence[Mapping[str, str]], width: int | None, *, is_list: bool
) -> tuple[Columns, list[str]]:
    """What fits, and the names of what is missed: the label gives way first, then numbers, then the axis."""
    widths: dict[str, int] = {}
    for name in ("start", "took", "tokens", "cost"):
        longest = max((cell_len(each[name]) for each in numbers), default=0)
        if longest:
            widths[name] = max(longest, len(name))
    natural = max((label.cell_len for label in labels), default=0)
    left_out: list[str] = []
    if width is None:
        return Columns(natural, USUAL_BAR, widths), left_out
    while True:
        room = width - sum(cells + GAP for cells in widths.values())
        label = natural if is_list else min(natural, max(LEAST_LABEL, room * 9 // 20, room - GAP - GOOD_BAR))
        bar = room - label - GAP
        # On a long axis one sees when something began.
        if bar < USUAL_BAR and widths.pop("start", None) is not None:
            continue
        spare = next((name for name in ("tokens", "cost") if name in widths), None)
        if bar >= LEAST_BAR or spare is None:
            break
        left_out.append(spare)
        del widths[spare]
    if bar < LEAST_BAR:
        return Columns(max(1, min(natural, room)), 0, widths), left_out
    return Columns(label, min(bar, MOST_BAR), widths), left_out


def _label(
    rows: OutlineRows,
    line: TreeLine,
    loops: Mapping[str, int],
    begun: Mapping[str, int],
    most_indent: int,
    *,
    is_narrow: bool,
) -> Text:
    label = Text("  " * min(line.depth, most_indent))
    if line.depth > most_indent:
        label.append("> ", "dim")
    if line.folded is not None:
        label.append(f"⋮ {_folded(line.folded, is_narrow=is_narrow)}", "dim")
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
    if note := _note(rows, line, loops, begun, is_narrow=is_narrow):
        label.append(f"{' ' if is_narrow else '  '}{note}", "dim")
    return label


def _note(
    rows: OutlineRows, line: TreeLine, loops: Mapping[str, int], begun: Mapping[str, int], *, is_narrow: bool
) -> str:
    row, kind = line.row, rows.kind(line.row)
    inside = f"{rows.size[row] - 1:,} inside …" if line.is_closed else ""
    if rows.is_recorded:
        return ", ".join(filter(None, (*_span_notes(rows, row), inside)))
    if kind == "loop":
        number = begun.get(rows.name(row)) or sum(1 for _ in rows.children(row))
        total = number if rows.loop_path(row) else loops.get(rows.name(row), number)
        of_total = "" if total == number else f"{number:,}/" if is_narrow else f"{number:,} of "
        counted = of_total + (f"{total:,}x" if is_narrow else formatting.counted(total, "iteration"))
        return f"{counted}{' …' if line.is_closed else ''}"
    if rows.attempts[row] > 1:
        return f"{rows.attempts[row]}x" if is_narrow else f"{rows.attempts[row]} attempts"
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


def _folded(folded: Folded, *, is_narrow: bool) -> str:
    number = sum(folded.statuses.values())
    if is_narrow:
        return f"{number:,} more"
    noun = folded.kind if folded.kind in ("iteration", "attempt", "step") else "row"
    # The worst first.
    order = ("failed", "running", "waiting", "cancelled", "retried", "completed", "skipped")
    counts = [f"{folded.statuses[name]:,} {name}" for name in order if name in folded.statuses]
    by_status = next(iter(folded.statuses)) if len(folded.statuses) == 1 else ", ".join(counts)
    return f"{formatting.counted(number, f'more {noun}')}: {by_status}"


def _numbers(rows: OutlineRows, line: TreeLine, now_ms: int | None) -> Mapping[str, str]:
    row, folded = line.row, line.folded
    start = NONE if folded is not None else rows.start[row]
    took = None if folded is not None else rows.took_ms(row)
    if start != NONE and took is None and now_ms is not None:
        took = max(now_ms - start, 0)
    tokens = rows.tokens[row] if folded is None else folded.tokens
    cost = rows.cost[row] if folded is None else folded.cost
    return {
        "start": "" if start == NONE else formatting.duration(start),
        "took": "" if took is None else formatting.duration(took),
        "tokens": f"{tokens:,}" if tokens else "",
        "cost": "" if cost is None else formatting.money(cost),
    }


def _bar(rows: OutlineRows, line: TreeLine, axis: TimeAxis) -> Text:
    if line.folded is not None:
        return axis.drawn(Bar(line.folded.start, line.folded.end, "", DOTTED))
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


def _line(label: Text, bar: Text, numbers: Mapping[str, str], columns: Columns, style: str) -> Text:
    line = label.copy()
    line.truncate(columns.label, overflow="ellipsis", pad=True)
    if columns.bar:
        line.append(" " * GAP)
        line.append_text(bar)
    for name, cells in columns.numbers.items():
        value = numbers[name]
        line.append(" " * (GAP + cells - cell_len(value)))
        line.append(value, style)
    line.rstrip()
    return line
