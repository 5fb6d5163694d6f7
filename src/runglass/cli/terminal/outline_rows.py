"""The outline of a run, whole, for what is drawn of it, and which of its rows are shown.

Rows are kept as columns: a run may have a million, and as objects they would take some hundred bytes each,
here they take sixty. Few rows are shown all. Of many, what failed, goes on or was tried again is shown, then
level by level what fits; of the rest there is a count where it was left out. No text is made here.
"""

from array import array
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice, repeat
from typing import NamedTuple

from runglass.outlines.outline import NONE, OutlinePage


class StepAddress(NamedTuple):
    """What names one attempt of a step: `loop_path` has the iterations around it, outermost first."""

    step_id: str
    loop_path: tuple[int, ...]
    attempt: int

    def __str__(self) -> str:
        where = f" [{'.'.join(map(str, self.loop_path))}]" if self.loop_path else ""
        return f"{self.step_id}{where}"


class OutlineRows:
    """Rows of an outline, page after page; `finish` comes after the last. `total` is how many the run has."""

    def __init__(self) -> None:
        self.total = 0
        self.is_recorded = False
        self.context: set[int] = set()
        self.cycles: set[int] = set()
        self.noted: set[int] = set()
        self.retry_of: dict[int, int] = {}
        self.unattributed: dict[int, tuple[int, str | None]] = {}
        # Name, step id and model with their number, and by number once all rows are there.
        self._names: dict[tuple[str, str, str | None], int] = {}
        self._told: list[tuple[str, str, str | None]] = []
        self.parent, self.depth, self.index = array("i"), array("i"), array("i")
        self.attempt, self.attempts, self.size = array("i"), array("i"), array("i")
        self.start, self.end, self.tokens = array("q"), array("q"), array("q")
        self.cost: list[str | None] = []
        self.cut: list[int] = []
        self._kinds: list[str] = []
        self._statuses: list[str] = []
        self._kind, self._status, self._name = array("b"), array("b"), array("i")

    def __len__(self) -> int:
        return len(self.parent)

    def add(self, page: OutlinePage) -> None:
        """Takes in the rows that follow."""
        self.total = page.row_count
        spans = page.recorded
        step_ids, models = (page.names, repeat(None)) if spans is None else (spans.step_ids, spans.models)
        abouts = zip(page.names, step_ids, models, strict=False)
        names = [self._names.setdefault(about, len(self._names)) for about in abouts]
        if spans is not None:
            self.is_recorded = True
            self.context.update(spans.context)
            self.cycles.update(spans.cycles)
            self.noted.update(spans.noted)
            self.retry_of.update(spans.retry_of)
            self.unattributed.update((row, (tokens, cost)) for row, tokens, cost in spans.unattributed)
        self._kinds, self._statuses = page.kinds, page.statuses
        columns = page.columns
        for name in ("parent", "depth", "index", "attempt", "attempts", "start", "end", "tokens", "cost"):
            getattr(self, name).extend(getattr(columns, name))
        self._kind.extend(columns.kind)
        self._name.extend(map(names.__getitem__, columns.name))
        self._status.extend(columns.status)
        self.cut.extend(page.cut)

    def finish(self) -> None:
        """Counts the rows in and below each row."""
        self._told = list(self._names)
        self.size = array("i", [1]) * len(self)
        for row in range(len(self) - 1, -1, -1):
            if self.parent[row] != NONE:
                self.size[self.parent[row]] += self.size[row]

    def kind(self, row: int) -> str:
        """What a row is of: step, loop, parallel, condition, iteration, branch, attempt, or a span's kind."""
        return self._kinds[self._kind[row]]

    def name(self, row: int) -> str:
        """The step's id; of an iteration that of its loop, of a branch and a span its name."""
        return self._told[self._name[row]][0]

    def step_id(self, row: int) -> str:
        """The id of the step that a row is of; that of a span differs from its name."""
        return self._told[self._name[row]][1]

    def model(self, row: int) -> str | None:
        """The model that a span names."""
        return self._told[self._name[row]][2]

    def status(self, row: int) -> str:
        """The status of a row, which is the worst of what is inside of it; that of a span is its own."""
        return self._statuses[self._status[row]]

    def children(self, parent: int) -> Iterator[int]:
        """The rows right inside of a row, or with -1 those at the top."""
        row, stop = parent + 1, len(self) if parent == NONE else parent + self.size[parent]
        while row < stop:
            yield row
            row += self.size[row]

    def rows_with(self, *statuses: str) -> Iterator[int]:
        """The rows of attempts, of steps that had one, and of spans, with one of the statuses."""
        numbers = {at for at, status in enumerate(self._statuses) if status in statuses}
        for row, status in enumerate(self._status):
            if status in numbers and self.has_attempt(row):
                yield row

    def has_attempt(self, row: int) -> bool:
        """Whether the row is that of one attempt, or of a span that was received."""
        if self.is_recorded:
            return self.attempts[row] > 0
        return self.size[row] == 1 and self.kind(row) in ("step", "attempt")

    def took_ms(self, row: int) -> int | None:
        """From the first start to the last end in a row; None where there is none, or none yet."""
        if self.start[row] == NONE or self.end[row] == NONE:
            return None
        return self.end[row] - self.start[row]

    def cost_usd(self, row: int) -> Decimal | None:
        """The known cost in a row."""
        return None if (cost := self.cost[row]) is None else Decimal(cost)

    def loop_path(self, row: int) -> tuple[int, ...]:
        """The iterations around a row, or that it is, outermost first; of a span its number."""
        if self.is_recorded:
            return (self.index[row],) if self.index[row] != NONE else ()
        path = []
        while row != NONE:
            if self.index[row] != NONE:
                path.append(self.index[row])
            row = self.parent[row]
        return tuple(reversed(path))

    def address(self, row: int) -> StepAddress:
        """What names the attempt in a row, or the latest of a step."""
        return StepAddress(self.step_id(row), self.loop_path(row), self.attempt[row])

    def attempts_of(self, row: int) -> int:
        """How many attempts the step has that a row is an attempt of, or is."""
        return self.attempts[self.parent[row]] if self.kind(row) == "attempt" else self.attempts[row]


MOST_SIBLINGS = 12
"""Of more rows inside of one the first, the one that took longest and the last one are shown."""
MOST_NOTABLE = 16
"""So many of those that failed are shown, and so many that go on, were cut off, or were tried again."""


class Folded(NamedTuple):
    """Rows inside of `parent` that are not shown."""

    parent: int
    kind: str
    statuses: Counter[str]


class TreeLine(NamedTuple):
    """A row, or rows that are folded. With `iteration` the line stands for that row, too.

    `is_closed` where nothing is shown of what is inside. With a `label` it is one of a list, and never cut.
    """

    depth: int
    row: int = NONE
    iteration: int = NONE
    is_closed: bool = False
    folded: Folded | None = None
    label: str = ""


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
            if len(shown) >= most:
                inside = []
            elif len(inside) > MOST_SIBLINGS or len(shown) + len(inside) > most:
                slowest = max(inside, key=lambda row: rows.took_ms(row) or 0)
                inside = sorted({inside[0], slowest, inside[-1], *shown.intersection(inside)})
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


def _depth(rows: OutlineRows, row: int, base: int, lifted: dict[int, int]) -> int:
    return rows.depth[row] - base - lifted.get(rows.parent[row], 0)


def _fold(rows: OutlineRows, gap: list[int], *, depth: int) -> TreeLine:
    kinds = {rows.kind(row) for row in gap}
    kind = kinds.pop() if len(kinds) == 1 else "row"
    folded = Folded(rows.parent[gap[0]], kind, Counter(map(rows.status, gap)))
    return TreeLine(depth, folded=folded)
