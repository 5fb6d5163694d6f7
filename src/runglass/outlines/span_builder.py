"""How the outline of a recorded run comes about: of spans, in any order, by what each says is above it.

Spans come as they were received, so what is inside comes before or after what it is inside of, or what that
is never comes. All is worked out once all of them are there, over arrays, without recursion, and in slices
between which the caller can let others have their turn.

More than 300 lines: one pass after the other over the same arrays.
"""

import heapq
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain

import msgspec

from runglass.log.money import add_usd, format_usd
from runglass.outlines.builder import AttemptRow
from runglass.outlines.columns import NEVER, BuiltOutline, Columns, Numbers, number_rows
from runglass.outlines.outline import (
    CUT,
    KINDS,
    NONE,
    ROW_BYTES,
    SLICE_ROWS,
    STATUSES,
    Outline,
    SpanMarks,
)

NOT_RECEIVED = "not received"
"""The name of what is known by its id alone."""
NAME_CHARS = 200
LEVELS = 1000
"""The levels that are shown: what is deeper stands at the last of them."""

_PLACEHOLDER, _OTHER = KINDS.index("placeholder"), KINDS.index("other")
_KIND_OF: dict[str, int] = {name: number for number, name in enumerate(KINDS)}
_STATUS_OF = {name: number for number, name in enumerate(STATUSES)}
_FAILED, _RETRIED = STATUSES.index("failed"), STATUSES.index("retried")
_ON_PATH = -2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_US_PER_MS = 1000
_MOST_TOKENS = 2**53


class _Tokens(msgspec.Struct, frozen=True, gc=False):
    total: float = 0


class _Span(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The part of a step's data that an outline needs."""

    span_id: str
    parent_span_id: str | None = None
    name: str | None = None
    kind: str = "other"
    start_time_unix_nano: str | None = None
    completed_at: datetime | None = None
    tokens: _Tokens | None = None
    cost_usd: str | None = None
    finish_reason: str | None = None
    model_used: str | None = None
    notes: tuple[str, ...] = ()


_span_of = msgspec.json.Decoder(_Span).decode


class SpanOutlineBuilder:
    """Makes the outline of a recorded run: `add` its spans in any order, then `finish`.

    `started_at` is the ISO time from which all others are counted, that of the first span where it is None,
    `seq` the event after which all this is so, and `entry` the id of the run's entry. Of a part of a run no
    span is told to be missing (`is_partial`).
    """

    def __init__(
        self, *, started_at: str | None, seq: int, entry: str | None = None, is_partial: bool = False
    ) -> None:
        self._seq = seq
        self._entry = entry
        self._is_partial = is_partial
        self._origin_us: int | None = None
        if started_at is not None:
            self._origin_us = (datetime.fromisoformat(started_at) - _EPOCH) // _US
        # Times are microseconds since 1970 until all is there. Tokens are -1 where none are told.
        self._columns = Columns()
        self._ids = array("Q")
        self._parent_ids = array("Q")
        self._name_of: dict[tuple[str, str, str | None], int] = {}
        self._noted: list[int] = []
        self._received = 0
        self._cut: list[int] = []
        self._unattributed: dict[int, tuple[int, str | None]] = {}

    def add(self, attempts: Iterable[AttemptRow]) -> None:
        """Takes spans in.

        Raises ValueError, LookupError, TypeError, ArithmeticError, msgspec.MsgspecError for what is none.
        """
        columns, ids, parent_ids, name_of = self._columns, self._ids, self._parent_ids, self._name_of
        cost = columns.cost
        parents, ranks, kinds, names, indexes, numbers, tried, positions, *others = columns.new
        statuses, starts, ends, used = others
        for position, step_id, loop_path, _, status, data in attempts:
            span = _span_of(data)
            ids.append(int(span.span_id, 16))
            parent_ids.append(int(span.parent_span_id, 16) if span.parent_span_id else 0)
            name, model = span.name, span.model_used
            # Cut before they are kept: senders may use any length.
            shown = NOT_RECEIVED if name is None else name[:NAME_CHARS]
            about = shown, step_id, model and model[:NAME_CHARS]
            kinds.append(_PLACEHOLDER if name is None else _KIND_OF[span.kind])
            names.append(name_of.setdefault(about, len(name_of)))
            start = end = NONE
            if span.completed_at is not None:
                start = end = (span.completed_at - _EPOCH) // _US
            if span.start_time_unix_nano is not None:
                start = int(span.start_time_unix_nano) // 1000
                end = max(start, end) if end != NONE else NONE
            if span.finish_reason == CUT:
                self._cut.append(len(cost))
            if span.notes:
                self._noted.append(len(cost))
            parents.append(NONE)
            ranks.append(0)
            indexes.append(int(loop_path))
            numbers.append(1)
            tried.append(1)
            positions.append(position)
            statuses.append(_STATUS_OF[status])
            starts.append(start)
            ends.append(end)
            used.append(NONE if span.tokens is None else int(min(span.tokens.total, _MOST_TOKENS)))
            cost.append(span.cost_usd)
        columns.settle()

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return len(self._columns) * ROW_BYTES

    def finish(self) -> Iterator[Outline | None]:
        """Yields None between two slices of the work, and the outline at the end."""
        columns = self._columns
        self._received = len(columns)
        yield from self._find_parents()
        # Of each row what it is inside of, and below that inside of what it is shown.
        shown = array("i", [NONE]) * len(columns)
        order = array("i")
        cycles = yield from _arrange(columns.parent, self._ids, order=order, shown=shown)
        sizes = array("i", [1]) * len(columns)
        yield from self._add_up(order, shown, sizes)
        columns.parent = shown
        numbers = yield from number_rows(shown, sizes, order=order, key=self._by_start)
        names = [name for name, _, _ in self._name_of]
        first: dict[str, int] = {}
        alike = [first.setdefault(name, number) for number, name in enumerate(names)]
        retry_of = yield from _find_repeated(columns, numbers, order=order, sizes=sizes, alike=alike)
        yield from self._finish_values()
        yield BuiltOutline(
            columns,
            names,
            numbers,
            seq=self._seq,
            latest_ms=max(chain((0,), columns.start, columns.end)),
            cut=self._cut,
            recorded=self._marks(numbers.row_of, cycles, retry_of),
        )

    def _by_start(self, row: int) -> tuple[int, int]:
        start = self._columns.start[row]
        return (start if start != NONE else NEVER), self._ids[row]

    def _find_parents(self) -> Iterator[None]:
        """Finds the row of each parent; one that was not received gets a row.

        Ids are shared out, so that there are a few thousand in memory as objects at a time, and not all.
        """
        ids, parent_ids, columns = self._ids, self._parent_ids, self._columns
        parents, count = columns.parent, self._received // SLICE_ROWS + 1
        present, wanted = ([array("i") for _ in range(count)] for _ in range(2))
        for first in range(0, self._received, SLICE_ROWS):
            for row in range(first, min(first + SLICE_ROWS, self._received)):
                present[ids[row] % count].append(row)
                if parent_ids[row]:
                    wanted[parent_ids[row] % count].append(row)
            yield
        for rows, children in zip(present, wanted, strict=True):
            found = {ids[row]: row for row in rows}
            for at, row in enumerate(children, 1):
                if not at % SLICE_ROWS:
                    yield
                parent = found.get(parent_ids[row])
                if parent is None and not self._is_partial:
                    name = self._name_of.setdefault((NOT_RECEIVED, "", None), len(self._name_of))
                    parent = found[parent_ids[row]] = columns.add(NONE, 0, _PLACEHOLDER, name)
                    ids.append(parent_ids[row])
                    columns.settle()
                    columns.tokens[parent] = NONE
                parents[row] = NONE if parent is None else parent
            yield

    def _add_up(self, order: "array[int]", shown: "array[int]", sizes: "array[int]") -> Iterator[None]:
        """Sums by the leaf rule, what parents tell beyond them, and the sizes of what is shown."""
        columns, received = self._columns, self._received
        parents, start, end = columns.parent, columns.start, columns.end
        tokens, cost = columns.tokens, columns.cost
        is_told_below = bytearray(len(order))
        tokens_below = array("q", bytes(8 * len(order)))
        cost_below: dict[int, Decimal] = {}
        for at in range(len(order) - 1, -1, -1):
            row = order[at]
            parent, used, spent = parents[row], tokens[row], cost[row]
            if is_told_below[row]:
                self._note_unattributed(row, tokens_below[row], cost_below.get(row, Decimal()))
                used, spent = tokens_below[row], cost_below.pop(row, None)
                cost[row] = None if spent is None else format_usd(spent)
            is_told = used != NONE or spent is not None
            tokens[row] = used = max(used, 0)
            if shown[row] != NONE:
                sizes[shown[row]] += sizes[row]
            if parent != NONE:
                if is_told:
                    is_told_below[parent] = True
                    tokens_below[parent] = min(tokens_below[parent] + used, _MOST_TOKENS)
                    if spent is not None:
                        cost_below[parent] = add_usd(cost_below.get(parent, Decimal()), Decimal(spent))
                if parent >= received and start[row] != NONE:
                    start[parent] = min(start[row], start[parent]) if start[parent] != NONE else start[row]
                    end[parent] = max(end[parent], end[row] if end[row] != NONE else NEVER)
            if end[row] == NEVER:
                end[row] = NONE
            if not at % SLICE_ROWS:
                yield

    def _note_unattributed(self, row: int, tokens_below: int, cost_below: Decimal) -> None:
        more, spent = self._columns.tokens[row] - tokens_below, self._columns.cost[row]
        more_spent = Decimal(0 if spent is None else spent) - cost_below
        if more > 0 or more_spent > 0:
            usd = format_usd(more_spent) if more_spent > 0 else None
            self._unattributed[row] = max(more, 0), usd

    def _finish_values(self) -> Iterator[None]:
        """Makes milliseconds since the start of the run of all times, and gives placeholders their status."""
        columns = self._columns
        shown, status = columns.parent, columns.status
        origin_us = self._origin_us
        if origin_us is None:
            origin_us = min((start for start in columns.start if start != NONE), default=0)
            yield
        origin_us -= origin_us % _US_PER_MS

        def counted(at_us: int) -> int:
            return NONE if at_us == NONE else max(0, (at_us - origin_us) // _US_PER_MS)

        for first in range(0, len(columns), SLICE_ROWS):
            for column in (columns.start, columns.end):
                times = column[first : first + SLICE_ROWS]
                column[first : first + SLICE_ROWS] = array("q", map(counted, times))
            for row in range(first, min(first + SLICE_ROWS, self._received)):
                if shown[row] >= self._received:
                    status[shown[row]] = max(status[shown[row]], status[row])
            yield

    def _marks(self, row_of: "array[int]", cycles: list[int], retry_of: list[tuple[int, int]]) -> SpanMarks:
        context, row = [], NONE
        if self._entry is not None and int(self._entry, 16) in self._ids:
            row = self._columns.parent[self._ids.index(int(self._entry, 16))]
        while row != NONE:
            if self._columns.kind[row] == _OTHER:
                context.append(row_of[row])
            row = self._columns.parent[row]
        return SpanMarks(
            step_ids=[step_id for _, step_id, _ in self._name_of],
            models=[model for _, _, model in self._name_of],
            noted=sorted(row_of[row] for row in self._noted),
            cycles=sorted(row_of[row] for row in cycles),
            context=sorted(context),
            retry_of=sorted((row_of[row], row_of[earlier]) for row, earlier in retry_of),
            unattributed=sorted((row_of[row], *told) for row, told in self._unattributed.items()),
        )


def _arrange(
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


def _find_repeated(
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
    for at, parent in enumerate(chain((NONE,), order) if _FAILED in status else (), 1):
        if not at % SLICE_ROWS:
            yield
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
