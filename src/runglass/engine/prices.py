"""What a model call costs in US dollars, exactly.

Knows configured prices; the list prices of hosted models are the provider side's business.
"""

from decimal import Decimal

from runglass.money import EXACT, add_usd, multiply_usd
from runglass.settings import Price

__all__ = ["Price", "cost_of"]


def cost_of(price: Price, *, prompt: int, completion: int, cached: int = 0) -> Decimal:
    """The exact cost of one call; `cached` of the `prompt` tokens came from the provider's cache."""
    cached_price = (
        price.input_per_mtok if price.cached_input_per_mtok is None else price.cached_input_per_mtok
    )
    amounts = (
        (price.input_per_mtok, prompt - cached),
        (cached_price, cached),
        (price.output_per_mtok, completion),
    )
    total = Decimal(0)
    for per_mtok, count in amounts:
        total = add_usd(total, multiply_usd(per_mtok, count))
    return total.scaleb(-6, context=EXACT)
