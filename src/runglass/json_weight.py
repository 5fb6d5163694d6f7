"""How long JSON takes to be read, told before it is: that is native code, which lets nobody else in.

It is told in values: so many small values, which take about 0.03 µs each, would take as long. What is dearer
counts as several. Knows nothing of where the JSON is from.
"""

import random
import re
from collections.abc import Callable, Iterator

MOST_VALUES = 2_000_000
"""What a body, or the result of a step, may weigh where no setting says more or less: some 50 ms."""
LONG_DIGITS = 22
"""More than floats that are written in full have, but for a few."""

_DEAREST = 60
"""No byte of JSON weighs more."""
_SLICE = 1 << 18
"""Bytes that are looked at in one piece, a millisecond or two."""
_SAMPLES = 64
_SAMPLE_BYTES = 1024
_NAMES = re.compile(rb'"([^"]{0,200})"\s*:')

_NAME, _NEW_NAME = 1, 9
_EXPONENT = 5
_LARGE_EXPONENT = 40
_GREAT_EXPONENT = 300
_LONG_DIGITS = 18
_LONG_WHOLE = 12
"""What one of a kind weighs beside the value that it is, or belongs to, anyway: a name, such as rows repeat
and one that is like no other; an exponent, one of 30 and more, and one of three digits; as many digits in a
row as LONG_DIGITS; a fraction behind more digits than are exact."""

_NUMBERS = bytes.maketrans(b"123456789E+", b"000000000e-")
"""Makes numbers of the same form equal."""
_EXPONENTS = bytes.maketrans(b"12456789E+", b"00333333e-")
"""Makes exponents equal that begin with a digit up to 2, and those that begin with a greater one."""


def _go_on() -> None:
    """What there is to do between two parts where nobody waits."""


def weighs_more(data: bytes, most: int, *, between: Callable[[], object] = _go_on) -> bool:
    """Whether the JSON weighs more values than that. Calls `between` after each part of the work."""
    if len(data) * _DEAREST <= most or _is_light(data, most, between):
        return False
    name = _name_weight(data)
    room, is_text = most, 0
    for part in _without_escapes(data):
        # Each second piece is a text or a name, or the part of one that is in this part.
        pieces = part.split(b'"')
        room -= _weight(b'""'.join(pieces[is_text::2]), name)
        if room < 0:
            return True
        between()
        is_text = (is_text + len(pieces) - 1) % 2
    return False


def _is_light(data: bytes, most: int, between: Callable[[], object]) -> bool:
    """Whether the JSON weighs no more than that even if its texts are counted and all that may be dear is."""
    room = most
    for start in range(0, len(data), _SLICE):
        part = data[start : start + _SLICE]
        numbers = part.translate(_NUMBERS)
        room -= _small_weight(part, _NEW_NAME)
        room -= _LONG_DIGITS * (numbers.count(b"0") // LONG_DIGITS) + _LONG_WHOLE * part.count(b".")
        room -= (_EXPONENT + _LARGE_EXPONENT + _GREAT_EXPONENT) * numbers.count(b"e")
        if room < 0:
            return False
        between()
    return True


def _without_escapes(data: bytes) -> Iterator[bytes]:
    """The JSON in parts, without what makes a quote that ends no text."""
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


def _name_weight(data: bytes) -> int:
    """What a name of the JSON weighs, as a sample of its names tells."""
    # Where the sample is taken must not be known beforehand: names could be made to repeat there alone.
    share = max(1, len(data) // _SAMPLES)
    size = min(share, _SAMPLE_BYTES)
    # None has a part of another: each name would be found twice.
    starts = [first + random.randrange(share - size + 1) for first in range(0, len(data), share)]
    samples = [_without_quotes(data[start : start + size]) for start in starts]
    names = [name for sample in samples for name in _NAMES.findall(sample)]
    return _NEW_NAME if len(set(names)) > len(names) // 2 else _NAME


def _weight(part: bytes, name: int) -> int:
    """What a part weighs whose texts are left out; `name` is the weight of a name."""
    numbers = part.translate(_NUMBERS)
    weight = _small_weight(part, name)
    weight += _LONG_DIGITS * numbers.count(b"0" * LONG_DIGITS)
    weight += _LONG_WHOLE * numbers.count(b"0000000000000000.")
    exponents = numbers.count(b"e0") + numbers.count(b"e-0")
    if exponents:
        great = numbers.count(b"e000") + numbers.count(b"e-000")
        forms = part.translate(_EXPONENTS)
        large = sum(forms.count(form) for form in (b"e30", b"e33", b"e-30", b"e-33"))
        weight += _EXPONENT * exponents + _GREAT_EXPONENT * great + _LARGE_EXPONENT * large
    return weight


def _small_weight(part: bytes, name: int) -> int:
    return part.count(b",") + part.count(b"[") + part.count(b"{") + name * part.count(b":")


def too_heavy(data: bytes, most: int = MOST_VALUES, *, between: Callable[[], object] = _go_on) -> str | None:
    """Why the JSON takes too long to be read; None where it does not. `between` is as for `weighs_more`."""
    if not weighs_more(data, most, between=between):
        return None
    return (
        f"it takes as long to be read as more than {most:,} values, of which long numbers and great exponents"
        " count as many"
    )
