"""Two recorded runs, aligned span by span: by the names from the top down, and by their order there.

What a step is called follows from the order of arrival, which says nothing of another run. No I/O.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from runglass.diff.trace_diff import AttemptDigest, AttemptPair, SpanPlace

_Children = dict[str | None, list[AttemptDigest]]
"""By the id of their parent, None at the top; siblings in the order of their start."""
_Key = tuple[str | None, str | None]
"""Name and kind of a span."""
MOST_ALIGNED = 100
"""Of more siblings those of one name and kind are paired by their order alone, which takes less time."""


def align_spans(
    a: Iterable[AttemptDigest],
    b: Iterable[AttemptDigest],
    *,
    a_is_whole: bool = True,
    b_is_whole: bool = True,
) -> list[AttemptPair]:
    """The spans of two runs, paired by the path of names from the top, in the order of the trees.

    Of a run that is not here as a whole nobody knows what it does not have: where `a_is_whole` is false, a
    span of `b` alone is left out, and the other way round.
    """
    children_a, children_b = _children(a), _children(b)
    pairs: list[AttemptPair] = []
    following = list(reversed(_siblings(children_a.get(None, ()), children_b.get(None, ()))))
    while following:
        pair = following.pop()
        if (pair.a or a_is_whole) and (pair.b or b_is_whole):
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
    matched = _matched([_key(span) for span in a], [_key(span) for span in b])
    behind: dict[int, list[AttemptPair]] = {}
    anchor, number_in_a = -1, {there: here for here, there in matched.items()}
    for number, span in enumerate(b):
        if number in number_in_a:
            anchor = number_in_a[number]
        else:
            behind.setdefault(anchor, []).append(AttemptPair(None, span))
    pairs = behind.get(-1, [])
    for number, span in enumerate(a):
        other = b[matched[number]] if number in matched else None
        pairs += [AttemptPair(span, other), *behind.get(number, ())]
    return pairs


def _matched(a: Sequence[_Key], b: Sequence[_Key]) -> dict[int, int]:
    """Those of `b` by those of `a`: as they follow each other, then what is left of each key in its order."""
    matched: dict[int, int] = {}
    if a == b:
        return {number: number for number in range(len(a))}
    if max(len(a), len(b)) <= MOST_ALIGNED:
        for here, there, size in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
            matched |= {here + at: there + at for at in range(size)}
    taken = set(matched.values())
    left: dict[_Key, deque[int]] = {}
    for number, key in enumerate(b):
        if number not in taken:
            left.setdefault(key, deque()).append(number)
    for number, key in enumerate(a):
        if number not in matched and left.get(key):
            matched[number] = left[key].popleft()
    return matched


def _key(span: AttemptDigest) -> _Key:
    return _place(span).name, _place(span).kind
