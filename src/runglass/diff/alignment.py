"""The attempts of two runs, paired: by their addresses, or in recorded runs by the names of their spans.

No I/O.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import chain
from typing import NamedTuple

from runglass.diff.digest import AttemptDigest, AttemptPair, SpanPlace
from runglass.outlines.builder import Node


class StepLocation(NamedTuple):
    """A step, and the ids of the loops around it, outermost first."""

    step_id: str
    loops: tuple[str, ...] = ()


def step_locations(nodes: Sequence[Node]) -> list[StepLocation]:
    """The steps among the nodes of a tree, each of which stands behind its parent."""
    found: list[StepLocation] = []
    inside: list[tuple[str, ...]] = []
    for node in nodes:
        loops = inside[node.parent] if node.parent >= 0 else ()
        is_loop = node.kind == "loop"
        inside.append((*loops, node.id or node.name) if is_loop else loops)
        if is_loop or node.id is not None:
            found.append(StepLocation(node.id or node.name, loops))
    return found


class FlowOrder:
    """Where the attempts of runs stand, by the locations of steps in the flows that they are of.

    Steps that only a later flow has stand behind the one that is before them there.
    """

    def __init__(self, *flows: Sequence[StepLocation]) -> None:
        order: list[str] = []
        for flow in flows:
            known, anchor = set(order), None
            following: dict[str | None, list[str]] = {}
            for step_id in dict.fromkeys(location.step_id for location in flow):
                if step_id in known:
                    anchor = step_id
                else:
                    following.setdefault(anchor, []).append(step_id)
            before, order = order, following.get(None, []).copy()
            for step_id in before:
                order += [step_id, *following.get(step_id, ())]
        self._numbers = {step_id: number for number, step_id in enumerate(order)}
        self._loops: dict[str, list[tuple[str, ...]]] = {}
        for location in chain.from_iterable(flows):
            self._loops.setdefault(location.step_id, []).append(location.loops)

    def key(self, step_id: str, loop_path: Sequence[int]) -> tuple[int, ...]:
        """What to sort a step of an iteration by. Steps that no flow has come last."""
        number = self._numbers.get(step_id, len(self._numbers))
        for loops in self._loops.get(step_id, ()):
            if len(loops) == len(loop_path):
                numbers = [self._numbers[loop] for loop in loops]
                return (*chain.from_iterable(zip(numbers, loop_path, strict=True)), number)
        return (number, *loop_path)


def align(a: Iterable[AttemptDigest], b: Iterable[AttemptDigest], *, order: FlowOrder) -> list[AttemptPair]:
    """The attempts of two runs, paired by step, iteration and number, in the order of the flow."""
    left = {_address(attempt): attempt for attempt in a}
    pairs = [AttemptPair(left.pop(_address(attempt), None), attempt) for attempt in b]
    pairs += [AttemptPair(attempt, None) for attempt in left.values()]
    pairs.sort(key=lambda pair: (order.key(pair.one.step_id, pair.one.loop_path or ()), pair.one.attempt))
    return pairs


def _address(attempt: AttemptDigest) -> tuple[str, tuple[int, ...], int]:
    return attempt.step_id, attempt.loop_path or (), attempt.attempt


def without_unread(pairs: Iterable[AttemptPair], *, a_is_whole: bool, b_is_whole: bool) -> list[AttemptPair]:
    """The pairs without an attempt of one run alone where the other was not read as a whole.

    Nobody knows what that one does not have.
    """
    return [pair for pair in pairs if (pair.a or a_is_whole) and (pair.b or b_is_whole)]


_Children = dict[str | None, list[AttemptDigest]]
"""By the id of their parent, None at the top; siblings in the order of their start."""
MOST_ALIGNED = 100
"""Of more siblings those of one name and kind are paired by their order alone, which takes less time."""


def align_spans(a: Iterable[AttemptDigest], b: Iterable[AttemptDigest]) -> list[AttemptPair]:
    """The spans of two runs, paired by the path of names from the top, in the order of the trees.

    What a step is called follows from the order of arrival, which says nothing of another run.
    """
    children_a, children_b = _children(a), _children(b)
    pairs: list[AttemptPair] = []
    following = list(reversed(_siblings(children_a.get(None, ()), children_b.get(None, ()))))
    while following:
        pair = following.pop()
        pairs.append(pair)
        inside_a = children_a.get(_place(pair.a).id, ()) if pair.a else ()
        inside_b = children_b.get(_place(pair.b).id, ()) if pair.b else ()
        following += reversed(_siblings(inside_a, inside_b))
    return pairs


def _place(attempt: AttemptDigest) -> SpanPlace:
    assert attempt.span is not None
    return attempt.span


def _children(spans: Iterable[AttemptDigest]) -> _Children:
    by_id = {_place(span).id: span for span in spans}
    children: _Children = {}
    # By id the number of the way up on which each was met: one that comes back to itself is cut there.
    met: dict[str, int] = {}
    for number, first in enumerate(sorted(by_id)):
        id: str | None = first
        while id in by_id and id not in met:
            met[id] = number
            parent_id = _place(by_id[id]).parent_id
            is_top = parent_id not in by_id or met.get(parent_id or "") == number
            children.setdefault(None if is_top else parent_id, []).append(by_id[id])
            id = parent_id
    for siblings in children.values():
        siblings.sort(key=lambda span: (int(_place(span).start_time_unix_nano or 1 << 64), _place(span).id))
    return children


def _siblings(a: Sequence[AttemptDigest], b: Sequence[AttemptDigest]) -> list[AttemptPair]:
    """In the order of `a`; those of `b` alone stand behind the one before them there."""
    keys_a, keys_b = ([(_place(span).name, _place(span).kind) for span in each] for each in (a, b))
    # Those that follow each other alike, then of what is left those of one key in their order.
    place_of = [-1] * len(b)
    if max(len(a), len(b)) <= MOST_ALIGNED:
        for here, there, size in SequenceMatcher(None, keys_a, keys_b, autojunk=False).get_matching_blocks():
            place_of[there : there + size] = range(here, here + size)
    taken = set(place_of)
    left: dict[tuple[str | None, str | None], deque[int]] = {}
    for place, key in enumerate(keys_a):
        if place not in taken:
            left.setdefault(key, deque()).append(place)
    pairs: list[list[AttemptPair]] = [[], *([AttemptPair(span, None)] for span in a)]
    behind = 0
    for span, key, place in zip(b, keys_b, place_of, strict=True):
        if place < 0 and left.get(key):
            place = left[key].popleft()
        if place < 0:
            pairs[behind].append(AttemptPair(None, span))
        else:
            behind = place + 1
            pairs[behind][0] = AttemptPair(a[place], span)
    return list(chain.from_iterable(pairs))
