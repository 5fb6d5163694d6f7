"""The most that a request to a hosted model costs, by the built-in list of prices.

Imports the list, which takes a while, so only `provider_requests.py` may import it.
"""

from decimal import Decimal

from genai_prices import Usage, calc_price

from runglass.engine.models.cost_bound import TokenBound


def list_cost(address: str | None, model: str, bound: TokenBound) -> Decimal | None:
    """US dollars for so many tokens at the provider with this address; None where the list has no price."""
    plain = Usage(input_tokens=bound.prompt, output_tokens=bound.completion)
    # Some take more for a prompt that they put into their cache.
    written = Usage(
        input_tokens=bound.prompt, cache_write_tokens=bound.prompt, output_tokens=bound.completion
    )
    costs = [_cost(address, model, plain), _cost(address, model, written)]
    return max((cost for cost in costs if cost is not None), default=None)


def _cost(address: str | None, model: str, usage: Usage) -> Decimal | None:
    if not address:
        return None
    try:
        # By address alone: a provider's name says nothing about prices once its environment points elsewhere.
        return calc_price(usage, model, provider_api_url=address).total_price
    except (LookupError, ValueError):
        return None
