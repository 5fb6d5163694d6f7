"""The tree of a recorded run, and what its spans add up to, span by span in any order of arrival.

A few numbers for each span, and no snapshots: `docs/spec/recording.md` has the rules. A span that others name
as their parent has a node before it comes. Of each node is counted how many children have usage somewhere
below them, and how many have calls. That a number rises from 0 or falls to 0 is told to the parent, and
nothing else is, so a span costs about the same whatever the shape of the tree. Nothing here recurses.

More than 300 lines: one state, of which every part changes with each span.
"""

import re
from array import array
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from heapq import heapify, heappop, heappush, nsmallest
from typing import NamedTuple

from msgspec.structs import replace

from runglass.log.span_forest import NONE, NodeIndex, SpanForest
from runglass.log.span_state import SpanState
from runglass.log.span_sums import SpanSums, SpanUsage, SpanUsages
from runglass.log.span_words import MOST_CHARS, SpanWords
from runglass.log.trace import Recording, RunTotals

NOT_RECEIVED = "not_received"
"""The id of a step of which only logs have come."""
NO_NAME = "span"
UNKNOWN_MODEL = "unknown"
MOST_CYCLES = 10
"""Cycles of a run that are told one by one."""
LEVELS_AROUND_CALL = 16
"""So far up the usage of a call around a call that tells none is looked for."""
MANY_TOPS = 1024

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_NEVER = 1 << 62
_RECEIVED, _NAMED, _ENDED, _FAILED, _TELLS, _CALLS, _IS_BAD, _PAYS, _ASKS, _MAY_GO_ON = (
    1 << bit for bit in range(10)
)
"""Of a node: it has a step, its span came, that has ended, failed, tells usage, is a call, tells usage that
cannot be right; its usage counts, and so does its call; it has no parent, and more may follow it."""
_STATE = _NAMED | _ENDED
_CALL_KINDS = frozenset({"llm", "embedding"})
_NODE_BYTES, _TEXT_BYTES, _SUM_BYTES = 110, 400, 500
"""What in memory a node takes, a name and id of a step beside their characters, and the sum of a model."""
_ID_BITS, _ID_MASK = 64, (1 << 64) - 1


@lru_cache(maxsize=1024)
def _safe(name: str) -> str:
    return _UNSAFE.sub("_", name) or NO_NAME


class Address(NamedTuple):
    """A step in one iteration."""

    step_id: str
    loop_path: tuple[int, ...] | None


class SpanTree:
    """The spans of a run as far as they have come.

    `received` counts its steps, `open_spans` those whose end is not known though their span came; times are
    microseconds since 1970, those of the first start and the last end. `is_gen_ai` says that some span is of
    generative AI.
    """

    def __init__(self) -> None:
        # With more attributes than 29 Python has no compact form for them.
        self.received = self.open_spans = self._failed = 0
        self.first_start_us: int | None = None
        self.last_end_us: int | None = None
        self.is_gen_ai = False
        # By node, in the order in which they were first heard of.
        self._index = NodeIndex()
        self._found = ("", NONE)
        self._nodes = 0
        self._ids = array("Q")
        self._flags = array("H")
        self._position, self._number = array("i"), array("i")
        self._start, self._end = array("q"), array("q")
        self._tellers, self._callers = array("i"), array("i")
        self._label, self._said = array("i"), array("i")
        self._labels: list[tuple[str, str]] = [("", "")]
        """Names of spans, each with the id of its step, once for all that have them."""
        self._label_of: dict[tuple[str, str], int] = {}
        self._text_chars = 0
        self._usages = SpanUsages()
        self._counts: dict[str, int] = {}
        self._forest = SpanForest(self._ids)
        self._moved: dict[int, int] = {}
        """Nodes that name another parent than before; they are moved when somebody asks."""
        self._missing = 0
        self._may_go_on = 0
        self._settle_s: int | None = None
        self._sums = SpanSums()
        self._silent: dict[int, bool] = {}
        """Calls that have ended and tell no usage, and whether they are unmetered."""
        self._dirty: list[int] = []
        """Nodes below which that has to be looked at anew."""
        self._words = SpanWords()
        self._entry: tuple[int, int, str] | None = None
        self._tops: list[int] = []

    @property
    def held_bytes(self) -> int:
        """About how much memory it takes."""
        return (
            _NODE_BYTES * len(self._ids)
            + self._usages.held_bytes
            + _TEXT_BYTES * len(self._labels)
            + self._text_chars
            + _SUM_BYTES * self._sums.names
            + self._words.held_bytes
        )

    def position_of(self, span_id: str) -> int:
        """The position of a span's step, 0 where it has none."""
        node = self._find(span_id)
        return 0 if node == NONE else self._position[node]

    def address_of(self, span_id: str, name: str | None) -> Address:
        """The address of a span's step; of one that is new, or has its `name` only now, the one it gets."""
        node = self._find(span_id)
        if node != NONE:
            flags = self._flags[node]
            if flags & _NAMED or (flags & _RECEIVED and name is None):
                return Address(self._labels[self._label[node]][1], (self._number[node],))
        step_id = NOT_RECEIVED if name is None else _safe(name[:64])
        return Address(step_id, (self._counts.get(step_id, 0),))

    def add(self, span: SpanState, step_id: str, number: int, *, position: int) -> int:
        """Takes in the newest state of a span; returns its position, which is `position` where it is new."""
        node = self._node(span.span_id)
        before, known_start = self._flags[node], self._start[node]
        if not before & _RECEIVED:
            self.received += 1
            self._position[node] = position
        self._number[node] = number
        about = (span.name or "")[:MOST_CHARS], step_id
        if (label := self._label_of.get(about)) is None:
            label = self._label_of[about] = len(self._labels)
            self._labels.append(about)
            self._text_chars += len(about[0]) + len(step_id)
        self._label[node] = label
        if number >= self._counts.get(step_id, 0):
            self._counts[step_id] = number + 1
        self._note_state(node, span, before)
        after = self._flags[node]
        self.open_spans += (after & _STATE == _NAMED) - (before & _STATE == _NAMED)
        self._failed += bool(after & _FAILED) - bool(before & _FAILED)
        self._may_go_on += bool(after & _MAY_GO_ON) - bool(before & _MAY_GO_ON)
        is_named_now = after & ~before & _NAMED
        if is_named_now and self._forest.child[node] != NONE:
            self._missing -= 1
        if span.parent_span_id or before & _RECEIVED:
            self._note_parent(node, span.parent_span_id)
        key = self._start[node] << _ID_BITS | self._ids[node]
        if span.entry_name is not None and (self._entry is None or key <= self._entry[0]):
            self._entry = key, node, span.entry_name
        self._said[node] = self._words.note(span, key, self._said[node])
        self.is_gen_ai = self.is_gen_ai or span.is_gen_ai
        if is_named_now or self._start[node] != known_start:
            self._push_top(node)
        return self._position[node]

    def fail(self, span_id: str, at_us: int) -> None:
        """Ends a span that is open, as the run has failed at this time."""
        node = self._find(span_id)
        if self._flags[node] & _STATE == _NAMED:
            self._stop_counting(node)
            self._flags[node] |= _ENDED | _FAILED
            self._end[node] = at_us
            self.last_end_us = max(at_us, self.last_end_us or 0)
            self.open_spans -= 1
            self._failed += 1
            self._pay(node)
            self._ask(node)

    def failed_top(self) -> str | None:
        """The id of the span at the top that failed first."""
        self._settle()
        failed = (
            (self._end[node], self._ids[node])
            for node, flags in enumerate(self._flags)
            if flags & _FAILED and self._is_top(node)
        )
        first = min(failed, default=None)
        return None if first is None else f"{first[1]:016x}"

    @property
    def settle_s(self) -> int | None:
        """After how long its senders expect nothing more, None where one of them has not said so."""
        if self._may_go_on or self.open_spans:
            return None
        self._settle()
        return None if self._missing else self._settle_s

    def totals(self) -> RunTotals:
        """What the spans add up to."""
        self._settle()
        completed = self.received - self.open_spans - self._failed
        return self._sums.totals(completed=completed, failed=self._failed)

    def recording(self, known: Recording) -> Recording:
        """What the spans tell of the run, beside what is `known` from its start."""
        self._settle()
        entry, name = self._find_entry()
        return replace(
            known,
            name=name and name[:MOST_CHARS],
            entry_span_id=None if entry is None else f"{self._ids[entry]:016x}",
            entry_ended=entry is not None and bool(self._flags[entry] & _ENDED),
            notes=tuple(self._notes(is_partial=known.continues is not None)),
            **self._words.fields(),
        )

    def _find(self, span_id: str) -> int:
        """The node of a span, NONE where it has none."""
        if self._found[0] != span_id:
            self._found = span_id, self._index.get(int(span_id, 16))
        return self._found[1]

    def _node(self, span_id: str) -> int:
        node = self._find(span_id)
        if node == NONE:
            id, node = int(span_id, 16), self._nodes
            if node == len(self._ids):
                self._grow(min(max(16, node >> 4), 4096))
            self._nodes += 1
            self._ids[node] = id
            self._index.add(id, node)
            self._found = span_id, node
        return node

    def _grow(self, more: int) -> None:
        """Makes room for more nodes."""
        for column in (self._position, self._number, self._tellers, self._callers, self._label):
            column.extend([0] * more)
        self._ids.extend([0] * more)
        self._flags.extend([0] * more)
        self._start.extend([_NEVER] * more)
        self._end.extend([0] * more)
        self._said.extend([-1] * more)
        self._usages.grow(more)
        self._forest.grow(more)

    def _note_state(self, node: int, span: SpanState, before: int) -> None:
        """Takes in when the span was, how it is with it, and what it has used."""
        flags = _RECEIVED
        if span.name is not None:
            flags |= _NAMED
        if (start := span.start_time_unix_nano) is not None:
            start_us = self._start[node] = int(start) // 1000
            if self.first_start_us is None or start_us < self.first_start_us:
                self.first_start_us = start_us
        if (end := span.end_time_unix_nano) is not None:
            flags |= _ENDED if span.status != "error" else _ENDED | _FAILED
            end_us = self._end[node] = int(end) // 1000
            if self.last_end_us is None or end_us > self.last_end_us:
                self.last_end_us = end_us
        if span.settle_s is not None:
            self._settle_s = max(span.settle_s, self._settle_s or 0)
        elif span.parent_span_id is None:
            flags |= _MAY_GO_ON
        if span.tokens is not None or span.cost_usd is not None:
            flags |= _TELLS
        call = span.model_calls[0] if span.model_calls else None
        if call is not None or span.kind in _CALL_KINDS:
            flags |= _CALLS
            if call is not None and call.cost_unknown == "bad_usage":
                flags |= _IS_BAD
        if before & _RECEIVED:
            self._stop_counting(node)
        self._flags[node] = flags
        if flags & (_TELLS | _CALLS):
            usage = SpanUsage(
                ((call is not None and call.model) or span.model_used or UNKNOWN_MODEL)[:MOST_CHARS],
                span.tokens,
                None if span.cost_usd is None else Decimal(span.cost_usd),
                None if call is None or call.finish_reason is None else call.finish_reason[:MOST_CHARS],
            )
            self._usages.put(node, usage, span.cost_usd)
        for flag, counts in ((_TELLS, self._tellers), (_CALLS, self._callers)):
            if (flags ^ before) & flag and not counts[node]:
                (self._raise if flags & flag else self._lower)(counts, flag, node)
        if flags & (_TELLS | _CALLS):
            self._pay(node)
            self._ask(node)

    # What counts.

    def _pay(self, node: int) -> None:
        """Counts the usage of a span that tells some, where no span below it does."""
        if self._flags[node] & _TELLS and not self._tellers[node]:
            self._flags[node] |= _PAYS
            self._add_usage(node, 1)

    def _ask(self, node: int) -> None:
        """Counts a call, where there is none below it."""
        flags = self._flags[node]
        if flags & _CALLS and not self._callers[node]:
            self._flags[node] |= _ASKS
            self._sums.add_call(self._usages.of(node), 1)
            if flags & _ENDED and (flags & _IS_BAD or not flags & _TELLS):
                self._silent[node] = False
                self._dirty.append(node)

    def _stop_counting(self, node: int, what: int = _PAYS | _ASKS) -> None:
        counted = self._flags[node] & what
        self._flags[node] &= ~what
        if counted & _PAYS:
            self._add_usage(node, -1)
        if counted & _ASKS:
            self._sums.add_call(self._usages.of(node), -1)
            if self._silent.pop(node, False):
                self._sums.add_unmetered(self._usages.of(node), -1)

    def _add_usage(self, node: int, times: int) -> None:
        flags = self._flags[node]
        self._sums.add_usage(self._usages.of(node), times, has_failed=bool(flags & _FAILED))
        if flags & _CALLS and self._silent:
            self._dirty.append(node)

    def _raise(self, counts: "array[int]", flag: int, node: int) -> None:
        """Tells those above that there is usage, or a call, at a node below which there was none."""
        parent, flags = self._forest.parent, self._flags
        while (node := parent[node]) != NONE:
            counts[node] += 1
            if counts[node] > 1:
                return
            if flags[node] & flag:
                self._stop_counting(node, _PAYS if flag == _TELLS else _ASKS)
                return

    def _lower(self, counts: "array[int]", flag: int, node: int) -> None:
        """Tells those above that there is none any more."""
        parent, flags = self._forest.parent, self._flags
        while (node := parent[node]) != NONE:
            counts[node] -= 1
            if counts[node]:
                return
            if flags[node] & flag:
                (self._pay if flag == _TELLS else self._ask)(node)
                return

    def _settle(self) -> None:
        """Works out what is put off until somebody asks."""
        looked_at = 0
        while self._moved and looked_at < self._nodes:
            looked_at += self._move(*self._moved.popitem())
        if self._moved:
            # To move one by one takes longer by now.
            self._rebuild()
        silent, forest = self._silent, self._forest
        for root in self._dirty if silent else ():
            nodes = [root]
            for _ in range(LEVELS_AROUND_CALL):
                for node in nodes:
                    if node in silent and silent[node] == self._is_metered_above(node):
                        silent[node] = not silent[node]
                        self._sums.add_unmetered(self._usages.of(node), 1 if silent[node] else -1)
                above = [node for node in nodes if self._callers[node]]
                nodes = [child for node in above for child in forest.children(node) if self._has_calls(child)]
                if not nodes:
                    break
        self._dirty.clear()

    def _is_metered_above(self, node: int) -> bool:
        """Whether the usage of a call around this one counts."""
        for _ in range(LEVELS_AROUND_CALL):
            node = self._forest.parent[node]
            if node == NONE:
                return False
            if self._flags[node] & (_CALLS | _PAYS) == _CALLS | _PAYS:
                return True
        return False

    def _has_calls(self, node: int) -> bool:
        return bool(self._flags[node] & _CALLS or self._callers[node])

    # The tree.

    def _note_parent(self, node: int, parent_id: str | None) -> None:
        parent = self._node(parent_id) if parent_id else NONE
        told = self._told_parent(node)
        if parent == told:
            return
        if told == NONE and node not in self._moved:
            self._link(node, parent)
        else:
            self._moved[node] = parent

    def _told_parent(self, node: int) -> int:
        """The parent that a node names, though a cycle may be cut there, or the node not moved yet."""
        in_forest = self._forest.cut.get(node, self._forest.parent[node])
        return self._moved.get(node, in_forest)

    def _link(self, node: int, parent: int) -> None:
        """Puts a node that is nowhere yet below its parent, and cuts the cycle that this makes."""
        forest = self._forest
        cut = forest.cut_for(node, parent)
        if cut == node:
            return
        if cut != NONE:
            above = forest.parent[cut]
            self._tell_above(cut, self._lower)
            forest.detach(cut)
            self._missing -= self._is_missing(above, forest.child[above] == NONE)
            self._push_top(cut)
        self._missing += self._is_missing(parent, forest.child[parent] == NONE)
        forest.attach(node, parent)
        self._tell_above(node, self._raise)

    def _is_missing(self, node: int, is_alone: bool) -> bool:
        return is_alone and not self._flags[node] & _NAMED

    def _tell_above(self, node: int, tell: Callable[["array[int]", int, int], None]) -> None:
        if self._flags[node] & _TELLS or self._tellers[node]:
            tell(self._tellers, _TELLS, node)
        if self._has_calls(node):
            tell(self._callers, _CALLS, node)
            if self._silent:
                self._dirty.append(node)

    def _move(self, node: int, parent: int) -> int:
        """Gives a node, with all below it, another parent; returns how many nodes were looked at."""
        forest, top, looked_at = self._forest, node, 0
        while forest.parent[top] != NONE:
            top, looked_at = forest.parent[top], looked_at + 1
        if (above := forest.parent[node]) != NONE:
            self._tell_above(node, self._lower)
            looked_at += forest.detach(node)
            self._missing -= self._is_missing(above, forest.child[above] == NONE)
        looked_at += forest.forget_above(node)
        if top in forest.cut:
            told = forest.cut.pop(top)
            if top != node:
                # The node may have been in the cycle that was cut there.
                looked_at += forest.forget_above(top)
                self._link(top, told)
        if parent != NONE:
            self._link(node, parent)
        self._push_top(node)
        return looked_at

    def _rebuild(self) -> None:
        """Links all nodes anew."""
        nodes = range(self._nodes)
        told = array("i", map(self._told_parent, nodes))
        self._forest, self._sums = SpanForest(self._ids), SpanSums()
        empty = array("i", bytes(4 * len(self._ids)))
        self._tellers, self._callers = empty, empty[:]
        self._moved, self._silent, self._dirty, self._tops, self._missing = {}, {}, [], [], 0
        for node in nodes:
            self._flags[node] &= ~(_PAYS | _ASKS)
            self._pay(node)
            self._ask(node)
        for node, parent in enumerate(told):
            if parent != NONE:
                self._link(node, parent)
        for node in nodes:
            self._push_top(node)

    # What is told of the run.

    def _is_top(self, node: int) -> bool:
        """Whether a span has come, and none that it is in."""
        parent = self._forest.parent[node]
        return bool(self._flags[node] & _NAMED) and (parent == NONE or not self._flags[parent] & _NAMED)

    def _push_top(self, node: int) -> None:
        if not self._is_top(node):
            return
        heappush(self._tops, self._start[node] << _ID_BITS | self._ids[node])
        if (most := len(self._tops)) >= MANY_TOPS and most.bit_count() == 1:
            # Those that have got a parent since are still among them, and can be nearly all.
            self._tops = list(filter(self._is_key_of_top, set(self._tops)))
            heapify(self._tops)

    def _is_key_of_top(self, key: int) -> bool:
        node = self._index.get(key & _ID_MASK)
        return self._start[node] == key >> _ID_BITS and self._is_top(node)

    def _find_entry(self) -> tuple[int | None, str | None]:
        if self._entry is not None:
            return self._entry[1:]
        while self._tops:
            if self._is_key_of_top(self._tops[0]):
                node = self._index.get(self._tops[0] & _ID_MASK)
                return node, self._labels[self._label[node]][0]
            heappop(self._tops)
        return None, None

    def _notes(self, *, is_partial: bool) -> Iterator[str]:
        cut = self._forest.cut
        for id in nsmallest(MOST_CYCLES, [self._ids[node] for node in cut]):
            yield f"a cycle of spans is cut above span {id:016x}"
        if len(cut) > MOST_CYCLES:
            yield f"and {len(cut) - MOST_CYCLES:,} more cycles"
        # The run that it continues may have them.
        if self._missing and not is_partial:
            yield f"parents that were not received: {self._missing:,}"
        yield from self._words.notes()
