"""The outline of a run: a row for each thing that it did, in pre-order, without what went in and out.

Rows are kept as columns, since objects would take ten times the memory. They are made in any order in which
parents come before what is inside of them, and read in the order of the tree. Nothing here knows flows,
stores and HTTP: `outline_builder.py` makes outlines of attempts, whatever program these are of.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from runglass.money import add_usd, format_usd

Kind: TypeAlias = Literal["step", "loop", "parallel", "condition", "iteration", "branch", "attempt"]

KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES = ("skipped", "completed", "retried", "waiting", "running", "failed")
"""Each is worse than the ones before it."""
SLICE_ROWS = 16_384
"""Rows that are worked on in one go: 5 to 30 ms."""
ROW_BYTES = 160
"""About what a row takes while an outline is made; half of that is kept."""

ITERATION, ATTEMPT = KINDS.index("iteration"), KINDS.index("attempt")

NONE = -1
MOST = 1 << 31
"""More than there can be of nodes, iterations and attempts."""
OPEN_END = 1 << 62
"""The end of what goes on: later than any other."""


class OutlineColumns(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A value for each row. `kind`, `name` and `status` are places in lists of the outline, from 0 on.

    `parent` is a row number of the whole outline, -1 at the top. `index` is an iteration's, else -1.
    `attempt` is the number of an attempt, of a step that of its latest one, else 0; `attempts` is how many a
    step had. `position` is that by which the store finds a step in its iteration, and its attempts, else 0.
    `start` and `end` are milliseconds since the run's `startedAt`, -1 where there is none yet.
    `tokens` and `cost`, in US dollars, are sums over everything inside of a row.
    """

    parent: list[int]
    depth: list[int]
    kind: list[int]
    name: list[int]
    index: list[int]
    attempt: list[int]
    attempts: list[int]
    position: list[int]
    status: list[int]
    start: list[int]
    end: list[int]
    tokens: list[int]
    cost: list[str | None]


class OutlinePage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Rows of the outline of a run, as of event `seq`, from row `first` on. `row_count` is that of all.

    Of `statuses` each is worse than the ones before it; a row that holds others has the worst of theirs.
    """

    seq: int
    row_count: int
    first: int
    names: list[str]
    kinds: list[str]
    statuses: list[str]
    columns: OutlineColumns


class Sort(NamedTuple):
    """What the rows of one place in the tree have in common; `name` is a number among the names."""

    kind: int
    name: int


Own: TypeAlias = tuple[int, int, int, int, str | None]
"""What a row has of its own, beside what is inside of it: status, start, end, tokens and cost."""

NOTHING: Own = (NONE, NONE, NONE, 0, None)


class Numbers(NamedTuple):
    """Numbers of rows by the order of making, with one entry more for -1, and the other way round."""

    row_of: "array[int]"
    made_of: "array[int]"


class Columns:
    """The columns of rows in the order in which they are made; `add_up` makes sums of what rows have.

    New rows are in lists until `settle` puts them into the arrays, which are slower to append to. `sort` is a
    number among the sorts, `number` that of an iteration or attempt, 0 where a row is neither.
    Inside of `unsorted` rows, others were made in another order than that of their ranks.
    """

    def __init__(self) -> None:
        self.new: tuple[list[int], ...] = tuple([] for _ in _ARRAYS)
        self.parent = array("i")
        self.sort = array("i")
        self.number = array("i")
        self.attempts = array("i")
        self.position = array("i")
        self.status = array("b")
        self.start = array("q")
        self.end = array("q")
        self.tokens = array("q")
        self.cost: list[str | Decimal | None] = []
        self.unsorted: set[int] = set()
        # Of what is inside of each row the rank of the last one; the first entry is for the top.
        self.last_rank = array("i", [-MOST])

    def __len__(self) -> int:
        return len(self.cost)

    def add(self, parent: int, rank: int, sort: int, number: int) -> int:
        """A further row with nothing of its own; its number in the order of making.

        `rank` is its place among its siblings.
        """
        if rank < self.last_rank[parent + 1]:
            self.unsorted.add(parent)
        else:
            self.last_rank[parent + 1] = rank
        self.last_rank.append(-MOST)
        parents, sorts, numbers, attempts, positions, statuses, starts, ends, tokens = self.new
        parents.append(parent)
        sorts.append(sort)
        numbers.append(number)
        attempts.append(0)
        positions.append(0)
        statuses.append(NONE)
        starts.append(NONE)
        ends.append(NONE)
        tokens.append(0)
        self.cost.append(None)
        return len(self.cost) - 1

    def settle(self) -> None:
        """Puts new rows into the arrays. Raises OverflowError for what is too large for them."""
        for name, values in zip(_ARRAYS, self.new, strict=True):
            getattr(self, name).fromlist(values)
            values.clear()

    def own(self, row: int) -> Own:
        """What a settled row has of its own, before sums are made."""
        cost = self.cost[row]
        assert not isinstance(cost, Decimal)
        return self.status[row], self.start[row], self.end[row], self.tokens[row], cost

    def set_own(self, row: int, own: Own) -> None:
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
            if until == OPEN_END:
                end[row] = NONE
            if isinstance(spent, Decimal):
                cost[row] = format_usd(spent)


_ARRAYS = ("parent", "sort", "number", "attempts", "position", "status", "start", "end", "tokens")


class Outline:
    """The rows of a run in pre-order, as of event `seq`: what is inside of a row follows it.

    `numbers` is None where rows were made in pre-order. `latest_ms` is the last time at which anything began
    or ended.
    """

    def __init__(
        self,
        columns: Columns,
        sorts: Sequence[Sort],
        names: Sequence[str],
        *,
        seq: int,
        latest_ms: int = 0,
        numbers: Numbers | None = None,
    ) -> None:
        self.seq = seq
        self.latest_ms = latest_ms
        self.names = names
        self._columns = columns
        self._kinds = [sort.kind for sort in sorts]
        self._name_numbers = [sort.name for sort in sorts]
        self._row_of = None if numbers is None else numbers.row_of
        self._made_of = None if numbers is None else numbers.made_of

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._columns)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return 1000 + self.row_count * ROW_BYTES // 2 + 200 * len(self.names)

    def values(self, column: str, first: int, count: int) -> list[Any]:
        """The values of so many rows, from row `first` on: `cost` is text or None, all else are numbers."""
        match column:
            case "kind":
                return [self._kinds[sort] for sort in self._made("sort", first, count)]
            case "name":
                return [self._name_numbers[sort] for sort in self._made("sort", first, count)]
            case "index" | "attempt":
                numbers = zip(
                    self.values("kind", first, count), self._made("number", first, count), strict=True
                )
                if column == "index":
                    return [number if kind == ITERATION else NONE for kind, number in numbers]
                return [0 if kind == ITERATION else number for kind, number in numbers]
            case "parent" if self._row_of is not None:
                return [self._row_of[made] for made in self._made("parent", first, count)]
            case "depth":
                return self._depths(first, count)
        return list(self._made(column, first, count))

    def _depths(self, first: int, count: int) -> list[int]:
        depths, above = {NONE: NONE}, [first] if first < self.row_count else []
        while above and (parent := self.values("parent", above[-1], 1)[0]) != NONE:
            above.append(parent)
        depths |= {row: depth for depth, row in enumerate(reversed(above))}
        # A parent is in the page, too, or one of those above its first row.
        for row, parent in enumerate(self.values("parent", first, count), first):
            depths[row] = depths[parent] + 1
        return [depths[row] for row in range(first, min(first + count, self.row_count))]

    def _made(self, column: str, first: int, count: int) -> Iterable[Any]:
        values: Any = getattr(self._columns, column)
        rows = slice(first, min(first + count, self.row_count))
        if self._made_of is None:
            return list(values[rows])
        return map(values.__getitem__, self._made_of[rows])

    def json_parts(self, first: int, count: int) -> Iterator[bytes]:
        """So many rows as JSON, in parts that take a few milliseconds each."""
        about = {
            "seq": self.seq,
            "rowCount": self.row_count,
            "first": first,
            "names": self.names,
            "kinds": KINDS,
            "statuses": STATUSES,
        }
        before = msgspec.json.encode(about)[:-1] + b',"columns":{'
        stop = max(first, min(first + count, self.row_count))
        for column in OutlineColumns.__struct_fields__:
            before += b'"%b":[' % column.encode()
            for start in range(first, stop, SLICE_ROWS):
                values = self.values(column, start, min(SLICE_ROWS, stop - start))
                yield before + msgspec.json.encode(values)[1:-1]
                before = b","
            before = (before if first == stop else b"") + b"],"
        yield before[:-1] + b"}}"
