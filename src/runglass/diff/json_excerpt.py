"""Short forms of JSON values and of places in them, for a diff that people read: whatever the values are.

A short value stays as it is. Of two long texts an excerpt begins shortly before their first difference.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from runglass.diff.json_diff import Part

TEXT_CHARS = 1000
"""A text that is longer is told as an excerpt of that length."""
CONTEXT_CHARS = 100
"""So much of an excerpt stands before the first difference."""
MOST_VALUES = 50
"""An object or list of more values is told by its size."""
NAME_CHARS = 100
PATH_CHARS = 1000
BRIEF_CHARS = 60

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


def path_text(parts: Sequence[Part]) -> str:
    """The place as text, such as `items[2].text` or `["a b"]`; empty for the whole value.

    A long name is cut in it, and so is the middle of a long path.
    """
    text = ""
    for part in parts[:PATH_CHARS]:
        if isinstance(part, int):
            text += f"[{part}]"
        elif len(part) <= NAME_CHARS and _PLAIN_NAME.fullmatch(part):
            text += f".{part}" if text else part
        else:
            name = part if len(part) <= NAME_CHARS else f"{part[:NAME_CHARS]}…"
            text += f"[{msgspec.json.encode(name).decode()}]"
    return text if len(text) <= PATH_CHARS else f"{text[: PATH_CHARS // 2]}…{text[-PATH_CHARS // 2 :]}"


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
