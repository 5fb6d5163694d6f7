"""How long JSON takes to be read, told before it is: that is native code, which lets nobody else in.

It is told in values: so many small values, which take about 0.07 µs each, would take as long. What is dearer
counts as several. Knows nothing of where the JSON is from.
"""

import random
import re
from collections.abc import Callable

MOST_VALUES = 2_000_000
"""What a body, or the result of a step, may weigh where no setting says more or less: a tenth of a second."""
LONG_DIGITS = 50

_DEAREST = 30
"""No byte of JSON weighs more."""
_SLICE = 1 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 1024
_NAMES = re.compile(rb'"([^"]{0,200})"\s*:')

_NAME, _NEW_NAME = 1, 4
_EXPONENT = 5
_GREAT_EXPONENT = 150
_LONG_DIGITS = 40
_LONG_WHOLE = 8
"""What one of a kind weighs beside the value that it is, or belongs to, anyway: a name, such as rows repeat
and one that is like no other; an exponent, and one of three digits; as many digits in a row as LONG_DIGITS; a
fraction behind more digits than are exact."""

_NUMBERS = bytes.maketrans(b"123456789E+", b"000000000e-")
"""Makes numbers of the same form equal."""


def _go_on() -> None:
    """What there is to do between two parts where nobody waits."""


def weighs_more(data: bytes, most: int, *, between: Callable[[], object] = _go_on) -> bool:
    """Whether the JSON weighs more values than that. Calls `between` after each part of the work."""
    if len(data) * _DEAREST <= most or _weight(data, at_least=most + 1) <= most:
        return False
    between()
    # Its texts are left out now.
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in data else data
    name = _name_weight(plain)
    # Each text is a value or a name.
    if plain.count(b'"') > 2 * most:
        return True
    room, is_text = most, 0
    for start in range(0, len(plain), _SLICE):
        pieces = plain[start : start + _SLICE].split(b'"')
        room -= _weight(b'""'.join(pieces[is_text::2]), name=name)
        if room < 0:
            return True
        between()
        is_text = (is_text + len(pieces) - 1) % 2
    return False


def _name_weight(plain: bytes) -> int:
    """What a name of the JSON weighs, as a sample of its names tells; its texts have no escapes."""
    # Where the sample is taken must not be known beforehand: names could be made to repeat there alone.
    starts = [random.randrange(len(plain)) for _ in range(_SAMPLES)]
    names = [name for start in starts for name in _NAMES.findall(plain, start, start + _SAMPLE_BYTES)]
    return _NEW_NAME if len(set(names)) > len(names) // 2 else _NAME


def _weight(data: bytes, *, name: int = _NEW_NAME, at_least: int = 0) -> int:
    """What the JSON weighs, with what its texts would be.

    With `at_least` only on which side of that the weight is tells anything.
    """
    weight = data.count(b",") + data.count(b"[") + data.count(b"{") + name * data.count(b":")
    if at_least and weight >= at_least:
        return weight
    numbers = data.translate(_NUMBERS)
    # What cannot make the difference is not looked for: that takes longer than all before it.
    if weight + _LONG_DIGITS * (numbers.count(b"0") // LONG_DIGITS) >= at_least:
        weight += _LONG_DIGITS * numbers.count(b"0" * LONG_DIGITS)
    if weight + _LONG_WHOLE * numbers.count(b".") >= at_least:
        weight += _LONG_WHOLE * numbers.count(b"0000000000000000.")
    if weight + (_EXPONENT + _GREAT_EXPONENT) * numbers.count(b"e") >= at_least:
        exponents = numbers.count(b"e0") + numbers.count(b"e-0")
        weight += _EXPONENT * exponents
        if weight + _GREAT_EXPONENT * exponents >= at_least:
            weight += _GREAT_EXPONENT * (numbers.count(b"e000") + numbers.count(b"e-000"))
    return weight


def too_heavy(data: bytes, most: int = MOST_VALUES, *, between: Callable[[], object] = _go_on) -> str | None:
    """Why the JSON takes too long to be read; None where it does not. `between` is as for `weighs_more`."""
    if not weighs_more(data, most, between=between):
        return None
    return (
        f"it takes as long to be read as more than {most:,} values, of which long numbers and great exponents"
        " count as many"
    )
