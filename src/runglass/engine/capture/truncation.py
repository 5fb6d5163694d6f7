"""Cuts a JSON object that is too large to a smaller one that still shows its shape.

Long texts keep their beginning, lists their first items, objects as many keys as possible; marks say what is
missing. Knows nothing of what the object means.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec

_encode = msgspec.json.Encoder().encode
_SHORTEST = 32
_MARK = "…".encode()
"""In each mark, in place of the missing part."""
_MARK_LENGTH = 24
"""Characters that a mark may take, and a text be longer than allowed before it is worth a mark."""


def cut(value: dict[str, Any], limit_bytes: int) -> bytes:
    """The object as JSON of at most `limit_bytes` bytes, which must be 256 or more.

    Takes time in proportion to the limit, not to the value. The same value is always cut in the same way.
    """
    measures = list(_measures(limit_bytes))
    best = b""
    # The measures get stricter: the most generous that fits is found by halving. The strictest always fits.
    low, high = 0, len(measures) - 1
    while low <= high:
        middle = (low + high) // 2
        written = _Writer(measures[middle], limit_bytes).written(value)
        if written is None:
            low = middle + 1
        else:
            best, high = written, middle - 1
    return best


def is_whole(data: bytes) -> bool:
    """Whether JSON that `cut` may have made is the whole value; False, too, if that holds a mark itself."""
    return _MARK not in data


class _Measure(NamedTuple):
    """How much is kept: characters of a text, items of a list, levels of nesting, keys of an object."""

    characters: int
    items: int
    levels: int
    keys: int


def _measures(limit: int) -> Iterator[_Measure]:
    characters, items, levels, keys = limit, max(limit // 8, 1), 32, max(limit // 8, 1)
    while characters > _SHORTEST or items > 1:
        characters, items = max(characters // 2, _SHORTEST), max(items // 2, 1)
        yield _Measure(characters, items, levels, keys)
    while levels > 1:
        levels //= 2
        yield _Measure(characters, items, levels, keys)
    while keys > 0:
        keys //= 2
        yield _Measure(characters, items, levels, keys)


class _Full(Exception):
    """The output does not fit."""


class _Writer:
    def __init__(self, measure: _Measure, limit: int) -> None:
        self._measure = measure
        self._room = limit
        self._parts: list[bytes] = []

    def written(self, value: dict[str, Any]) -> bytes | None:
        try:
            self._write_object(value, 1)
        except _Full:
            return None
        return b"".join(self._parts)

    def _put(self, part: bytes) -> None:
        self._room -= len(part)
        if self._room < 0:
            raise _Full
        self._parts.append(part)

    def _write(self, value: Any, level: int) -> None:
        if isinstance(value, str):
            self._put(_encode(self._shortened(value)))
        elif isinstance(value, dict) and value:
            if level > self._measure.levels:
                self._put(_encode(f"{{… {len(value)} keys}}"))
            else:
                self._write_object(value, level)
        elif isinstance(value, list | tuple) and value:
            if level > self._measure.levels:
                self._put(_encode(f"[… {len(value)} items]"))
            else:
                self._write_list(value, level)
        else:
            number = _encode(value)
            if len(number) > self._measure.characters + _MARK_LENGTH:
                number = _encode(self._shortened(number.decode()))
            self._put(number)

    def _write_object(self, value: dict[str, Any], level: int) -> None:
        keys = self._measure.keys
        ahead = b"{"
        taken: set[str] = set()
        for name, inner in islice(value.items(), keys):
            shown = self._shortened(name)
            if shown is not name:
                shown = _unlike(shown, value, taken)
                taken.add(shown)
            self._put(ahead + _encode(shown) + b":")
            self._write(inner, level + 1)
            ahead = b","
        if len(value) > keys:
            self._put(
                ahead + _encode(_unlike("…", value, taken)) + b":" + _encode(f"[+{len(value) - keys} keys]")
            )
        self._put(b"}" if value else b"{}")

    def _write_list(self, value: list[Any] | tuple[Any, ...], level: int) -> None:
        items = self._measure.items
        ahead = b"["
        for inner in islice(value, items):
            self._put(ahead)
            self._write(inner, level + 1)
            ahead = b","
        if len(value) > items:
            self._put(ahead + _encode(f"… [+{len(value) - items} items]"))
        self._put(b"]")

    def _shortened(self, text: str) -> str:
        limit = self._measure.characters
        if len(text) <= limit + _MARK_LENGTH:
            return text
        return f"{text[:limit]}… [+{len(text) - limit} chars]"


def _unlike(key: str, value: dict[str, Any], taken: set[str]) -> str:
    while key in value or key in taken:
        key += "…"
    return key
