"""Exact amounts of US dollars: added up without rounding, and written as plain decimal strings."""

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation

# Sums and differences of decimals are finite, so a context with enough digits gives them exactly. A context
# that had to round raises instead.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])


ZERO = Decimal(0)


def add_usd(one: Decimal, other: Decimal) -> Decimal:
    """The exact sum."""
    return _EXACT.add(one, other)


def subtract_usd(one: Decimal, other: Decimal) -> Decimal:
    """The exact difference."""
    return _EXACT.subtract(one, other)


def price_of(per_million: Decimal, count: int) -> Decimal:
    """The exact cost of `count` tokens at a price for a million."""
    return _EXACT.scaleb(_EXACT.multiply(per_million, Decimal(count)), -6)


def parse_usd(text: str) -> Decimal | None:
    """The amount that somebody has written; None for what is no number, or below zero."""
    try:
        usd = Decimal(text)
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and usd >= 0 else None


def format_usd(amount: Decimal) -> str:
    """A plain decimal string: no exponent, no trailing zeros, every digit kept.

    Raises ValueError for NaN and infinity.
    """
    if not amount.is_finite():
        raise ValueError(f"{amount} is not an amount of money")
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
