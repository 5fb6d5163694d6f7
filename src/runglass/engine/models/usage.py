"""What a provider says that a call has used, judged, and its cost.

Numbers of a provider come from a stranger, and its library hands most of them on as they are. One that cannot
be right makes all of them worthless: nothing is booked of them, and the trace says why.

Imports the built-in list of prices, which takes a while, so only the side of the providers may import it.
"""

from contextlib import suppress
from copy import copy
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from runglass.config.settings import Price
from runglass.engine.models.model_types import ModelRequest
from runglass.engine.models.pricing import cost_of, prompt_bound
from runglass.log.trace import TokenBreakdown

MOST_TOKENS = 100_000_000
"""No context of a model is as large, by a factor of ten."""
BEYOND_BELIEF = 2
"""So many times what was allowed or sent is beyond what tokenizers can differ by."""
MOST_USD_A_TOKEN, MOST_USD_A_CALL = Decimal("0.01"), Decimal(1)
"""The dearest token in the price lists costs a tenth; searches and the like are charged per call."""
MOST_DECIMALS = 30

_NO_COUNTS = frozenset({"details", "cost", "audio_seconds"})


class Usage(NamedTuple):
    """Tokens and cost of a call as they are booked; `problem` says what cannot be right where none are."""

    tokens: TokenBreakdown | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: Decimal | None = None
    cost_unknown: Literal["no_usage", "no_price", "bad_usage"] | None = None
    problem: str | None = None


def read_usage(
    request: ModelRequest, given: ModelResponse, *, price: Price | None, image_tokens: int
) -> Usage:
    """The usage in the answer `given` to `request`; without a configured `price` the list price holds."""
    usage = given.usage
    prompt, completion, cached = usage.input_tokens, usage.output_tokens, usage.cache_read_tokens
    reasoning = usage.output_reasoning_tokens or usage.details.get("reasoning_tokens") or 0
    counts = {name: count for name, count in vars(usage).items() if name not in _NO_COUNTS}
    # pydantic-ai sets no number where one of them is negative, or is missing.
    is_read = {"input_tokens", "output_tokens"} <= counts.keys()
    if usage.unmeasured_requests or (is_read and prompt == completion == 0):
        return Usage(cost_unknown="no_usage")
    if problem := _odd_count(counts | {"reasoning_tokens": reasoning}):
        return Usage(cost_unknown="bad_usage", problem=problem)
    limit = request.settings.get("max_tokens")
    problem = None
    if not is_read:
        problem = "its numbers cannot be read"
    elif not prompt or (given.parts and not completion):
        problem = f"{prompt} prompt and {completion} completion tokens"
    elif max(cached, usage.cache_write_tokens) > prompt:
        problem = f"{max(cached, usage.cache_write_tokens)} cached of {prompt} prompt tokens"
    elif reasoning > completion:
        problem = f"{reasoning} reasoning of {completion} completion tokens"
    elif type(limit) is int and completion > BEYOND_BELIEF * limit:
        problem = f"{completion} completion tokens where `max_tokens` is {limit}"
    elif prompt > BEYOND_BELIEF * (most := prompt_bound(request, image_tokens=image_tokens)):
        problem = f"{prompt} prompt tokens where the request has {most} at most"
    elif price is None and usage.cost is not None and not _is_believable(usage.cost, prompt + completion):
        problem = f"a cost of ${usage.cost:.3g} for {prompt + completion} tokens"
    if problem is not None:
        return Usage(cost_unknown="bad_usage", problem=problem)
    if price is None:
        cost = _list_cost(given)
    else:
        cost = cost_of(price, prompt=prompt, completion=completion, cached=cached)
    return Usage(
        tokens=TokenBreakdown(prompt=prompt, completion=completion, total=prompt + completion),
        cached_tokens=cached or None,
        reasoning_tokens=reasoning or None,
        cost_usd=cost,
        cost_unknown="no_price" if cost is None else None,
    )


def _odd_count(counts: dict[str, object]) -> str | None:
    for name, count in counts.items():
        if type(count) is not int:
            # No text of a provider, since every capture mode keeps this.
            told = f"{count!r:.50}" if isinstance(count, float | None) else f"a {type(count).__name__}"
            return f"{name} is {told}, not a whole number"
        if not 0 <= count <= MOST_TOKENS:
            return f"{name} is {'negative' if count < 0 else f'over {MOST_TOKENS:,}'}"
    return None


def _is_believable(cost_usd: Decimal, tokens: int) -> bool:
    exponent = cost_usd.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MOST_DECIMALS:
        return False
    return 0 <= cost_usd <= MOST_USD_A_CALL + MOST_USD_A_TOKEN * tokens


def _list_cost(response: ModelResponse) -> Decimal | None:
    if response.usage.cost is not None or not response.model_name:
        return response.usage.cost
    try:
        # By address alone: a provider's name says nothing about prices once its environment points elsewhere.
        return calc_price(
            response.usage,
            response.model_name,
            provider_api_url=response.provider_url,
            genai_request_timestamp=response.timestamp,
            price_context=response.provider_details,
        ).total_price
    except (LookupError, ValueError):
        return None


def list_cost(address: str | None, model: str, *, prompt: int, completion: int) -> Decimal | None:
    """US dollars for so many tokens at the provider with this address; None where the list has no price."""
    costs: list[Decimal] = []
    # Some take more for a prompt that they put into their cache.
    for written in (0, prompt) if address else ():
        usage = PricedUsage(input_tokens=prompt, cache_write_tokens=written, output_tokens=completion)
        # By address alone, as above.
        with suppress(LookupError, ValueError):
            costs.append(calc_price(usage, model, provider_api_url=address).total_price)
    return max(costs, default=None)


def take_usage_as_totals(stream: StreamedResponse) -> None:
    """Lets the largest count of each kind hold; the library adds them up.

    Some servers tell each time what was used so far, others the prompt first and the rest in the end.
    """
    add = stream._add_usage

    def take(usage: RequestUsage, *, reported: bool, cumulative: bool = False) -> None:
        add(usage if cumulative else _larger(usage, stream.usage), reported=reported, cumulative=True)

    stream._add_usage = take  # type: ignore[method-assign]


def _larger(usage: RequestUsage, before: RequestUsage) -> RequestUsage:
    """`usage` with those counts of `before` that are larger. What is no count stays, to be judged later."""
    larger = copy(usage)
    # The library leaves out texts, too.
    details: dict[str, Any] = usage.details
    larger.details = {name: count for name, count in details.items() if isinstance(count, int)}
    _raise_counts(vars(larger), vars(before))
    _raise_counts(larger.details, before.details)
    larger.cost = before.cost if usage.cost is None else usage.cost
    return larger


def _raise_counts(counts: dict[str, Any], least: dict[str, Any]) -> None:
    for name, count in least.items():
        now = counts.setdefault(name, count)
        if isinstance(now, int | float) and isinstance(count, int | float) and 0 <= now < count:
            counts[name] = count
