"""What tokens cost by the built-in list of prices.

The list takes half a second to import, so that is done when it is needed (`load_prices`). It takes 100 µs for
a call; with the price of a model at hand the sum is done here.
"""

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from runglass.log.money import ZERO, add_usd, price_of
from runglass.recording.dialects.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

MOST_CHARACTERS = 200
_IDS = {"bedrock": "aws", "google-vertex": "google", "xai": "x-ai"}
"""The list's names of providers that have another one in ours."""


Rates = tuple[Any, ...]
"""Prices of a million tokens: uncached, cache read, cache written, the same for an hour, completion."""


def load_prices() -> None:
    """Imports the list; for a thread, before the first price is asked for."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def list_cost(
    provider: str | None, models: tuple[str | None, ...], usage: Usage, at_ns: int
) -> Decimal | None:
    """US dollars for so many tokens of the first of the models that has a price; None where none has."""
    if provider is not None and len(provider) > MOST_CHARACTERS:
        return None
    tokens, model = usage.tokens, None
    for name in models:
        if model is None and name and len(name) <= MOST_CHARACTERS:
            model = _model(provider, name)
    if model is None or tokens is None:
        return None
    prices, rates = model
    if rates is None:
        # They change with the time of day or the year.
        rates = _rates(prices.get_prices(datetime.fromtimestamp(at_ns // 10**9, UTC)))
    read, written, hourly = usage.cache_read or 0, usage.cache_write or 0, usage.cache_write_1h
    counts = (tokens.prompt - read - written, read, written - hourly, hourly, tokens.completion)
    cost = ZERO
    for rate, count in zip(rates, counts, strict=True):
        if count:
            if rate is None:
                return None
            cost = add_usd(cost, price_of(_of_tier(rate, tokens.prompt), count))
    return cost


@lru_cache(maxsize=4096)
def _model(provider: str | None, name: str) -> "tuple[ModelInfo, Rates | None] | None":
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    # Not by its own lookup, which keeps each name that it was ever asked for.
    providers, name = get_snapshot().providers, name.lower()
    if provider is not None:
        seller = find_provider_by_id(providers, _IDS.get(provider, provider))
    else:
        known = ((each, each.model_match) for each in providers)
        seller = next((each for each, match in known if match is not None and match.is_match(name)), None)
    model = None if seller is None else seller.find_model(name, all_providers=providers)
    if model is None:
        return None
    return model, None if isinstance(model.prices, list) else _rates(model.prices)


def _rates(price: "ModelPrice") -> Rates:
    def rate(*names: str) -> Any:
        return next((found for name in names if (found := price.__dict__.get(name)) is not None), None)

    return (
        rate("input_mtok"),
        rate("cache_read_mtok", "input_mtok"),
        rate("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
        rate("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
        rate("output_mtok"),
    )


def _of_tier(rate: Any, prompt: int) -> Decimal:
    if isinstance(rate, Decimal):
        return rate
    found: Decimal = next((tier.price for tier in reversed(rate.tiers) if prompt > tier.start), rate.base)
    return found
