"""Tells quickly of most texts that they hold no secret: ordinary prose, lists of numbers, tables.

A text of 64 KB has a few hundred different words. Names that tell of a secret are looked for among those, and
the patterns are tried on the few that could be a token. A change to a pattern of the other files needs a
change here where this look would overlook its matches; a text that is not clearly harmless is left to them.
"""

import re

from runglass.redact.names import Names, weak_names
from runglass.redact.patterns import may_hold_numbers
from runglass.redact.rules import IN_BYTES, PATTERNS
from runglass.redact.views import decoded_runs, lowered, plain_letter, special_letters

_ASCII = bytes(range(128))
_LETTERS = bytes(byte for byte in _ASCII if chr(byte).isalpha())
_DIGITS = b"0123456789"
_AS_WORDS = bytes(
    ord("0") if byte in _DIGITS else byte if byte in _LETTERS or byte >= 128 else ord(" ")
    for byte in range(256)
)
"""Leaves words: letters, and `0` for each digit."""
_AS_RUNS = bytes(byte if byte in _LETTERS + _DIGITS + b"_.~+/=$:-" else ord(" ") for byte in range(256))
"""Leaves what tokens are made of. A comma is in one kind only, `quick_run`."""
_SHORTEST_TOKEN = 9
_SHORTEST_RUN = 16
"""A shorter run of letters alone is no token, and what it may be in Base64 is too short to be told."""
_LONGEST_RUN = 2048
_SIGNS = ("putty", "webhook", "hooks", "bearer", "basic", "eyj")
_MOST_SPECIAL = 8
"""Letters with a plain reading: in a text of more of them it is not quick to look for one."""


class QuickLook:
    """A look at texts for matches of `names` and of the other patterns."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._signs = {re.sub(r"[0-9]", "0", sign) for sign in names.signs}

    def is_harmless(self, data: bytes) -> bool:
        """Whether nothing in the text, which is UTF-8, can be a secret; False where that is not sure."""
        if b"\\" in data or ((b"%" in data or b"&" in data) and IN_BYTES["quick_escape"].search(data)):
            return False
        return self._is_harmless(data, may_be_special=True)

    def _is_harmless(self, data: bytes, *, may_be_special: bool) -> bool:
        if b"@" in data or (b"=" in data and (b"?" in data or b"&" in data)):
            return False
        if IN_BYTES["quick_port"].search(data) or may_hold_numbers(data):
            return False
        words = b"\n".join({*data.translate(_AS_WORDS).split()}).decode("utf-8", "replace")
        return (
            self._are_harmless(f"{words}\n", data)
            and _hold_no_token(data)
            and (words.isascii() or self._reads_harmless(words, data, may_be_special=may_be_special))
        )

    def _are_harmless(self, words: str, data: bytes) -> bool:
        """Whether no word tells of a secret beside it."""
        low, folded = lowered(words), words.casefold()
        if any(sign in low for sign in _SIGNS) or PATTERNS["quick_run"].search(low):
            return False
        if "private" in low and b"private key" in data.lower():
            return False
        if "thin" in low and b"thin:" in data.lower():
            return False
        if "000" in low and PATTERNS["quick_code"].search(low):
            return False
        if b" -" in data and PATTERNS["quick_command"].search(low):
            return False
        if any(True for _ in weak_names(words, low)):
            return False
        if not any(sign in folded for sign in self._signs):
            return True
        return not self._names.may_be_named(data.decode("utf-8", "replace").casefold())

    def _reads_harmless(self, words: str, data: bytes, *, may_be_special: bool) -> bool:
        """Whether no other reading of the text that is not ASCII hides anything."""
        if any(letter.isdecimal() and letter >= "\x80" for letter in set(words)):
            return False
        special = special_letters(words)
        if not special:
            return True
        if not may_be_special or len(special) > _MOST_SPECIAL:
            return False
        for letter in special:
            data = data.replace(letter.encode(), plain_letter(letter).encode())
        return self._is_harmless(data, may_be_special=False)


def _hold_no_token(data: bytes) -> bool:
    runs = {
        run
        for run in data.translate(_AS_RUNS).split()
        if len(run) >= _SHORTEST_TOKEN and not _is_ordinary(run)
    }
    if not runs:
        return True
    if max(map(len, runs)) >= _LONGEST_RUN:
        return False
    text = b"\n".join(runs).decode()
    if PATTERNS["token"].search(text):
        return False
    return not any(True for _ in decoded_runs(text))


def _is_ordinary(run: bytes) -> bool:
    """Whether it is a word or a number, and no token and no text in Base64 or hexadecimal."""
    is_short = len(run) < _SHORTEST_RUN
    if run.strip(b"0123456789.:+-"):
        return is_short and run.rstrip(b".:-=").isalpha()
    return is_short or not run.isdigit()
