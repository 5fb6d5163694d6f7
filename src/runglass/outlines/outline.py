"""The outline of a run: a row for each thing that it did, in pre-order, without what went in and out.

Rows are kept as columns, since objects would take ten times the memory. Nothing here knows flows, stores and
HTTP: `builder.py` makes outlines of attempts, whatever program these are of.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from runglass.log.span_state import SpanKind

Kind: TypeAlias = Literal[
    "step", "loop", "parallel", "condition", "iteration", "branch", "attempt", SpanKind, "placeholder"
]
"""A placeholder is a span of which it is known by others that there is one."""

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


class SpanMarks(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the outline of a recorded run tells beside its columns.

    `step_ids` and `models` have the step id, and the model where there is one, for each of the outline's
    names. `context` are rows above the run's entry that are of no generative AI, `cycles` those above which
    a cycle was cut, `noted` those whose steps have notes. `retry_of` has rows that probably repeat another,
    each with that one: it failed before they began, and has the same parent, name and kind. `unattributed`
    has row, tokens and cost of what rows tell beyond the rows inside of them, which no sum has.
    """

    step_ids: Sequence[str] = ()
    models: Sequence[str | None] = ()
    context: Sequence[int] = ()
    cycles: Sequence[int] = ()
    noted: Sequence[int] = ()
    retry_of: Sequence[tuple[int, int]] = ()
    unattributed: Sequence[tuple[int, int, str | None]] = ()

    def within(self, first: int, stop: int, names: Iterable[int]) -> "SpanMarks":
        """Those of these rows and names alone."""

        def part(marks: Sequence[Any], key: Any = None) -> Sequence[Any]:
            return marks[bisect_left(marks, first, key=key) : bisect_left(marks, stop, key=key)]

        row = itemgetter(0)
        return SpanMarks(
            step_ids=[self.step_ids[name] for name in names],
            models=[self.models[name] for name in names],
            context=part(self.context),
            cycles=part(self.cycles),
            noted=part(self.noted),
            retry_of=part(self.retry_of, row),
            unattributed=part(self.unattributed, row),
        )


class OutlinePage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Rows of the outline of a run, as of event `seq`, from row `first` on. `row_count` is that of all.

    A `partial` outline has the beginning and the end of the run, and was asked for as such. Of `statuses`
    each is worse than the ones before it; a row that holds others has the worst of theirs.
    `cut` are the rows whose model was stopped at its limit of tokens. That of a recorded run has `recorded`:
    each of its rows is a span, its `index` the one of `loop_path`, and its status, start and end are its own.
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
    recorded: SpanMarks | None = None

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
        name = self.names[columns.name[row]]
        if self.recorded is not None:
            name += f" [{index}]" if index > 0 else ""
        elif index != NONE:
            name = f"[{index}]"
        return f"{'  ' * columns.depth[row]}{name}  {', '.join(filter(None, facts))}"


@dataclass(eq=False)
class Outline(ABC):
    """The rows of a run in pre-order, as of event `seq`: what is inside of a row follows it.

    `latest_ms` is the last time at which anything began or ended. `cut` are the rows of attempts whose model
    was stopped at its limit of tokens, in their order.
    """

    names: Sequence[str]
    _: KW_ONLY
    seq: int
    latest_ms: int
    row_count: int
    cut: Sequence[int] = ()
    recorded: SpanMarks | None = None

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
        # Spans may have as many names as there are rows: a page has those of its own.
        names: dict[int, int] = {}
        if self.recorded is not None:
            for start in range(first, stop, SLICE_ROWS):
                for name in self.values("name", start, min(SLICE_ROWS, stop - start)):
                    names.setdefault(name, len(names))
                yield b""
            about["names"] = [self.names[name] for name in names]
            about["recorded"] = self.recorded.within(first, stop, names)
        before = msgspec.json.encode(about)[:-1] + b',"columns":{'
        for column in OutlineColumns.__struct_fields__:
            before += b'"%b":[' % column.encode()
            for start in range(first, stop, SLICE_ROWS):
                values = self.values(column, start, min(SLICE_ROWS, stop - start))
                if column == "name" and self.recorded is not None:
                    values = [names[name] for name in values]
                yield before + msgspec.json.encode(values)[1:-1]
                before = b","
            before = (before if first == stop else b"") + b"],"
        yield before[:-1] + b"}}"


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
