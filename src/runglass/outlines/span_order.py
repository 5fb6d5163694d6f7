"""Spans in the order in which they are shown: parents, cycles, levels, siblings, and which repeats another.

All of it without recursion, over arrays, in slices between which others can have their turn.
"""

import heapq
from array import array
from collections.abc import Generator, Sequence
from itertools import chain

from runglass.outlines.columns import Columns, Numbers
from runglass.outlines.outline import NONE, SLICE_ROWS, STATUSES

LEVELS = 1000
"""The levels that are shown: what is deeper stands at the last of them."""
NEVER = 1 << 62
"""Later than anything."""

_FAILED, _RETRIED = STATUSES.index("failed"), STATUSES.index("retried")
_ON_PATH = -2


def arrange(
    parents: "array[int]", ids: "array[int]", *, order: "array[int]", shown: "array[int]"
) -> Generator[None, None, list[int]]:
    """Puts the rows into `order`, parents first, and what each is shown inside of into `shown`.

    Cuts cycles in `parents`; returns the rows that are at the top by that. Yields between two slices.
    """
    cycles = []
    depths = array("h", [NONE]) * len(parents)
    for row in range(len(parents)):
        path = []
        while row != NONE and depths[row] == NONE:
            depths[row] = _ON_PATH
            path.append(row)
            row = parents[row]
            if not len(path) % SLICE_ROWS:
                yield
        if row != NONE and depths[row] == _ON_PATH:
            begin = path.index(row)
            top = min(path[begin:], key=ids.__getitem__)
            cut = path.index(top) + 1
            path = path[:begin] + path[cut:] + path[begin:cut]
            parents[top] = NONE
            cycles.append(top)
        while path:
            row = path.pop()
            parent = parents[row]
            if parent == NONE:
                depths[row] = 0
            elif depths[parent] < LEVELS - 1:
                depths[row], shown[row] = depths[parent] + 1, parent
            else:
                depths[row], shown[row] = LEVELS - 1, shown[parent]
            order.append(row)
            if not len(order) % SLICE_ROWS:
                yield
    return cycles


def number_spans(
    columns: Columns,
    ids: "array[int]",
    *,
    order: "array[int]",
    sizes: "array[int]",
    alike: Sequence[int],
    numbers: Numbers,
) -> Generator[None, None, list[tuple[int, int]]]:
    """Numbers the rows in pre-order, siblings by their start, then their id. Yields between two slices.

    `alike` has for each sort of row the first one of the same kind and name.
    Returns those that probably repeat another, each with that one, whose status is `retried` from then on.
    """
    row_of, made_of = numbers
    retry_of = []
    shown, status, start = columns.parent, columns.status, columns.start
    # The last entry is for the rows at the top, whose parent is -1.
    first_of = array("i", [NONE]) * (len(order) + 1)
    next_of = array("i", [NONE]) * len(order)
    for at in range(len(order) - 1, -1, -1):
        row = order[at]
        next_of[row] = first_of[shown[row]]
        first_of[shown[row]] = row
        if not at % SLICE_ROWS:
            yield

    def by_start(row: int) -> tuple[int, int]:
        return (start[row] if start[row] != NONE else NEVER), ids[row]

    worked = 0
    for parent in chain((NONE,), order):
        worked += 1
        if not worked % SLICE_ROWS:
            yield
        child = first_of[parent]
        siblings: list[list[int]] = []
        while child != NONE:
            siblings.append([])
            while child != NONE and len(siblings[-1]) < SLICE_ROWS:
                siblings[-1].append(child)
                child = next_of[child]
            siblings[-1].sort(key=by_start)
            if len(siblings) > 1:
                yield
        if not siblings:
            continue
        row, failures = row_of[parent] + 1, _Failures(columns, alike)
        for child in siblings[0] if len(siblings) == 1 else heapq.merge(*siblings, key=by_start):
            row_of[child], made_of[row] = row, child
            row += sizes[child]
            earlier = failures.repeated_by(child)
            if earlier is not None:
                status[earlier] = _RETRIED
                retry_of.append((child, earlier))
            worked += 1
            if not worked % SLICE_ROWS:
                yield
    return retry_of


class _Failures:
    """Of siblings, taken by their start, those that failed and that none has repeated so far."""

    def __init__(self, columns: Columns, alike: Sequence[int]) -> None:
        self._columns = columns
        self._alike = alike
        # By kind and name, those that had not ended yet, the first to end at the top, and those that had.
        self._failed: dict[int, tuple[list[tuple[int, int]], list[int]]] = {}

    def repeated_by(self, row: int) -> int | None:
        """The failed row that this one repeats: of the same name and kind, and over when this one began."""
        columns, earlier = self._columns, None
        sort, end = self._alike[columns.sort[row]], columns.end[row]
        if sort in self._failed:
            failing, ended = self._failed[sort]
            while failing and failing[0][0] <= columns.start[row]:
                ended.append(heapq.heappop(failing)[1])
            earlier = ended.pop() if ended else None
        if columns.status[row] == _FAILED and end != NONE:
            heapq.heappush(self._failed.setdefault(sort, ([], []))[0], (end, row))
        return earlier
