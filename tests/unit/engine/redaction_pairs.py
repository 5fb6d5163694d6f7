"""What the pairs of the redaction corpus are made of. All secrets are made up."""

import random
import string
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """A value with a secret, the part of it that must go, and a look-alike that must stay as it is."""

    kind: str
    value: Any
    secret: str
    harmless: Any


def body(length: int, *, upper: bool = False, hex_: bool = False) -> str:
    """Random letters and digits, the same at each call: what stands behind a token's prefix."""
    letters = "0123456789abcdef" if hex_ else string.ascii_uppercase if upper else string.ascii_letters
    drawn = random.Random(length).choices(letters + ("" if hex_ else string.digits), k=length)
    # Any real token of such a length has a digit.
    return "".join([*drawn[:-2], "7", drawn[-1]])


def luhn(digits: str) -> str:
    """The digits and the check digit of a card number behind them."""
    doubled = [int(digit) * (2 if i % 2 == 0 else 1) for i, digit in enumerate(reversed(digits))]
    total = sum(value - 9 if value > 9 else value for value in doubled)
    return digits + str(-total % 10)


def json_escaped(text: str) -> str:
    r"""Every letter as JSON may write it: `\u0070` for p."""
    return "".join(f"\\u{ord(letter):04x}" for letter in text)
