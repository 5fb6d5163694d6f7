"""The most that a request to a model can use, in tokens, told before it is made.

Pure. A token stands for at least one byte of text in the vocabularies in use, so bytes bound them; what a
provider adds of its own, and images, have a stated amount.
"""

from typing import Any, NamedTuple

import msgspec

from runglass.engine.models.model_types import ModelRequest

_PER_REQUEST = 400
_PER_MESSAGE = 16
_FOR_TOOLS = 1_000
"""Tokens that providers add around a request, a message, and to explain tools or a form of answer.

For some models pydantic-ai begins the system text with about 185 words of its own.
"""
_SCHEMA_COPIES = 3
"""An `output_schema` may stand in the response format, in a tool and in the instructions."""


class TokenBound(NamedTuple):
    """No request uses more tokens than these."""

    prompt: int
    completion: int


def with_max_tokens(request: ModelRequest, default_max_tokens: int) -> ModelRequest:
    """`request` with a limit of its answer: its own, or the default. Without one nothing bounds the cost."""
    if "max_tokens" in request.settings:
        return request
    return msgspec.structs.replace(request, settings={**request.settings, "max_tokens": default_max_tokens})


def token_bound(request: ModelRequest, *, image_tokens: int) -> TokenBound:
    """The bound of a request with a `max_tokens` of 1 or more; its images count as `image_tokens` each."""
    return TokenBound(prompt_bound(request, image_tokens=image_tokens), request.settings["max_tokens"])


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
