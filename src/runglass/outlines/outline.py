"""The outline of a run: a row for each thing that it did, in pre-order, without what went in and out.

Rows are kept as columns, since objects would take ten times the memory. Nothing here knows flows, stores and
HTTP: `builder.py` makes outlines of attempts, whatever program these are of.

An outline is stored in parts, of which each has some thousands of rows: the text of each column by itself,
compressed, a tenth of what the columns take in memory. What is asked for is unpacked each time, in some
milliseconds for a part.
"""

import zlib
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

Kind: TypeAlias = Literal["step", "loop", "parallel", "condition", "iteration", "branch", "attempt"]

KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES = ("skipped", "completed", "retried", "cancelled", "waiting", "running", "failed")
"""Each is worse than the ones before it."""
SLICE_ROWS = 16_384
"""Rows that are worked on in one go: 5 to 30 ms."""
ROW_BYTES = 160
"""About what a row takes while an outline is made; half of that is kept."""

CUT = "length"
"""The finish reason of a model that was stopped at its limit of tokens."""

ITERATION, ATTEMPT = KINDS.index("iteration"), KINDS.index("attempt")

NONE = -1


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

    A `partial` outline has the beginning and the end of the run, and was asked for as such. Of `statuses`
    each is worse than the ones before it; a row that holds others has the worst of theirs.
    `cut` are the rows whose model was stopped at its limit of tokens.
    """

    seq: int
    row_count: int
    first: int
    names: list[str]
    kinds: list[str]
    statuses: list[str]
    columns: OutlineColumns
    partial: bool = False
    cut: list[int] = []

    def __str__(self) -> str:
        """The rows as an indented tree: `correct  failed, attempt 2, 842 ms, 120 tokens, $0.00003`."""
        lines = [self._line(row) for row in range(len(self.columns.parent))]
        if more := self.row_count - self.first - len(lines):
            lines.append(f"… {more:,} more rows")
        return "\n".join(lines)

    def _line(self, row: int) -> str:
        columns = self.columns
        kind, index, attempt = self.kinds[columns.kind[row]], columns.index[row], columns.attempt[row]
        start, end = columns.start[row], columns.end[row]
        facts = [
            self.statuses[columns.status[row]],
            f"attempt {attempt}" if kind == "attempt" else "",
            f"{end - start:,} ms" if NONE not in (start, end) else "",
            f"{columns.tokens[row]:,} tokens" if columns.tokens[row] else "",
            f"${columns.cost[row]}" if columns.cost[row] else "",
        ]
        name = self.names[columns.name[row]] if index == NONE else f"[{index}]"
        return f"{'  ' * columns.depth[row]}{name}  {', '.join(filter(None, facts))}"


class Outline(ABC):
    """The rows of a run in pre-order, as of event `seq`: what is inside of a row follows it.

    `latest_ms` is the last time at which anything began or ended. `cut` are the rows of attempts whose model
    was stopped at its limit of tokens, in their order.
    """

    def __init__(
        self, names: Sequence[str], *, seq: int, latest_ms: int, row_count: int, cut: Sequence[int] = ()
    ) -> None:
        self.names = names
        self.cut = cut
        self.seq = seq
        self.latest_ms = latest_ms
        self.row_count = row_count

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """About how much memory it takes."""

    @abstractmethod
    def values(self, column: str, first: int, count: int) -> list[Any]:
        """The values of so many rows, from row `first` on: `cost` is text or None, all else are numbers."""

    def json_parts(self, first: int, count: int, *, partial: bool = False) -> Iterator[bytes]:
        """So many rows as JSON, in parts that take a few milliseconds each."""
        about: dict[str, Any] = {
            "partial": partial,
            "seq": self.seq,
            "rowCount": self.row_count,
            "first": first,
            "names": self.names,
            "kinds": KINDS,
            "statuses": STATUSES,
        }
        stop = max(first, min(first + count, self.row_count))
        about["cut"] = self.cut[bisect_left(self.cut, first) : bisect_left(self.cut, stop)]
        before = msgspec.json.encode(about)[:-1] + b',"columns":{'
        for column in OutlineColumns.__struct_fields__:
            before += b'"%b":[' % column.encode()
            for start in range(first, stop, SLICE_ROWS):
                values = self.values(column, start, min(SLICE_ROWS, stop - start))
                yield before + msgspec.json.encode(values)[1:-1]
                before = b","
            before = (before if first == stop else b"") + b"],"
        yield before[:-1] + b"}}"


PACKED_VERSION = 3
"""Goes up where the same run would have another outline than before, or its parts another form.

A migration then makes the outlines due again that are kept: else each is made anew when it is opened first.
"""
COLUMNS = {name: number for number, name in enumerate(OutlineColumns.__struct_fields__)}

_int_list = msgspec.json.Decoder(list[int]).decode
_cost_list = msgspec.json.Decoder(list[str | None]).decode
_columns_of = msgspec.msgpack.Decoder(list[bytes]).decode


class PackedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a packed outline, without rows. `nodes` is a digest of the nodes that it was made with."""

    version: int
    nodes: str
    seq: int
    latest_ms: int
    row_count: int
    names: list[str]
    cut: list[int]


def pack(outline: Outline, *, nodes: str) -> Iterator[bytes]:
    """The parts with the rows, in their order, and then the head; each takes some tens of milliseconds."""
    for first in range(0, outline.row_count, SLICE_ROWS):
        texts = (msgspec.json.encode(outline.values(name, first, SLICE_ROWS)) for name in COLUMNS)
        yield msgspec.msgpack.encode([zlib.compress(text) for text in texts])
    yield msgspec.json.encode(
        PackedHead(
            version=PACKED_VERSION,
            nodes=nodes,
            seq=outline.seq,
            latest_ms=outline.latest_ms,
            row_count=outline.row_count,
            names=list(outline.names),
            cut=list(outline.cut),
        )
    )


def unpack(head: bytes, parts: Sequence[bytes], *, nodes: str) -> Outline | None:
    """The outline that was packed; None where it was of another version, or with other nodes.

    Raises msgspec.MsgspecError, ValueError for parts that are none.
    """
    about = msgspec.json.decode(head)
    if about["version"] != PACKED_VERSION or about["nodes"] != nodes:
        return None
    return PackedOutline(msgspec.convert(about, PackedHead), parts)


def is_of_version_before(head: bytes) -> bool:
    """Whether an older program packed this one, as it may beside this program. Raises as `unpack` does."""
    version: int = msgspec.json.decode(head)["version"]
    return version < PACKED_VERSION


class PackedOutline(Outline):
    """An outline that stays packed."""

    def __init__(self, head: PackedHead, parts: Sequence[bytes]) -> None:
        super().__init__(
            head.names, seq=head.seq, latest_ms=head.latest_ms, row_count=head.row_count, cut=head.cut
        )
        self._parts = [_columns_of(part) for part in parts]
        self._size_bytes = sum(map(len, parts))
        wanted = -(-head.row_count // SLICE_ROWS)
        if len(self._parts) != wanted or any(len(part) != len(COLUMNS) for part in self._parts):
            raise ValueError(f"a packed outline of {head.row_count} rows has {len(self._parts)} parts")

    @property
    def size_bytes(self) -> int:
        return 1000 + self._size_bytes + 200 * len(self.names) + 8 * len(self.cut)

    def values(self, column: str, first: int, count: int) -> list[Any]:
        stop = min(first + count, self.row_count)
        decode: Any = _cost_list if column == "cost" else _int_list
        found: list[Any] = []
        while first < stop:
            number, skipped = divmod(first, SLICE_ROWS)
            until = min(stop - number * SLICE_ROWS, SLICE_ROWS)
            found += decode(zlib.decompress(self._parts[number][COLUMNS[column]]))[skipped:until]
            first = (number + 1) * SLICE_ROWS
        return found


STEP = KINDS.index("step")
_COLUMNS = (
    *("parent", "depth", "kind", "name", "index", "attempt", "status", "start", "end"),
    *("tokens", "cost", "position", "attempts"),
)


class TreeRow(NamedTuple):
    """A row. `start` and `end` are milliseconds since the run's start; None where there is none yet.

    `position` and `attempt` name the attempt whose data a row shows; `position` is 0 where it shows none.
    """

    number: int
    parent: int
    depth: int
    kind: Kind
    name: str
    iteration: int
    attempt: int
    status: str
    start: int | None
    end: int | None
    tokens: int
    cost_usd: str | None
    position: int

    @property
    def label(self) -> str:
        """The row in words, below those that it is inside of: `each[3]`, `attempt 2`, or the step."""
        match self.kind:
            case "iteration":
                return f"{self.name}[{self.iteration}]"
            case "attempt":
                return f"attempt {self.attempt}"
        return self.name


def tree_rows(outline: Outline, first: int, count: int) -> Iterator[TreeRow]:
    """So many rows from row `first` on, in pre-order."""
    values = zip(*(outline.values(column, first, count) for column in _COLUMNS), strict=True)
    for number, row in enumerate(values, first):
        parent, depth, kind, name, index, attempt, status, start, end, tokens, cost, position, attempts = row
        yield TreeRow(
            number=number,
            parent=parent,
            depth=depth,
            kind=KINDS[kind],
            name=outline.names[name],
            iteration=index,
            attempt=attempt,
            status=STATUSES[status],
            start=None if start == NONE else start,
            end=None if end == NONE else end,
            tokens=tokens,
            cost_usd=cost,
            # Where there were several, each has a row of its own below that of the step.
            position=0 if kind == STEP and attempts > 1 else position,
        )
