"""Numbers for the rows of an outline: from the order in which they were made to the pre-order of the tree.

Where rows were made in pre-order, as they are where one thing is done after the other, nothing has to move.
"""

from array import array
from collections.abc import Callable, Collection, Generator

from runglass.outlines.columns import Numbers
from runglass.outlines.outline import NONE, SLICE_ROWS


def number_rows(
    parents: "array[int]",
    sizes: "array[int]",
    *,
    unsorted: Collection[int],
    rank: Callable[[int], int],
) -> Generator[None, None, Numbers | None]:
    """Returns the numbers, None where the rows were made in pre-order, and yields between two slices.

    `sizes` are the rows in and below each. Siblings were made in the order of their `rank`, but for what is
    inside of `unsorted` rows.
    """
    row_of, made_of = array("i", bytes(4 * len(parents))), array("i", bytes(4 * len(parents)))
    before = yield from _rows_before(parents, sizes, unsorted, rank)
    # Where the next row inside of each goes; the last entry is for those at the top, whose parent is -1.
    following = array("i", bytes(4 * (len(parents) + 1)))
    in_order = True
    for first in range(0, len(parents), SLICE_ROWS):
        for made in range(first, min(first + SLICE_ROWS, len(parents))):
            parent = parents[made]
            if parent in unsorted:
                row = following[parent] + before[made]
            else:
                row = following[parent]
                following[parent] = row + sizes[made]
            if row != made:
                in_order = False
            row_of[made] = row
            made_of[row] = made
            following[made] = row + 1
        yield
    if in_order:
        return None
    # The last entry is for the parent of the rows at the top.
    row_of.append(NONE)
    return Numbers(row_of, made_of)


def _rows_before(
    parents: "array[int]", sizes: "array[int]", unsorted: Collection[int], rank: Callable[[int], int]
) -> Generator[None, None, dict[int, int]]:
    """How many rows come before each inside of its parent, where these were made in another order."""
    before: dict[int, int] = {}
    if not unsorted:
        return before
    siblings: dict[int, list[int]] = {parent: [] for parent in unsorted}
    for first in range(0, len(parents), SLICE_ROWS):
        for made in range(first, min(first + SLICE_ROWS, len(parents))):
            if parents[made] in siblings:
                siblings[parents[made]].append(made)
        yield
    worked = 0
    for rows in siblings.values():
        rows.sort(key=rank)
        count = 0
        for made in rows:
            before[made] = count
            count += sizes[made]
        worked += len(rows)
        if worked >= SLICE_ROWS:
            worked = 0
            yield
    return before
