"""Exact amounts of US dollars: added up without rounding, and written as plain decimal strings."""

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, Inexact

# Sums and differences of decimals are finite, so a context that never has to round gives them exactly; one
# that had to round all the same raises instead.
EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact])
"""The arithmetic of all sums of money."""


ZERO = Decimal(0)


def add_usd(one: Decimal, other: Decimal) -> Decimal:
    """The exact sum."""
    return EXACT.add(one, other)


def subtract_usd(one: Decimal, other: Decimal) -> Decimal:
    """The exact difference."""
    return EXACT.subtract(one, other)


def multiply_usd(price: Decimal, quantity: int) -> Decimal:
    """The exact product."""
    return EXACT.multiply(price, Decimal(quantity))


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
