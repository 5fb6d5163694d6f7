"""The cost of a model call in US dollars, exactly.

Knows configured prices; the list prices of hosted models are the provider side's business. The most that a
request can use is told before it is made: a token stands for at least one byte of text in the vocabularies
in use, so bytes bound them; what a provider adds of its own, and images, have a stated amount.
"""

from decimal import Decimal
from typing import Any

import msgspec

from runglass.config.settings import Price
from runglass.engine.models.model_types import ModelRequest
from runglass.log.money import ZERO, add_usd, price_of

_PER_REQUEST = 400
_PER_MESSAGE = 16
_FOR_TOOLS = 1_000
"""Tokens that providers add around a request, a message, and to explain tools or a form of answer.

For some models pydantic-ai begins the system text with about 185 words of its own.
"""
_SCHEMA_COPIES = 3
"""An `output_schema` may stand in the response format, in a tool and in the instructions."""


def with_max_tokens(request: ModelRequest, default_max_tokens: int) -> ModelRequest:
    """`request` with a limit of its answer: its own, or the default. Without one nothing bounds the cost."""
    if "max_tokens" in request.settings:
        return request
    return msgspec.structs.replace(request, settings={**request.settings, "max_tokens": default_max_tokens})


def prompt_bound(request: ModelRequest, *, image_tokens: int) -> int:
    """The most tokens that what is sent stands for; its images count as `image_tokens` each."""
    images = sum(len(message.get("attachments") or ()) for message in request.messages)
    prompt = _PER_REQUEST + _PER_MESSAGE * len(request.messages) + image_tokens * images
    prompt += _bytes_of([request.system, request.messages, request.tools, request.settings])
    prompt += _SCHEMA_COPIES * _bytes_of(request.output_schema)
    if request.tools or request.output_schema is not None:
        prompt += _FOR_TOOLS
    return prompt


def _bytes_of(value: Any) -> int:
    return len(msgspec.json.encode(value))


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


def most_of(price: Price, *, prompt: int, completion: int) -> Decimal:
    """The most that a call of so many tokens can cost, be they cached or not."""
    return max(cost_of(price, prompt=prompt, completion=completion, cached=cached) for cached in (0, prompt))
