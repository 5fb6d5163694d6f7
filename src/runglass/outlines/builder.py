"""How the outline of a run comes about: of its attempts, and of links that say what stands inside of what.

The links are `Node`s, which a flow gives and traces of other programs can give. All that takes long is done
in slices, between which the caller can let others have their turn.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import repeat, starmap
from typing import NamedTuple, TypeAlias

import msgspec

from runglass.errors import is_cancellation_json
from runglass.outlines.columns import (
    MAX_ROWS,
    NEVER,
    NO_VALUES,
    BuiltOutline,
    Columns,
    RowValues,
    number_rows,
)
from runglass.outlines.outline import (
    ATTEMPT,
    CUT,
    ITERATION,
    KINDS,
    NONE,
    ROW_BYTES,
    SLICE_ROWS,
    STATUSES,
    Kind,
    Outline,
)

_MS = timedelta(milliseconds=1)
_STATUS = {name: number for number, name in enumerate(STATUSES)}
_RETRIED, _CANCELLED, _WAITING = _STATUS["retried"], _STATUS["cancelled"], _STATUS["waiting"]
_FAILED = _STATUS["failed"]
_LOOP = KINDS.index("loop")


class Node(NamedTuple):
    """A location in the tree. `parent` is the number of a node before it, -1 at the top.

    What stands inside of a loop is there once for each iteration. `id` is what attempts call it by, None for
    a branch, of which there are none.
    """

    id: str | None
    name: str
    kind: Kind
    parent: int


AttemptRow: TypeAlias = tuple[int, str, str, int, str, bytes]
"""An attempt: position, step id, loop path, number, status, and its StepTrace as JSON.

The position is that of its step and iteration by first start. The loop path has the iterations around it,
outermost first, as in `3,0`.
"""


class _Tokens(msgspec.Struct, frozen=True, gc=False):
    total: float = 0


class _Facts(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The part of an attempt's data that an outline needs; all else is passed over, and not decoded."""

    started_at: datetime | None = None
    completed_at: datetime | None = None
    tokens: _Tokens | None = None
    cost_usd: str | None = None
    error_context: msgspec.Raw = msgspec.Raw()
    finish_reason: str | None = None


_facts_of = msgspec.json.Decoder(_Facts).decode
_NO_LEAF: tuple[int, dict[str, int]] = (NONE, {})


class OutlineBuilder:
    """Makes an outline: `add` attempts in order of position and number, then `finish`.

    `started_at` is the ISO time from which all others are counted, `seq` the event after which all this is
    so. Attempts that run are waiting where the run `is_paused`. A step of which no node tells, or that is in
    more loops than its node, stands at the top, inside of loops of its name.
    """

    def __init__(
        self, nodes: Iterable[Node], *, started_at: str | None, seq: int, is_paused: bool = False
    ) -> None:
        # Of each node its parent, the loops around what is inside of it, itself included, its kind and name.
        self._parents: list[int] = []
        self._loops: list[int] = []
        self._kinds: list[int] = []
        self._name_of: list[int] = []
        self._number_of: dict[str, int] = {}
        self._beyond: dict[tuple[str, int], int] = {}
        self._names: dict[str, int] = {}
        self._has_inner: set[int] = set()
        # By node and loop path the rows of containers and of iterations: the path of these is one longer.
        self._rows: dict[int, dict[str, int]] = {NONE: {"": NONE}}
        for node in nodes:
            number = self._add_node(node)
            if node.id is not None:
                self._number_of[node.id] = number
        # Of each step that holds no others its node, and the rows inside of which it is by loop path.
        self._leaves = {
            step_id: (number, self._rows[self._parents[number]])
            for step_id, number in self._number_of.items()
            if number not in self._has_inner
        }
        self._started_at = None if started_at is None else datetime.fromisoformat(started_at)
        self._seq = seq
        self._status = _STATUS | ({"running": _WAITING} if is_paused else {})
        self._columns = Columns()
        self._position = self._latest_ms = 0
        self._step = self._attempt = NONE
        self._cut: list[int] = []

    def add(self, attempts: Iterable[AttemptRow]) -> None:
        """Takes attempts in.

        Raises ValueError, LookupError, TypeError, ArithmeticError, msgspec.MsgspecError for one that is none.
        """
        columns, status_of, started_at, leaves = self._columns, self._status, self._started_at, self._leaves
        kind_of, name_of, cost = self._kinds, self._name_of, columns.cost
        parents, ranks, kinds, names, indexes, numbers, tried, positions, *others = columns.new
        statuses, starts, ends, used = others
        for position, step_id, loop_path, attempt, status, data in attempts:
            facts = _facts_of(data)
            start, end = NONE, NONE
            if facts.started_at is not None:
                # A clock may have been set back meanwhile.
                start = (facts.started_at - started_at) // _MS if started_at else 0
                start = start if start > 0 else 0
                end = NEVER
                if facts.completed_at is not None:
                    end = start + (facts.completed_at - facts.started_at) // _MS
                    end = end if end > start else start
                latest = start if end == NEVER else end
                if latest > self._latest_ms:
                    self._latest_ms = latest
            # Old logs have what a provider told: fractions, and more than columns take.
            tokens = int(min(facts.tokens.total, 2**53)) if facts.tokens else 0
            number_of_status = status_of[status]
            if number_of_status == _FAILED and is_cancellation_json(bytes(facts.error_context)):
                number_of_status = _CANCELLED
            if position == self._position:
                self._add_attempt(attempt, (number_of_status, start, end, tokens, facts.cost_usd))
                if facts.finish_reason == CUT:
                    self._cut.append(self._attempt)
                continue
            self._position = position
            number, rows = leaves.get(step_id, _NO_LEAF)
            parent = rows.get(loop_path)
            if parent is None:
                number, parent, depth = self._location_of(step_id, loop_path)
                if number in self._has_inner:
                    own = number_of_status, start, end, tokens, facts.cost_usd
                    # The first attempt of what holds others is that of its row.
                    row = self._step = self._attempt = self._inside(number, loop_path, depth)
                    columns.settle()
                    columns.attempt[row], columns.attempts[row], columns.position[row] = attempt, 1, position
                    columns.set_own(row, own)
                    continue
            self._step = self._attempt = len(cost)
            if facts.finish_reason == CUT:
                self._cut.append(self._step)
            # As in `Columns.add`: a call for each attempt would take as long as all of this.
            parents.append(parent)
            ranks.append(number)
            kinds.append(kind_of[number])
            names.append(name_of[number])
            indexes.append(NONE)
            numbers.append(attempt)
            tried.append(1)
            positions.append(position)
            statuses.append(number_of_status)
            starts.append(start)
            ends.append(end)
            used.append(tokens)
            cost.append(facts.cost_usd)
        columns.settle()

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return len(self._columns) * ROW_BYTES

    def finish(self) -> Iterator[Outline | None]:
        """Yields None between two slices of the work, and the outline at the end."""
        columns = self._columns
        # Some at a time: all of a long run at once would hold up every other thread.
        for rows in self._rows.values():
            while rows:
                deque(starmap(rows.popitem, repeat((), min(SLICE_ROWS, len(rows)))), maxlen=0)
                yield None
        sizes = array("i", [1]) * len(columns)
        for stop in range(len(columns), 0, -SLICE_ROWS):
            columns.add_up(range(stop - 1, max(stop - SLICE_ROWS, 0) - 1, -1), sizes)
            yield None
        order, key = range(len(columns)), columns.rank.__getitem__
        numbers = yield from number_rows(columns.parent, sizes, order=order, key=key)
        about = columns, list(self._names), numbers
        yield BuiltOutline(*about, seq=self._seq, latest_ms=self._latest_ms, cut=self._cut)

    def _location_of(self, step_id: str, loop_path: str) -> tuple[int, int, int]:
        """The node of a step, the row inside of which it is in these iterations, and how many these are."""
        number = self._number_of.get(step_id)
        parent = NONE if number is None else self._parents[number]
        depth = loop_path.count(",") + 1 if loop_path else 0
        if number is None or depth > (0 if parent == NONE else self._loops[parent]):
            number = self._beyond.get((step_id, depth))
            if number is None:
                parent = NONE
                for _ in range(depth):
                    parent = self._add_node(Node(None, step_id, "loop", parent))
                number = self._beyond[step_id, depth] = self._add_node(Node(step_id, step_id, "step", parent))
            parent = self._parents[number]
        return number, self._inside(parent, loop_path, depth), depth

    def _add_attempt(self, attempt: int, own: RowValues) -> None:
        """One more attempt of the newest step, of which the first one gets a row of its own now, too."""
        columns, step = self._columns, self._step
        columns.settle()
        if self._attempt == step:
            first = columns.attempt[step]
            self._attempt = self._add_row_of_attempt(step, first, columns.own(step))
            columns.set_own(step, NO_VALUES)
            if self._cut and self._cut[-1] == step:
                self._cut[-1] = self._attempt
        if columns.status[self._attempt] in (_CANCELLED, _FAILED):
            columns.status[self._attempt] = _RETRIED
        self._attempt = self._add_row_of_attempt(step, attempt, own)
        columns.attempt[step] = attempt
        columns.attempts[step] += 1

    def _add_row_of_attempt(self, step: int, attempt: int, own: RowValues) -> int:
        columns = self._columns
        # Before what is inside of the step.
        row = columns.add(step, attempt - MAX_ROWS, ATTEMPT, columns.name[step])
        columns.settle()
        columns.attempt[row], columns.position[row] = attempt, self._position
        columns.set_own(row, own)
        return row

    def _inside(self, number: int, loop_path: str, depth: int) -> int:
        """The row inside of which a node's children are in these iterations, which are so many.

        It is that of the node itself where these are fewer than the loops around the children, as for a step
        that was skipped.
        """
        rows = self._rows[number]
        row = rows.get(loop_path)
        if row is not None:
            return row
        if self._kinds[number] == _LOOP and depth == self._loops[number]:
            outer_path, _, text = loop_path.rpartition(",")
            index = int(text)
            if not 0 <= index < MAX_ROWS or str(index) != text:
                raise ValueError(f"there is no iteration {text!r}")
            loop = self._inside(number, outer_path, depth - 1)
            row = self._columns.add(loop, index, ITERATION, self._name_of[number], index)
        else:
            parent = self._inside(self._parents[number], loop_path, depth)
            row = self._columns.add(parent, number, self._kinds[number], self._name_of[number])
        rows[loop_path] = row
        return row

    def _add_node(self, node: Node) -> int:
        number, loops = len(self._parents), 0
        if node.parent != NONE:
            loops = self._loops[node.parent]
            self._has_inner.add(node.parent)
        self._parents.append(node.parent)
        self._kinds.append(KINDS.index(node.kind))
        self._name_of.append(self._names.setdefault(node.name, len(self._names)))
        self._loops.append(loops + (node.kind == "loop"))
        self._rows[number] = {}
        return number
