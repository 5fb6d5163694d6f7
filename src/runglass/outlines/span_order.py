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


def find_repeated(
    columns: Columns, numbers: Numbers, *, order: "array[int]", sizes: "array[int]", alike: Sequence[int]
) -> Generator[None, None, list[tuple[int, int]]]:
    """Rows that probably repeat a sibling, each with that one, whose status is `retried` from then on.

    That one is of the same kind and name, failed, and was over when the row began. `alike` has for each name
    the first one with the same text. Yields between two slices.
    """
    row_of, made_of, _ = numbers
    status, start, end = columns.status, columns.start, columns.end
    retry_of: list[tuple[int, int]] = []
    worked = 0
    for parent in chain((NONE,), order) if _FAILED in status else ():
        row = row_of[parent] + 1
        stop = len(order) if parent == NONE else row_of[parent] + sizes[parent]
        # By kind and name, siblings that failed and that none repeats so far: those that had not ended yet,
        # the first to end at the top, and those that had.
        failed: dict[tuple[int, int], tuple[list[tuple[int, int]], list[int]]] = {}
        while row < stop:
            child = made_of[row]
            row += sizes[child]
            about = columns.kind[child], alike[columns.name[child]]
            if about in failed:
                failing, ended = failed[about]
                while failing and failing[0][0] <= start[child]:
                    ended.append(heapq.heappop(failing)[1])
                if ended:
                    status[ended[-1]] = _RETRIED
                    retry_of.append((child, ended.pop()))
            if status[child] == _FAILED and end[child] != NONE:
                heapq.heappush(failed.setdefault(about, ([], []))[0], (end[child], child))
            worked += 1
            if not worked % SLICE_ROWS:
                yield
    return retry_of
