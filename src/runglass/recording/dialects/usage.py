"""The usage that a span tells, judged, and its cost.

Uncached input, cache reads and cache writes are the prompt, exactly. Emitters differ in whether the input has
the cached tokens in it. Where the numbers show it they decide, else what is known of the emitter does.
Nothing is floored or made up: numbers that cannot be right are none.

The built-in list of prices takes half a second to import, so that is done when it is needed (`load_prices`).
It takes 100 µs for a call; with the price of a model at hand the sum is done here.
"""

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from runglass.log.money import ZERO, add_usd, format_usd, price_of
from runglass.log.trace import TokenBreakdown
from runglass.recording.dialects.attributes import Attributes, SpanHead
from runglass.recording.dialects.readers import dollars
from runglass.recording.dialects.synonyms import COUNTS

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

MOST_TOKENS = 10**10
"""No run of an agent has as many."""
MOST_CHARACTERS = 200
_COUNTS = tuple(dict.fromkeys(COUNTS.values()))
_DETAILS = ("usage_details", "prompt_details", "completion_details")
_PASS_ON = ("strands", "opentelemetry.instrumentation.botocore", "openinference.instrumentation.bedrock")
"""Scopes that pass on what Anthropic's API says, whose input is without the cache."""
_IDS = {"bedrock": "aws", "google-vertex": "google", "xai": "x-ai"}
"""The list's names of providers that have another one in ours."""

Rates = tuple[Any, ...]
"""Prices of a million tokens: uncached, cache read, cache written, the same for an hour, completion."""


class Usage(NamedTuple):
    """Tokens as they are booked; `problem` says what cannot be right where none are, `note` what is odd."""

    tokens: TokenBreakdown | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int = 0
    reasoning: int | None = None
    problem: str | None = None
    note: str | None = None


_NONE = Usage()


def told_usage(attributes: Attributes, scope: str, model: str | None, *, is_embedding: bool = False) -> Usage:
    """The usage; numbers that are not booked stay attributes."""
    found = attributes.found
    counts = {slot: found[slot] for slot in _COUNTS if slot in found}
    details: dict[str, Any] = {}
    for slot in _DETAILS:
        details |= found.get(slot, ())
    if not counts and not details:
        return _NONE
    model = (model or "").lower()
    is_raw = (
        scope.startswith(_PASS_ON)
        and any(name in model for name in ("claude", "anthropic", "nova"))
        # Strands, since it has the newer names, keeps to what they mean.
        and not attributes.is_sent("cache_read", "gen_ai.usage.cache_read.input_tokens")
    )
    usage = _read(counts, details, model=model, is_raw=is_raw, is_embedding=is_embedding)
    if usage.tokens is not None:
        for slot in counts:
            if usage.note is None or slot != "total":
                del found[slot]
    return usage


def _read(
    told: dict[str, Any], details: dict[str, Any], *, model: str, is_raw: bool, is_embedding: bool
) -> Usage:
    """The usage that is `told`, by slot, and in `details`, by names of its own."""
    told = _named(details) | told
    for slot, count in told.items():
        if type(count) is float and count.is_integer():
            told[slot] = count = int(count)
        if type(count) is not int or not 0 <= count <= MOST_TOKENS:
            return Usage(problem=f"{slot.replace('_', ' ')} tokens are {count!r:.50}")
    prompt, completion, total = told.get("prompt"), told.get("completion"), told.get("total")
    if not (prompt or completion or total):
        return _NONE
    read, write, hourly = told.get("cache_read"), told.get("cache_write"), told.get("cache_write_1h", 0)
    if parts := told.get("cache_write_5m", 0) + hourly:
        write = parts if write is None else write
        hourly = min(hourly, write)
    reasoning, cached = told.get("reasoning"), (read or 0) + (write or 0)
    if completion is None and (is_embedding or prompt == total):
        completion = 0
    if prompt is None and completion is not None and total is not None:
        prompt = total - completion
    if completion is None and prompt is not None and total is not None:
        completion = total - prompt
    if prompt is None or completion is None:
        # A stream that was left: of what is missing, nothing is known.
        known = ", ".join(f"{count} {slot}" for slot, count in told.items() if count)
        return Usage(note=f"of the tokens only {known} are told")
    if prompt < 0 or completion < 0:
        return Usage(problem=f"a total of {total} tokens with {told.get('prompt', told.get('completion'))}")
    given, uncached = prompt + completion, told.get("uncached")
    if cached and (cached > prompt or uncached == prompt):
        prompt += cached
    elif cached and (uncached is None or uncached + cached != prompt) and (is_raw or total != given):
        # Those who send all parts as one object add them up.
        prompt += cached if is_raw or "input" in details or total == given + cached else 0
    if reasoning and (
        ("output" in details and "input" in details)
        or (total == prompt + completion + reasoning)
        or (reasoning > completion and total is None and "gemini" in model)
    ):
        # Langfuse and Gemini have it beside the completion.
        completion += reasoning
    if (reasoning or 0) > completion:
        return Usage(problem=f"{reasoning} reasoning of {completion} completion tokens")
    note = None
    # As sums they are right with and without what the cache had.
    if total not in (None, prompt + completion, given):
        note = f"a total of {total} tokens is told, and {prompt} + {completion}"
    tokens = TokenBreakdown(prompt=prompt, completion=completion, total=prompt + completion)
    return Usage(tokens, read or None, write or None, hourly, reasoning or None, note=note)


def _named(details: dict[str, Any]) -> dict[str, Any]:
    """The first number of each slot, wherever it is in there."""
    told: dict[str, Any] = {}
    for name, count in details.items():
        if isinstance(count, dict):
            told = _named(count) | told
        elif name in COUNTS and count is not None:
            told.setdefault(COUNTS[name], count)
    return told


def told_cost(
    attributes: Attributes, provider: str | None, models: tuple[str | None, ...], usage: Usage, head: SpanHead
) -> tuple[str | None, str | None]:
    """The cost, and what it is by the list where the sender has told it."""
    found, told, slots = attributes.found, None, ["cost"]
    if "cost" in found:
        told = found["cost"]
    elif "cost_amount" in found and attributes.rest.get("gen_ai.usage.cost.currency", "USD") == "USD":
        told, slots = found["cost_amount"], ["cost_amount"]
    elif "prompt_cost" in found and "completion_cost" in found:
        told, slots = found["prompt_cost"] + found["completion_cost"], ["prompt_cost", "completion_cost"]
    elif details := found.get("cost_details"):
        told, slots = dollars(details.get("total", details.get("total_cost"))), []
        parts = [dollars(part) for part in details.values()]
        if told is None and None not in parts:
            told = sum((part for part in parts if part is not None), ZERO)
    ours = _list_cost(provider, models, usage, head.priced_ns) if usage.tokens else None
    listed = None if ours is None else format_usd(ours)
    if told is None or (not told and (ours or usage.tokens is None)):
        # The price of nothing, or of a model that the sender does not know, is none.
        return listed, None
    for slot in slots:
        del found[slot]
    return format_usd(told), listed


def load_prices() -> None:
    """Imports the list; for a thread, before the first price is asked for."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def _list_cost(
    provider: str | None, models: tuple[str | None, ...], usage: Usage, at_ns: int
) -> Decimal | None:
    """US dollars for so many tokens of the first of the models that has a price; None where none has."""
    if usage.tokens is None or (provider is not None and len(provider) > MOST_CHARACTERS):
        return None
    named = (_model(provider, name) for name in models if name and len(name) <= MOST_CHARACTERS)
    if (model := next(filter(None, named), None)) is None:
        return None
    prices, rates = model
    if rates is None:
        # They change with the time of day or the year.
        rates = _rates(prices.get_prices(datetime.fromtimestamp(at_ns // 10**9, UTC)))
    prompt, read, written = usage.tokens.prompt, usage.cache_read or 0, usage.cache_write or 0
    hourly, cost = usage.cache_write_1h, ZERO
    counts = (prompt - read - written, read, written - hourly, hourly, usage.tokens.completion)
    for rate, count in zip(rates, counts, strict=True):
        if count:
            if rate is None:
                return None
            if not isinstance(rate, Decimal):
                rate = next((tier.price for tier in reversed(rate.tiers) if prompt > tier.start), rate.base)
            cost = add_usd(cost, price_of(rate, count))
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
