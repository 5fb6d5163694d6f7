"""Numbers of hundreds of digits in JSON: to read one takes time by the square of its digits.

A number of 4,300 digits, the longest that Python reads, takes 0.3 ms, in native code that lets nobody else
in. Two thousand of them would hold up everybody for most of a second. Knows nothing of where the JSON is from.
"""

import re

MOST = 100
"""So many long numbers are read: 30 ms at worst."""
DIGITS = 500
_LONG = re.compile(rb"[0-9]{%d,}+" % DIGITS)
_ALL_DIGITS = b"0123456789"


def has_many_long_numbers(data: bytes) -> bool:
    """Whether the JSON has more than MOST numbers of DIGITS or more; such in texts are counted, too."""
    if len(data) < MOST * DIGITS:
        return False
    # Most JSON has few digits, which are counted a hundred times as fast.
    if len(data) - len(data.translate(None, _ALL_DIGITS)) < MOST * DIGITS:
        return False
    return sum(1 for _ in _LONG.finditer(data)) > MOST
