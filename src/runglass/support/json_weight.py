"""Estimates how long JSON takes to decode, before it is decoded in native code, which blocks all threads.

The unit is a small value, which takes about 0.03 µs. Parts that take longer count as several values. Knows
nothing of where the JSON is from.
"""

import random
import re
from collections.abc import Callable, Iterator

MOST_VALUES = 2_000_000
"""The most weight of a body, or of the result of a step, by default: some 50 ms."""
_DEAREST = 60
"""No byte of JSON weighs more."""
_SLICE = 1 << 18
"""The bytes of one piece of work, which takes a millisecond or two."""
_SAMPLES = 64
_SAMPLE_BYTES = 1024
_NAMES = re.compile(rb'"([^"]{0,200})"\s*:')

_NAME, _NEW_NAME = 1, 6
"""The weight of a name that all rows repeat, and of a name that is like no other."""
_WIDE_TEXT = 2
"""The added weight of a text or a name with characters beyond ASCII."""

_LONG, _VERY_LONG = 22, 200
_DIGITS = {_LONG: 4, _VERY_LONG: 150}
"""Numbers of digits in a row, the point left out, each with the added weight of the number."""
_HALFWAY = 14
"""The weight of a number that may lie halfway between two floats: it is read a second time, exactly."""
_LONG_EXPONENT = 60
_LONG_GREAT_EXPONENT = 300
"""The weight of an exponent behind more digits than a float has, and of one with three digits there."""
_GREAT_EXPONENT = 300
"""The weight of an exponent that is too large for one step, however few digits are before it."""
_GREAT = re.compile(rb"[eE][-+]?0*(?:28[89]|29\d|3\d\d)")
_BY_TEN_TO_23 = re.compile(rb"[eE]\+?0*(?:2[3-9]|3\d)(?!\d)")
"""The power of ten that makes halves of few digits: 1e23, and 3.2e24 as well."""

_TO_ZEROS = bytes.maketrans(b"123456789E", b"000000000e")
"""Makes numbers of the same form equal, with `+` deleted."""


def weighs_more(data: bytes, most: int, *, between: Callable[[], object] = lambda: None) -> bool:
    """Whether the JSON weighs more than `most` values. Calls `between` after each part of the work."""
    if len(data) * _DEAREST <= most or _is_light(data, most, between):
        return False
    name = _name_weight(data)
    room, is_text = float(most), 0
    for part in _without_escapes(data):
        # Each second piece is a text or a name, or a part of one at the border of the part.
        pieces = part.split(b'"')
        room -= _weight(b'""'.join(pieces[is_text::2]), name)
        if not part.isascii():
            room -= _WIDE_TEXT * sum(not text.isascii() for text in pieces[1 - is_text :: 2])
        if room < 0:
            return True
        between()
        is_text = (is_text + len(pieces) - 1) % 2
    return False


def _is_light(data: bytes, most: int, between: Callable[[], object]) -> bool:
    """Whether the JSON weighs no more than `most` by an upper bound that is quick to get."""
    room = most
    for start in range(0, len(data), _SLICE):
        part = data[start : start + _SLICE]
        digits = part.translate(_TO_ZEROS)
        zeros, exponents = digits.count(b"0"), digits.count(b"e")
        room -= part.count(b",") + part.count(b"[") + part.count(b"{") + _NEW_NAME * part.count(b":")
        room -= sum(weight * (zeros // length) for length, weight in _DIGITS.items())
        room -= _HALFWAY * part.count(b".") + (_HALFWAY + _LONG_EXPONENT + _LONG_GREAT_EXPONENT) * exponents
        room -= _GREAT_EXPONENT * exponents
        if not part.isascii():
            room -= _WIDE_TEXT * part.count(b'"')
        if room < 0:
            return False
        between()
    return True


def _without_escapes(data: bytes) -> Iterator[bytes]:
    """The JSON in parts, without the escapes of quotes that end no text."""
    start = 0
    while start < len(data):
        end = start + _SLICE
        part = data[start:end]
        if (len(part) - len(part.rstrip(b"\\"))) % 2:
            end += 1
            part = data[start:end]
        yield _without_quotes(part)
        start = end


def _without_quotes(part: bytes) -> bytes:
    return part.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in part else part


def _name_weight(data: bytes) -> float:
    """The weight of a name, estimated from a sample of the JSON's names: the same for the same JSON."""
    # The places of the sample must be secret, or names could be made to repeat there alone. The hash contains
    # a secret of this process.
    chosen = random.Random(hash(data))
    share = max(1, len(data) // _SAMPLES)
    size = min(share, _SAMPLE_BYTES)
    # The samples must not overlap, or a name would be found twice.
    starts = [first + chosen.randrange(share - size + 1) for first in range(0, len(data), share)]
    samples = [_without_quotes(data[start : start + size]) for start in starts]
    names = [name for sample in samples for name in _NAMES.findall(sample)]
    new = (len(set(names)) - 1) / len(names) if names else 1.0
    return _NAME + (_NEW_NAME - _NAME) * max(0.0, new)


def _weight(part: bytes, name: float) -> float:
    """The weight of a part whose texts are left out; `name` is the weight of a name."""
    weight = part.count(b",") + part.count(b"[") + part.count(b"{") + name * part.count(b":")
    numbers = part.translate(_TO_ZEROS, b"+")
    weight += _HALFWAY * numbers.count(b"0" * 15 + b".")
    digits = numbers.replace(b".", b"")
    weight += sum(each * digits.count(b"0" * length) for length, each in _DIGITS.items())
    if b"e" in digits:
        long = b"0" * 20
        weight += _LONG_EXPONENT * (digits.count(long + b"e0") + digits.count(long + b"e-0"))
        weight += _LONG_GREAT_EXPONENT * (digits.count(long + b"e000") + digits.count(long + b"e-000"))
        many = b"0" * 15
        weight += _HALFWAY * (digits.count(many + b"e-0") - digits.count(many + b"e-00"))
        weight += _HALFWAY * (digits.count(many + b"e0") - digits.count(many + b"e00"))
        weight += _HALFWAY * len(_BY_TEN_TO_23.findall(part))
        weight += _GREAT_EXPONENT * len(_GREAT.findall(part))
    return weight


def too_heavy(
    data: bytes, most: int = MOST_VALUES, *, between: Callable[[], object] = lambda: None
) -> str | None:
    """The reason to refuse the JSON as too heavy; None where it is not. `between` is as for `weighs_more`."""
    if not weighs_more(data, most, between=between):
        return None
    return (
        f"it takes as long to be read as more than {most:,} values, of which long numbers and great exponents"
        " count as many"
    )
