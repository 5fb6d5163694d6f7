"""Exact money: what a model call costs in US dollars, and how that is written.

Decimal arithmetic alone, with room enough that nothing is rounded. Knows configured prices; the list prices
of hosted models are the provider side's business.
"""

from decimal import Context, Decimal, localcontext

from runglass.settings import Price

__all__ = ["Price", "cost_of", "format_usd", "picodollars"]

_ROOMY = Context(prec=100)


def cost_of(price: Price, *, prompt: int, completion: int, cached: int = 0) -> Decimal:
    """The exact cost of one call; `cached` of the `prompt` tokens came from the provider's cache."""
    cached_price = (
        price.input_per_mtok if price.cached_input_per_mtok is None else price.cached_input_per_mtok
    )
    with localcontext(_ROOMY):
        fresh = prompt - cached
        of_a_million = (
            fresh * price.input_per_mtok + cached * cached_price + completion * price.output_per_mtok
        )
        return of_a_million.scaleb(-6)


def picodollars(amount: Decimal) -> int:
    """The amount in whole 10^-12 US dollars, as budgets count; anything finer is rounded."""
    with localcontext(_ROOMY):
        return int(amount.scaleb(12).to_integral_value())


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
