"""The rows of an outline while it is made, as columns, and the outline that they become.

They are made in any order, and read in pre-order. Where they were made in that, as they are where one thing
is done after the other, nothing has to move.
"""

import heapq
from array import array
from collections.abc import Callable, Generator, Iterable, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from runglass.log.money import add_usd, format_usd
from runglass.outlines.outline import NONE, ROW_BYTES, SLICE_ROWS, Outline, SpanMarks

MAX_ROWS = 1 << 31
"""More than there can be of nodes, iterations and attempts."""
NEVER = 1 << 62
"""The end of what goes on: later than any time."""

RowValues: TypeAlias = tuple[int, int, int, int, str | None]
"""Status, start, end, tokens and cost of a row itself, without what is inside of it."""

NO_VALUES: RowValues = (NONE, NONE, NONE, 0, None)


class Numbers(NamedTuple):
    """Numbers of rows by the order of making, with one entry more for -1, and the other way round.

    `in_order` says that both orders are the same.
    """

    row_of: "array[int]"
    made_of: "array[int]"
    in_order: bool


class Columns:
    """The columns of rows in the order in which they are made; `add_up` makes sums of what rows have.

    New rows are in lists until `settle` puts them into the arrays, which are slower to append to. The columns
    are those of `OutlineColumns` but for the depth. Siblings of an executed run are sorted by `rank`.
    """

    def __init__(self) -> None:
        self.new: tuple[list[int], ...] = tuple([] for _ in _ARRAYS)
        self.parent = array("i")
        self.rank = array("i")
        self.kind = array("b")
        self.name = array("i")
        self.index = array("i")
        self.attempt = array("i")
        self.attempts = array("i")
        self.position = array("i")
        self.status = array("b")
        self.start = array("q")
        self.end = array("q")
        self.tokens = array("q")
        self.cost: list[str | Decimal | None] = []

    def __len__(self) -> int:
        return len(self.cost)

    def add(self, parent: int, rank: int, kind: int, name: int, index: int = NONE) -> int:
        """A further row with nothing of its own; its number in the order of making."""
        # One by one, since a loop over them takes twice as long, and runs may have a million rows.
        parents, ranks, kinds, names, indexes, numbers, tried, positions, statuses, starts, ends, used = (
            self.new
        )
        parents.append(parent)
        ranks.append(rank)
        kinds.append(kind)
        names.append(name)
        indexes.append(index)
        numbers.append(0)
        tried.append(0)
        positions.append(0)
        statuses.append(NONE)
        starts.append(NONE)
        ends.append(NONE)
        used.append(0)
        self.cost.append(None)
        return len(self.cost) - 1

    def settle(self) -> None:
        """Puts new rows into the arrays. Raises OverflowError for what is too large for them."""
        for name, values in zip(_ARRAYS, self.new, strict=True):
            getattr(self, name).fromlist(values)
            values.clear()

    def own(self, row: int) -> RowValues:
        """The values of a settled row itself, before sums are made."""
        cost = self.cost[row]
        assert not isinstance(cost, Decimal)
        return self.status[row], self.start[row], self.end[row], self.tokens[row], cost

    def set_own(self, row: int, own: RowValues) -> None:
        """Gives a settled row something of its own, in place of what it had."""
        self.status[row], self.start[row], self.end[row], self.tokens[row], self.cost[row] = own

    def add_up(self, rows: range, sizes: "array[int]") -> None:
        """Adds each row, the last one first, to its parent; `sizes` are the rows in and below each."""
        parents, status, start, end = self.parent, self.status, self.start, self.end
        tokens, cost = self.tokens, self.cost
        for row in rows:
            parent = parents[row]
            spent, until = cost[row], end[row]
            if parent != NONE:
                sizes[parent] += sizes[row]
                if status[row] > status[parent]:
                    status[parent] = status[row]
                since = start[row]
                if since != NONE and (since < start[parent] or start[parent] == NONE):
                    start[parent] = since
                if until > end[parent]:
                    end[parent] = until
                if tokens[row]:
                    tokens[parent] += tokens[row]
                if spent is not None:
                    before = cost[parent]
                    cost[parent] = spent if before is None else add_usd(Decimal(before), Decimal(spent))
            if until == NEVER:
                end[row] = NONE
            if isinstance(spent, Decimal):
                cost[row] = format_usd(spent)


_ARRAYS = (
    *("parent", "rank", "kind", "name", "index", "attempt", "attempts", "position"),
    *("status", "start", "end", "tokens"),
)


def number_rows(
    parents: "array[int]",
    sizes: "array[int]",
    *,
    order: Sequence[int],
    key: Callable[[int], Any],
) -> Generator[None, None, Numbers]:
    """Numbers the rows in pre-order, siblings by their `key`; yields between two slices.

    `order` has each row behind its parent, and `sizes` the rows in and below each. Siblings with the same key
    stand as in `order`.
    """
    row_of, made_of = array("i", bytes(4 * len(parents))), array("i", bytes(4 * len(parents)))
    # The last entries are for the rows at the top, whose parent is -1.
    row_of.append(NONE)
    first_of = array("i", [NONE]) * (len(parents) + 1)
    next_of = array("i", [NONE]) * len(parents)
    for at, row in enumerate(reversed(order), 1):
        parent = parents[row]
        next_of[row] = first_of[parent]
        first_of[parent] = row
        if not at % SLICE_ROWS:
            yield
    worked, in_order = 0, True
    for at, parent in enumerate(chain((NONE,), order), 1):
        if not at % SLICE_ROWS:
            yield
        if (child := first_of[parent]) == NONE:
            continue
        row = row_of[parent] + 1
        if next_of[child] == NONE:
            # Most iterations hold one step: there is nothing to sort.
            in_order = in_order and row == child
            row_of[child], made_of[row] = row, child
            continue
        slices: list[list[int]] = []
        while child != NONE:
            if slices:
                yield
            siblings = [child]
            while (child := next_of[child]) != NONE and len(siblings) < SLICE_ROWS:
                siblings.append(child)
            siblings.sort(key=key)
            slices.append(siblings)
        ranked = slices[0] if len(slices) == 1 else heapq.merge(*slices, key=key)
        for child in ranked:
            if row != child:
                in_order = False
            row_of[child], made_of[row] = row, child
            row += sizes[child]
            worked += 1
            if not worked % SLICE_ROWS:
                yield
    return Numbers(row_of, made_of, in_order)


class BuiltOutline(Outline):
    """An outline as it was made. `cut` are rows by the order of making."""

    def __init__(
        self,
        columns: Columns,
        names: Sequence[str],
        numbers: Numbers,
        *,
        seq: int,
        latest_ms: int,
        cut: Sequence[int],
        recorded: SpanMarks | None = None,
    ) -> None:
        rows = sorted(map(numbers.row_of.__getitem__, cut))
        count = len(columns)
        super().__init__(names, seq=seq, latest_ms=latest_ms, row_count=count, cut=rows, recorded=recorded)
        self._columns = columns
        self._numbers = None if numbers.in_order else numbers

    @property
    def size_bytes(self) -> int:
        return 1000 + self.row_count * ROW_BYTES // 2 + 200 * len(self.names)

    def values(self, column: str, first: int, count: int) -> list[Any]:
        match column:
            case "parent" if self._numbers is not None:
                return [self._numbers.row_of[made] for made in self._made("parent", first, count)]
            case "depth":
                depths, above = {NONE: NONE}, [first] if first < self.row_count else []
                while above and (parent := self.values("parent", above[-1], 1)[0]) != NONE:
                    above.append(parent)
                depths |= {row: depth for depth, row in enumerate(reversed(above))}
                # A parent is in the page, too, or one of those above its first row.
                for row, parent in enumerate(self.values("parent", first, count), first):
                    depths[row] = depths[parent] + 1
                return [depths[row] for row in range(first, min(first + count, self.row_count))]
        return list(self._made(column, first, count))

    def _made(self, column: str, first: int, count: int) -> Iterable[Any]:
        values: Any = getattr(self._columns, column)
        rows = slice(first, min(first + count, self.row_count))
        if self._numbers is None:
            return list(values[rows])
        return map(values.__getitem__, self._numbers.made_of[rows])
