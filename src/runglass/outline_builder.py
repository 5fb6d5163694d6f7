"""How the outline of a run comes about: of its attempts, and of links that say what stands inside of what.

The links are `Node`s, which a flow gives and traces of other programs can give. All that takes long is done
in slices, between which the caller can let others have their turn.
"""

from array import array
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

import msgspec

from runglass.outline import (
    ATTEMPT,
    ITERATION,
    KINDS,
    MOST,
    NONE,
    NOTHING,
    OPEN_END,
    ROW_BYTES,
    SLICE_ROWS,
    STATUSES,
    Columns,
    Kind,
    Outline,
    Own,
    Sort,
)
from runglass.row_numbers import number_rows

_MS = timedelta(milliseconds=1)
_STATUS = {name: number for number, name in enumerate(STATUSES)}
_RETRIED, _WAITING, _FAILED = _STATUS["retried"], _STATUS["waiting"], _STATUS["failed"]
_SORTS, _ITERATION, _ATTEMPT = 3, 1, 2
"""Each node has so many sorts of rows: its own, those of its iterations, and those of its attempts."""


class Node(NamedTuple):
    """A place in the tree. `parent` is the number of a node before it, -1 at the top.

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
    total: int = 0


class _Facts(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What an outline needs of an attempt's data; all else is passed over, and not decoded."""

    started_at: datetime | None = None
    completed_at: datetime | None = None
    tokens: _Tokens | None = None
    cost_usd: str | None = None


_facts_of = msgspec.json.Decoder(_Facts).decode


class OutlineBuilder:
    """Makes an outline: `add` attempts in order of position and number, then `finish`.

    `started_at` is the ISO time from which all others are counted, `seq` the event after which all this is
    so. Attempts that run are waiting where the run `is_paused`. A step of which no node tells, or that is in
    more loops than its node, stands at the top, inside of loops of its name.
    """

    def __init__(
        self, nodes: Iterable[Node], *, started_at: str | None, seq: int, is_paused: bool = False
    ) -> None:
        # Of each node its parent, the loops around what is inside of it, itself included, and if it is one.
        self._parents: list[int] = []
        self._loops: list[int] = []
        self._is_loop: list[bool] = []
        self._number_of: dict[str, int] = {}
        self._beyond: dict[tuple[str, int], int] = {}
        self._sorts: list[Sort] = []
        self._names: dict[str, int] = {}
        self._has_inner: set[int] = set()
        for node in nodes:
            number = self._add_node(node)
            if node.id is not None:
                self._number_of[node.id] = number
        self._started_at = None if started_at is None else datetime.fromisoformat(started_at)
        self._seq = seq
        self._status = _STATUS | ({"running": _WAITING} if is_paused else {})
        self._columns = Columns()
        self._containers: dict[int, int] = {}
        self._newest: dict[int, tuple[str, int]] = {NONE: ("", NONE)}
        self._position = self._latest_ms = 0
        self._step = self._attempt = NONE

    def add(self, attempts: Iterable[AttemptRow]) -> None:
        """Takes attempts in.

        Raises ValueError, LookupError, TypeError, ArithmeticError, msgspec.MsgspecError for one that is none.
        """
        status_of, started_at = self._status, self._started_at
        for position, step_id, loop_path, attempt, status, data in attempts:
            facts = _facts_of(data)
            start, end = NONE, NONE
            if facts.started_at is not None:
                # A clock may have been set back meanwhile.
                start = (facts.started_at - started_at) // _MS if started_at else 0
                start = start if start > 0 else 0
                end = OPEN_END
                if facts.completed_at is not None:
                    end = start + (facts.completed_at - facts.started_at) // _MS
                    end = end if end > start else start
                latest = start if end == OPEN_END else end
                if latest > self._latest_ms:
                    self._latest_ms = latest
            tokens = facts.tokens.total if facts.tokens else 0
            own = status_of[status], start, end, tokens, facts.cost_usd
            if position == self._position:
                self._add_attempt(attempt, own)
            else:
                self._position = position
                self._step = self._attempt = self._add_step(step_id, loop_path, attempt, own)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return len(self._columns) * ROW_BYTES

    def finish(self) -> Iterator[Outline | None]:
        """Yields None between two slices of the work, and the outline at the end."""
        columns, count = self._columns, len(self._columns)
        self._containers.clear()
        sizes = array("i", [1]) * count
        for stop in range(count, 0, -SLICE_ROWS):
            columns.add_up(range(stop - 1, max(stop - SLICE_ROWS, 0) - 1, -1), sizes)
            yield None
        numbers = yield from number_rows(columns.parent, sizes, unsorted=columns.unsorted, rank=self._rank)
        about = columns, self._sorts, list(self._names)
        yield Outline(*about, seq=self._seq, latest_ms=self._latest_ms, numbers=numbers)

    def _add_step(self, step_id: str, loop_path: str, attempt: int, own: Own) -> int:
        """The row of a step in an iteration, with its first attempt."""
        number = self._number_of.get(step_id)
        parent = NONE if number is None else self._parents[number]
        newest = self._newest.get(parent)
        if number is None or newest is None or newest[0] != loop_path:
            depth = loop_path.count(",") + 1 if loop_path else 0
            if number is None or depth > (self._loops[parent] if parent != NONE else 0):
                number = self._beyond.get((step_id, depth))
                if number is None:
                    number = self._add_unknown(step_id, depth)
                parent = self._parents[number]
            newest = loop_path, self._inside(parent, loop_path, depth)
        if number not in self._has_inner:
            row = self._columns.add(newest[1], number, number * _SORTS, attempt, 1, own)
            self._columns.position[row] = self._position
            return row
        row = self._inner(newest[1], number)
        self._columns.position[row] = self._position
        self._columns.number[row], self._columns.attempts[row] = attempt, 1
        self._columns.set_own(row, own)
        return row

    def _add_attempt(self, attempt: int, own: Own) -> None:
        """One more attempt of the newest step, of which the first one gets a row of its own now, too."""
        columns, step = self._columns, self._step
        sort = columns.sort[step] + _ATTEMPT
        if self._attempt == step:
            first = columns.number[step]
            self._attempt = self._columns.add(step, first - MOST, sort, first, 0, columns.own(step))
            columns.position[self._attempt] = self._position
            columns.set_own(step, NOTHING)
        if columns.status[self._attempt] == _FAILED:
            columns.status[self._attempt] = _RETRIED
        self._attempt = self._columns.add(step, attempt - MOST, sort, attempt, 0, own)
        columns.position[self._attempt] = self._position
        columns.number[step] = attempt
        columns.attempts[step] += 1

    def _inside(self, number: int, loop_path: str, depth: int) -> int:
        """The row inside of which a node's children are in these iterations, which are so many."""
        if number == NONE:
            return NONE
        newest = self._newest.get(number)
        if newest is not None and newest[0] == loop_path:
            return newest[1]
        outer = self._parents[number]
        # A step that was skipped is in fewer iterations than there are loops around it.
        if self._is_loop[number] and depth == self._loops[number]:
            outer_path, _, index = loop_path.rpartition(",")
            loop = self._inner(self._inside(outer, outer_path, depth - 1), number)
            row = self._iteration(loop, number, int(index))
        else:
            row = self._inner(self._inside(outer, loop_path, depth), number)
        self._newest[number] = loop_path, row
        return row

    def _inner(self, parent: int, number: int) -> int:
        """The row of a container, made where there is none yet."""
        key = (parent + 1) * 2 * MOST + number
        row = self._containers.get(key)
        if row is None:
            row = self._containers[key] = self._columns.add(parent, number, number * _SORTS, 0, 0, NOTHING)
        return row

    def _iteration(self, loop: int, number: int, index: int) -> int:
        """The row of an iteration, made where there is none yet."""
        if not 0 <= index < MOST:
            raise ValueError(f"there is no iteration {index}")
        key = (loop + 1) * 2 * MOST + MOST + index
        row = self._containers.get(key)
        if row is None:
            row = self._columns.add(loop, index, number * _SORTS + _ITERATION, index, 0, NOTHING)
            self._containers[key] = row
        return row

    def _rank(self, row: int) -> int:
        """Where a row stands among its siblings: its own attempts first, then what is inside of it."""
        number, kind = divmod(self._columns.sort[row], _SORTS)
        if kind == _ATTEMPT:
            return self._columns.number[row] - MOST
        return self._columns.number[row] if kind == _ITERATION else number

    def _add_node(self, node: Node) -> int:
        number, name = len(self._parents), self._names.setdefault(node.name, len(self._names))
        loops = 0
        if node.parent != NONE:
            loops = self._loops[node.parent]
            self._has_inner.add(node.parent)
        self._parents.append(node.parent)
        self._is_loop.append(node.kind == "loop")
        self._loops.append(loops + (node.kind == "loop"))
        self._sorts += [Sort(kind, name) for kind in (KINDS.index(node.kind), ITERATION, ATTEMPT)]
        return number

    def _add_unknown(self, step_id: str, loops: int) -> int:
        parent = NONE
        for _ in range(loops):
            parent = self._add_node(Node(None, step_id, "loop", parent))
        number = self._beyond[step_id, loops] = self._add_node(Node(step_id, step_id, "step", parent))
        return number
