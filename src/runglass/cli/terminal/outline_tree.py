"""Which rows of an outline are shown, and how they stand below each other.

Few rows are shown all. Of many, what failed, goes on or was tried again is shown, then level by level what
fits; of the rest there is a count where it was left out. No text is made here, and nothing is drawn.
"""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.log.money import add_usd
from runglass.outlines.outline import NONE

MOST_SIBLINGS = 12
"""Of more rows at one place the first, the one that took longest and the last one are shown."""
MOST_NOTABLE = 16
"""So many of those that failed are shown, and so many that go on, were cut off, or were tried again."""


class Folded(NamedTuple):
    """Rows inside of `parent` that are not shown, with what is inside of them."""

    parent: int
    kind: str
    statuses: dict[str, int]
    start: int
    end: int
    tokens: int
    cost: Decimal | None


class TreeLine(NamedTuple):
    """A row, or rows that are folded. With `iteration` the line stands for that row, too.

    `is_closed` where nothing is shown of what is inside.
    """

    depth: int
    row: int = NONE
    iteration: int = NONE
    is_closed: bool = False
    folded: Folded | None = None


def tree_lines(rows: OutlineRows, shown: set[int], *, within: int = NONE) -> Iterator[TreeLine]:
    """The rows that are shown, in order, and a line for each gap between them."""
    first, stop = (0, len(rows)) if within == NONE else (within, within + rows.size[within])
    has_shown = {rows.parent[row] for row in shown}
    lifted: dict[int, int] = {NONE: 0}
    base = 0 if within == NONE else rows.depth[within]
    gap: list[int] = []
    row = first
    while row < stop:
        parent = rows.parent[row]
        if gap and (row in shown or rows.parent[gap[0]] != parent):
            yield _fold(rows, gap, depth=_depth(rows, gap[0], base, lifted))
            gap = []
        if row in shown:
            depth = _depth(rows, row, base, lifted)
            lifted[row] = lifted.get(parent, 0)
            iteration, inner = NONE, row + 1
            # An iteration of one step is one line.
            if rows.kind(row) == "iteration" and inner in shown and rows.size[row] == 1 + rows.size[inner]:
                lifted[inner] = lifted[row] + 1
                iteration, row = row, inner
            is_closed = rows.size[row] > 1 and row not in has_shown
            yield TreeLine(depth, row, iteration=iteration, is_closed=is_closed)
            row += 1
        else:
            if parent in has_shown:
                gap.append(row)
            row += rows.size[row]
    if gap:
        yield _fold(rows, gap, depth=_depth(rows, gap[0], base, lifted))


def choose_rows(rows: OutlineRows, *, most: int, within: int = NONE) -> set[int]:
    """The rows to be shown: all of them where they are at most `most`, else about so many."""
    first, stop = (0, len(rows)) if within == NONE else (within, within + rows.size[within])
    if stop - first <= most:
        return set(range(first, stop))
    shown: set[int] = set() if within == NONE else {within}
    for statuses in (("failed",), ("running", "waiting"), ("cancelled",), ("retried",)):
        notable = (row for row in rows.rows_with(*statuses) if first <= row < stop)
        for row in islice(notable, MOST_NOTABLE):
            _show(rows, row, shown, within)
    level = [within]
    while level:
        following: list[int] = []
        for parent in level:
            inside = list(rows.children(parent))
            if len(inside) > MOST_SIBLINGS or len(shown) + len(inside) > most:
                inside = _some_of(rows, inside, shown) if len(shown) < most else []
            shown.update(inside)
            following += (row for row in inside if rows.size[row] > 1)
        level = following
    return shown


def _show(rows: OutlineRows, row: int, shown: set[int], within: int) -> None:
    # All attempts of a step are shown with one of them, unless they are many.
    if rows.kind(row) == "attempt" and rows.size[rows.parent[row]] <= MOST_SIBLINGS:
        shown.update(rows.children(rows.parent[row]))
    while row not in (NONE, within) and (row not in shown or rows.kind(row) == "attempt"):
        shown.add(row)
        row = rows.parent[row]


def _some_of(rows: OutlineRows, siblings: list[int], shown: set[int]) -> list[int]:
    slowest = max(siblings, key=lambda row: rows.took_ms(row) or 0)
    return sorted({siblings[0], slowest, siblings[-1], *shown.intersection(siblings)})


def _depth(rows: OutlineRows, row: int, base: int, lifted: dict[int, int]) -> int:
    return rows.depth[row] - base - lifted.get(rows.parent[row], 0)


def _fold(rows: OutlineRows, gap: list[int], *, depth: int) -> TreeLine:
    starts = [rows.start[row] for row in gap if rows.start[row] != NONE]
    is_open = any(rows.start[row] != NONE and rows.end[row] == NONE for row in gap)
    cost: Decimal | None = None
    for row in gap:
        spent = rows.cost[row]
        if spent is not None:
            cost = Decimal(spent) if cost is None else add_usd(cost, Decimal(spent))
    folded = Folded(
        parent=rows.parent[gap[0]],
        kind=rows.kind(gap[0]) if len({rows.kind(row) for row in gap}) == 1 else "row",
        statuses=dict(Counter(rows.status(row) for row in gap)),
        start=min(starts, default=NONE),
        end=NONE if is_open else max(rows.end[row] for row in gap),
        tokens=sum(rows.tokens[row] for row in gap),
        cost=cost,
    )
    return TreeLine(depth, folded=folded)
