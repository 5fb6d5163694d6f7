"""Where two JSON values differ, with a bound on the work, and short forms of values for people who read that.

Lists are compared by index, behind what both begin with and before what both end with, so that one inserted
item does not make all after it differ. Numbers are equal as numbers, `1` and `1.0` alike; `true` is no
number. Nothing recurses: values may be nested as deeply as JSON can be. Knows nothing of runs.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

Part: TypeAlias = str | int
"""A step into a value: a name of an object, or an index of a list."""

ChangeKind = Literal["added", "removed", "changed"]

CHARS_PER_VALUE = 4096
"""So many characters of two equal texts are compared in the time of a small value."""


class JsonChange(NamedTuple):
    """A difference, and the way to it. `a` is None where it was added, `b` where it was removed.

    The index of an added item is its index in the second list, that of a removed one its index in the first.
    """

    parts: tuple[Part, ...]
    kind: ChangeKind
    a: Any
    b: Any


class JsonDiff(NamedTuple):
    """The differences, in the order of names and indices; there may be more of them where `cut` is true.

    `visits` is how many values were looked at.
    """

    changes: list[JsonChange]
    cut: bool
    visits: int


def compare(a: Any, b: Any, *, most_visits: int, most_changes: int) -> JsonDiff:
    """The differences of two decoded JSON values, as far as they are found in so many visits of values."""
    left = _Allowance(most_visits)
    changes: list[JsonChange] = []
    todo: list[tuple[_Way, Any, Any]] = [(None, a, b)]
    try:
        while todo:
            way, x, y = todo.pop()
            left.spend(1)
            if isinstance(x, dict) and isinstance(y, dict):
                left.spend(len(x) + len(y))
                names = sorted(x.keys() | y.keys(), reverse=True)
                todo += [((way, name), x.get(name, _ABSENT), y.get(name, _ABSENT)) for name in names]
            elif isinstance(x, list) and isinstance(y, list):
                todo += _item_pairs(way, x, y, left)
            elif not _same(x, y, left):
                if len(changes) == most_changes:
                    return JsonDiff(changes, True, left.spent)
                parts: list[Part] = []
                while way is not None:
                    way, part = way
                    parts.append(part)
                kind: ChangeKind = "added" if x is _ABSENT else "removed" if y is _ABSENT else "changed"
                before, after = (None if value is _ABSENT else value for value in (x, y))
                changes.append(JsonChange(tuple(reversed(parts)), kind, before, after))
    except _Exhausted:
        return JsonDiff(changes, True, left.spent)
    return JsonDiff(changes, False, left.spent)


_ABSENT = object()
"""In place of a value that one of the two does not have."""

# Links to the part before: a tuple for each value would be as long as the value is deep.
_Way: TypeAlias = "tuple[_Way, Part] | None"


class _Exhausted(Exception):
    """As many values have been visited as may be."""


class _Allowance:
    """How many values may be visited."""

    def __init__(self, visits: int) -> None:
        self._visits = visits
        self.spent = 0

    def spend(self, visits: int) -> None:
        """Counts visits before they are made. Raises _Exhausted where there is no room for them."""
        if self.spent + visits > self._visits:
            raise _Exhausted
        self.spent += visits


def _item_pairs(way: _Way, x: list[Any], y: list[Any], left: _Allowance) -> list[tuple[_Way, Any, Any]]:
    """The items to compare, the last one first; those left out are equal."""
    shorter = min(len(x), len(y))
    start = 0
    while start < shorter and _same(x[start], y[start], left):
        start += 1
    same_at_end = 0
    while same_at_end < shorter - start and _same(x[-1 - same_at_end], y[-1 - same_at_end], left):
        same_at_end += 1
    x, y = x[: len(x) - same_at_end], y[: len(y) - same_at_end]
    longest = max(len(x), len(y))
    left.spend(longest - start)
    return [
        ((way, at), x[at] if at < len(x) else _ABSENT, y[at] if at < len(y) else _ABSENT)
        for at in range(longest - 1, start - 1, -1)
    ]


def _same(a: Any, b: Any, left: _Allowance) -> bool:
    todo = [(a, b)]
    while todo:
        x, y = todo.pop()
        left.spend(1)
        if isinstance(x, dict) and isinstance(y, dict):
            left.spend(max(len(x), len(y)))
            if x.keys() != y.keys():
                return False
            # Sorted, so that as much is looked at the other way round.
            todo += [(x[name], y[name]) for name in sorted(x)]
        elif isinstance(x, list) and isinstance(y, list):
            if len(x) != len(y):
                return False
            left.spend(len(x))
            todo += zip(x, y, strict=True)
        elif isinstance(x, str) and isinstance(y, str):
            left.spend(min(len(x), len(y)) // CHARS_PER_VALUE)
            if x != y:
                return False
        elif isinstance(x, bool) is not isinstance(y, bool) or x != y:
            return False
    return True


TEXT_CHARS = 1000
"""A text that is longer is told as an excerpt of that length."""
CONTEXT_CHARS = 100
"""So much of an excerpt stands before the first difference."""
MOST_VALUES = 50
"""An object or list of more values is told by its size."""
BRIEF_CHARS = 60


def excerpts(a: Any, b: Any) -> tuple[Any, Any, bool]:
    """Both values, long ones as excerpts, and whether one of them is one."""
    if isinstance(a, str) and isinstance(b, str) and max(len(a), len(b)) > TEXT_CHARS:
        start = max(0, _first_difference(a, b) - CONTEXT_CHARS)
        return _window(a, start), _window(b, start), True
    short_a, short_b = _short(a), _short(b)
    return short_a, short_b, short_a is not a or short_b is not b


def brief(value: Any) -> str:
    """The value as JSON, cut to what fits into a sentence."""
    text = msgspec.json.encode(_short(value)).decode()
    return text if len(text) <= BRIEF_CHARS else f"{text[: BRIEF_CHARS - 1]}…"


def brief_pair(a: Any, b: Any) -> tuple[str, str]:
    """Both values as `brief` tells them; long texts that begin alike from shortly before their difference."""
    if isinstance(a, str) and isinstance(b, str) and max(len(a), len(b)) > BRIEF_CHARS:
        start = max(0, _first_difference(a, b) - BRIEF_CHARS // 4)
        a, b = _window(a, start), _window(b, start)
    return brief(a), brief(b)


def _first_difference(a: str, b: str) -> int:
    """How many characters both begin with."""
    same, beyond = 0, min(len(a), len(b)) + 1
    while beyond - same > 1:
        middle = (same + beyond) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            beyond = middle
    return same


def _window(text: str, start: int) -> str:
    end = start + TEXT_CHARS
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _short(value: Any) -> Any:
    """The value itself where it is short, else an excerpt of a text, or a text with the size of the value."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS else _window(value, 0)
    if isinstance(value, dict | list) and not _is_short(value):
        return f"{{… {len(value):,} names}}" if isinstance(value, dict) else f"[… {len(value):,} items]"
    if isinstance(value, int) and value.bit_length() > TEXT_CHARS:
        return f"a number of {value.bit_length():,} bits"
    return value


def _is_short(value: Any) -> bool:
    todo, values, chars = [value], 0, 0
    while todo:
        each = todo.pop()
        values += 1
        if isinstance(each, str):
            chars += len(each)
        elif isinstance(each, int):
            chars += each.bit_length() // 3
        elif isinstance(each, dict | list):
            if len(each) > MOST_VALUES:
                return False
            chars += sum(map(len, each)) if isinstance(each, dict) else 0
            todo += each.values() if isinstance(each, dict) else each
        if values + len(todo) > MOST_VALUES or chars > TEXT_CHARS:
            return False
    return True
