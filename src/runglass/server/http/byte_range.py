"""A part of an answer, as the headers `Range` and `If-Range` ask for it (RFC 9110, section 14)."""

import re
from hashlib import blake2b
from typing import NamedTuple

_RANGE = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.IGNORECASE | re.ASCII)
_MOST_DIGITS = 18


class ByteRange(NamedTuple):
    """The bytes from `first` to before `stop`."""

    first: int
    stop: int

    def content_range(self, size: int) -> str:
        """The header `Content-Range` of these bytes of so many."""
        return f"bytes {self.first}-{self.stop - 1}/{size}"


class NoSuchRange(ValueError):
    """No byte of the answer is in the range that is asked for."""


def entity_tag(data: bytes) -> str:
    """The strong `ETag` of these bytes: equal bytes have the same."""
    return f'"{blake2b(data, digest_size=16).hexdigest()}"'


def names_tag(header: str | None, tag: str) -> bool:
    """Whether an `If-None-Match` names the tag, or any."""
    given = [each.strip() for each in (header or "").split(",")]
    return "*" in given or tag in given or f"W/{tag}" in given


def byte_range(header: str | None, if_range: str | None, *, size: int, tag: str) -> ByteRange | None:
    """The range that is asked for; None for the whole. Raises NoSuchRange.

    The whole is also for whoever asks for several ranges or has another state of it, and for what is no
    range, as the standard has it.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or (if_range is not None and if_range.strip() != tag):
        return None
    first, last = found[1], found[2]
    if not (first or last) or max(len(first), len(last)) > _MOST_DIGITS:
        return None
    if not first:
        part = ByteRange(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        part = ByteRange(int(first), min(int(last) + 1, size) if last else size)
    if part.first >= part.stop:
        raise NoSuchRange
    return part
