"""Arguments and results of the user's code as JSON, taken at once: they may change a moment later.

What is no plain value is told by its type and never by `repr`, which may hold anything, take any time, or
fail. Size and depth are bounded.
"""

import dataclasses
import decimal
import enum
import math
import pathlib
import uuid
from collections import deque
from collections.abc import Iterable
from datetime import date, time, timedelta
from typing import Any

import msgspec

MOST_BYTES = 1 << 20
"""About as much is taken of one value; a server keeps less of it."""
MOST_LEVELS = 16
_ITEM_BYTES = 8
_INT_BITS = 1024
_ATOMS = frozenset({int, float, bool, type(None)})
_SHAPED = frozenset({"numpy", "pandas", "polars", "pyarrow", "torch", "tensorflow", "jax", "jaxlib", "cupy"})
"""Libraries whose values are told by type and shape."""
_NO_NUMBERS = {math.inf: "Infinity", -math.inf: "-Infinity"}
_ABSENT = object()


def snapshot(value: object) -> tuple[bytes, bool]:
    """The value as JSON, as it is now, and whether some of it is missing."""
    if _is_plain(value):
        try:
            return msgspec.json.encode(value), False
        except (ValueError, RecursionError):
            pass  # Half a character, too many digits, or too deep.
    copy = _Copy()
    return msgspec.json.encode(copy.of(value, 0)), copy.is_cut


def type_name(value: object) -> str:
    """What an unknown value is told by."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_plain(value: object) -> bool:
    """Whether it is JSON already, and small enough."""
    left, pending = MOST_BYTES, [value]
    while pending:
        each: Any = pending.pop()
        kind = type(each)
        if kind is str:
            left -= len(each)
        elif kind is dict:
            for key in each:
                if type(key) is not str:
                    return False
                left -= len(key)
            left -= _ITEM_BYTES * len(each)
            pending.extend(each.values())
        elif kind is list or kind is tuple:
            left -= _ITEM_BYTES * len(each)
            if left > 0:
                pending.extend(each)
        elif kind not in _ATOMS or (kind is float and not math.isfinite(each)):
            return False
        if left <= 0:
            return False
    return True


class _Copy:
    """Copies a value of any type into one of JSON's, within the bounds."""

    def __init__(self) -> None:
        self._left = MOST_BYTES
        self._around: set[int] = set()
        self.is_cut = False

    def of(self, value: Any, level: int) -> Any:
        """The copy; of what cannot be read its type, so that nothing beside it is lost."""
        try:
            told = self._of(value, level)
        except Exception:
            self.is_cut = True
            told = f"<{type_name(value)}>"
        if type(told) is str:
            self._left -= len(told)
        return told

    def _of(self, value: Any, level: int) -> Any:
        self._left -= _ITEM_BYTES
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return self._of(value.value, level)
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int):
            number = int.__add__(value, 0)
            return number if number.bit_length() <= _INT_BITS else f"<int: {number.bit_length():,} bits>"
        if isinstance(value, float):
            real = float.__add__(value, 0.0)
            return real if math.isfinite(real) else _NO_NUMBERS.get(real, "NaN")
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{type_name(value)}: {len(value):,} bytes>"
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, uuid.UUID | decimal.Decimal | timedelta | pathlib.PurePath):
            return self._text(str(value))
        if type(value).__module__.partition(".")[0] in _SHAPED:
            return self._shaped(value, level)
        # What it is in is told already: a tree whose nodes know their parents would be told over and over.
        if level >= MOST_LEVELS or self._left <= 0 or id(value) in self._around:
            self.is_cut = True
            return f"<{type_name(value)}>"
        self._around.add(id(value))
        try:
            return self._inside(value, level)
        finally:
            self._around.discard(id(value))

    def _inside(self, value: Any, level: int) -> Any:
        if isinstance(value, dict):
            return self._members(value.items(), level)
        if isinstance(value, list | tuple | set | frozenset | deque):
            names = getattr(type(value), "_fields", None)
            if isinstance(value, tuple) and names is not None:
                return self._members(zip(names, value, strict=False), level)
            return self._items(value, level)
        members = _members_of(value)
        return f"<{type_name(value)}>" if members is None else self._members(members, level)

    def _text(self, text: str) -> str:
        most = max(self._left, 200)
        told = text[:most].encode(errors="replace").decode()
        if len(text) <= most:
            return told
        self.is_cut = True
        return f"{told}… ({len(text):,} characters)"

    def _items(self, values: Iterable[Any], level: int) -> list[Any]:
        items: list[Any] = []
        for each in values:
            if self._left <= 0:
                self.is_cut = True
                break
            items.append(self.of(each, level + 1))
        return items

    def _members(self, members: Iterable[tuple[Any, Any]], level: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, each in members:
            if self._left <= 0:
                self.is_cut = True
                break
            name = self.of(key, MOST_LEVELS - 1)
            if not isinstance(name, str):
                name = msgspec.json.encode(name).decode()
            self.is_cut |= name in copied
            copied[name] = self.of(each, level + 1)
        return copied

    def _shaped(self, value: Any, level: int) -> Any:
        shape = getattr(value, "shape", None)
        if shape == () and type(value).__module__ == "numpy":
            return self._of(value.item(), MOST_LEVELS)
        return f"<{type_name(value)} {tuple(shape)}>" if isinstance(shape, tuple) else f"<{type_name(value)}>"


def _members_of(value: Any) -> Iterable[tuple[str, Any]] | None:
    """The fields of a value that declares them, but for those that its `repr` hides; None of any other."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
    elif isinstance(value, msgspec.Struct):
        names = list(value.__struct_fields__)
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__ if field.repr]
    elif (decorators := getattr(kind, "__pydantic_decorators__", None)) is not None:
        # Not `model_dump`, which has hidden fields of the models inside.
        names = [name for name, field in kind.model_fields.items() if field.repr and not field.exclude]
        names += [name for name, field in decorators.computed_fields.items() if field.info.repr]
        names += getattr(value, "__pydantic_extra__", None) or ()
    else:
        return None
    return [(name, each) for name in names if (each := _member(value, name)) is not _ABSENT]


def _member(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, _ABSENT)
    except Exception as error:
        # As a computed one may raise.
        return f"<not readable: {type_name(error)}>"
