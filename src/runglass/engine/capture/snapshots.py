"""Values and errors as a trace keeps them: JSON without secrets, cut to a limit that still shows its shape.

Long texts keep their beginning, lists their first items, objects as many keys as possible; marks say what is
missing. Pure, so that a process can do it as well as this one. Knows no capture modes.
"""

import builtins
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from runglass.errors import RETRY_AFTER
from runglass.log.fold import PREVIEW_CHARS
from runglass.redact import Redactor

_EXCEPTIONS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)
)
"""A name beside these is the caller's or the author's own, and may say anything."""


def shortened(
    encoded: bytes, value: Any, *, limit_bytes: int, redactor: Redactor | None
) -> tuple[bytes, bool]:
    """The value as JSON to keep, and whether it was cut.

    `encoded` is the JSON of the value, as msgspec writes it.
    """
    # Redacted before it is cut: a secret that the cut goes through would no longer look like one.
    if redactor is not None and redactor.may_hold_secrets(encoded):
        value = redactor.redact(value)
        encoded = msgspec.json.encode(value)
    if len(encoded) <= limit_bytes:
        return encoded, False
    return cut(value, limit_bytes), True


def shortened_error(
    detail: dict[str, Any], given: Any, *, limit_bytes: int, redactor: Redactor | None
) -> bytes:
    """The error as JSON to keep. Secrets under keys of `given` are redacted in it, too."""
    if redactor is not None:
        detail = redactor.strike(without_printed(detail), redactor.secrets_in(given))
    return shortened(msgspec.json.encode(detail), detail, limit_bytes=limit_bytes, redactor=redactor)[0]


def left_out(why: str, *, limit_bytes: int) -> tuple[bytes, bool]:
    """A note as JSON for a value of which nothing may be kept, marked like what `cut` leaves out."""
    note = {"…": not_kept(why)}
    return shortened(msgspec.json.encode(note), note, limit_bytes=limit_bytes, redactor=None)[0], True


def not_kept(why: str) -> str:
    """The note in place of a value or an error that may not be kept."""
    return f"… [not kept, as it could not be redacted: {why}]"


def without_printed(detail: dict[str, Any]) -> dict[str, Any]:
    """The error without what its step printed: its author chose that, and nothing marks the secrets in it."""
    return {key: value for key, value in detail.items() if key != "printed"}


def without_content(detail: dict[str, Any]) -> dict[str, Any]:
    """Only `code`, `line`, `retryAfterMs` and, where Python itself has it, the exception's `type`."""
    harmless = {"code": detail.get("code")}
    exception = detail.get("exception")
    if isinstance(exception, str) and exception in _EXCEPTIONS:
        harmless["type"] = exception
    for name in ("line", RETRY_AFTER):
        if type(number := detail.get(name)) is int:
            harmless[name] = number
    return harmless


def preview(data: msgspec.Raw | None) -> str | None:
    """The beginning of JSON, if any: of an object whose only member is a text that text, else as it is."""
    if data is None:
        return None
    shown = bytes(data)
    if shown.startswith(b"{"):
        members = msgspec.json.decode(shown, type=dict[str, msgspec.Raw])
        if len(members) == 1 and (only := bytes(*members.values())).startswith(b'"'):
            shown = msgspec.json.decode(only, type=str).encode()
    # A character takes four bytes at most.
    text = " ".join(shown[: 8 * PREVIEW_CHARS].decode(errors="ignore").split())
    return text if len(text) <= PREVIEW_CHARS else text[: PREVIEW_CHARS - 1] + "…"


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
        written = None
        with suppress(_TooMuch):
            written = _encode(_Copy(measures[middle], limit_bytes).of(value, 1))
        if written is None or len(written) > limit_bytes:
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


class _TooMuch(Exception):
    """More would be kept than there is room for."""


class _Copy:
    """A copy of an object in one measure. What is sure to take more than `limit` bytes is not copied."""

    def __init__(self, measure: _Measure, limit: int) -> None:
        self._measure = measure
        self._room = limit

    def of(self, value: dict[str, Any], level: int) -> dict[str, Any]:
        keys = self._measure.keys
        shown: dict[str, Any] = {}
        for name, inner in islice(value.items(), keys):
            key = self._shortened(name)
            if key is not name:
                key = _unlike(key, value, shown)
            shown[key] = self._inner(inner, level + 1)
        if len(value) > keys:
            shown[_unlike("…", value, shown)] = f"[+{len(value) - keys} keys]"
        return shown

    def _inner(self, value: Any, level: int) -> Any:
        self._room -= 1
        if self._room < 0:
            raise _TooMuch
        if isinstance(value, str):
            return self._shortened(value)
        if isinstance(value, dict) and value:
            return f"{{… {len(value)} keys}}" if level > self._measure.levels else self.of(value, level)
        if isinstance(value, list | tuple) and value:
            if level > self._measure.levels:
                return f"[… {len(value)} items]"
            items = self._measure.items
            shown = [self._inner(inner, level + 1) for inner in islice(value, items)]
            return [*shown, f"… [+{len(value) - items} items]"] if len(value) > items else shown
        number = _encode(value)
        if len(number) > self._measure.characters + _MARK_LENGTH:
            return self._shortened(number.decode())
        return msgspec.Raw(number)

    def _shortened(self, text: str) -> str:
        limit = self._measure.characters
        if len(text) > limit + _MARK_LENGTH:
            text = f"{text[:limit]}… [+{len(text) - limit} chars]"
        self._room -= len(text)
        return text


def _unlike(key: str, value: dict[str, Any], taken: dict[str, Any]) -> str:
    while key in value or key in taken:
        key += "…"
    return key
