"""The cost of a model call in US dollars, exactly.

Knows configured prices; the list prices of hosted models are the provider side's business.
"""

from decimal import Decimal

from runglass.config.settings import Price
from runglass.engine.models.cost_bound import TokenBound
from runglass.log.money import ZERO, add_usd, price_of

__all__ = ["Price", "cost_of", "most_of"]


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
    total = ZERO
    for per_mtok, count in amounts:
        total = add_usd(total, price_of(per_mtok, count))
    return total


def most_of(price: Price, bound: TokenBound) -> Decimal:
    """The most that a call of so many tokens can cost, be they cached or not."""
    whole = cost_of(price, prompt=bound.prompt, completion=bound.completion)
    cached = cost_of(price, prompt=bound.prompt, completion=bound.completion, cached=bound.prompt)
    return max(whole, cached)
