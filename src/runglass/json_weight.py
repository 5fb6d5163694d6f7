"""How long JSON takes to be read, told before it is: that is native code, which lets nobody else in.

A number of 4,300 digits, the longest that Python reads, takes 0.3 ms, and a million small values a tenth of a
second and 64 bytes each or more. Knows nothing of where the JSON is from.
"""

import re

MOST_VALUES = 1_500_000
"""Values that a body, or the result of a step, may have where no setting says more or less."""
MOST = 100
"""So many long numbers are read: 30 ms at worst."""
DIGITS = 500
_LONG = re.compile(rb"[0-9]{%d,}+" % DIGITS)
_ALL_DIGITS = b"0123456789"


def values_in(data: bytes) -> int:
    """About how many values the JSON has, by its commas and opening brackets, those in texts too."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def has_more_values(data: bytes, most: int) -> bool:
    """Whether the JSON has more values than that, its texts left out of the count."""
    if len(data) <= most or values_in(data) <= most:
        return False
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"")
    # Each text is a value or a name. The pieces between the quotes are made only where they are few.
    return plain.count(b'"') > 4 * most or values_in(b"".join(plain.split(b'"')[::2])) > most


def has_many_long_numbers(data: bytes) -> bool:
    """Whether the JSON has more than MOST numbers of DIGITS or more; such in texts are counted, too."""
    if len(data) < MOST * DIGITS:
        return False
    # Most JSON has few digits, which are counted a hundred times as fast.
    if len(data) - len(data.translate(None, _ALL_DIGITS)) < MOST * DIGITS:
        return False
    return sum(1 for _ in _LONG.finditer(data)) > MOST


def too_heavy(data: bytes) -> str | None:
    """Why the JSON of a result takes too long to be read; None where it does not."""
    if has_more_values(data, MOST_VALUES):
        return f"it has more than {MOST_VALUES:,} values"
    if has_many_long_numbers(data):
        return f"it has more than {MOST} numbers of {DIGITS} digits or more"
    return None
