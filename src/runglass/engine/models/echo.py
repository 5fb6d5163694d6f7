"""The built-in model `echo`: offline, deterministic, and honest about being no model at all.

It answers with the last user text, makes the smallest object that an `output_schema` accepts, and calls each
offered tool once before it answers; where a call is required, it calls in every turn. It counts words as
tokens, has no price unless one is configured, and obeys a single setting: with `parallel_tool_calls: false`
it asks for one tool at a time.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import msgspec

from runglass.config.settings import Price
from runglass.engine.models.model_types import (
    ModelAnswer,
    ModelRequest,
    ProviderResponse,
    calls_in,
    last_user_text,
    text_of,
)
from runglass.engine.models.pricing import cost_of
from runglass.engine.workers.checks import Checks
from runglass.errors import StepFailure
from runglass.flows.models import OFFLINE_MODEL
from runglass.limits.offload import LARGE_BYTES, offload
from runglass.limits.pace import current_project, paced
from runglass.log.trace import TokenBreakdown

_MARKS = bytes(ord(" ") if chr(code).isspace() else ord("x") for code in range(256))
STREAMED = 16 * 1024
"""So many characters are said a piece at a time."""
WORDS_AT_ONCE = 64
"""So many words are a piece. After it other tasks have a turn: a book must not stop the server."""


async def echo(
    request: ModelRequest, on_text: Callable[[str], None], checks: Checks, price: Price | None = None
) -> ModelAnswer:
    """Answer `request`, handing the text to `on_text` in pieces, the text beyond STREAMED at once.

    Raises StepFailure INVALID_OUTPUT where no object for the `output_schema` can be made.
    """
    calls = await _due_calls(request, checks)
    if calls:
        text, output = "", {"text": ""}
    elif request.output_schema is not None:
        output = await checks.smallest(request.output_schema)
        text = msgspec.json.encode(output).decode()
    else:
        text = last_user_text(request.messages)
        output = {"text": text}

    project_id = current_project.get()
    for index, piece in enumerate(pieces_of(text[:STREAMED])):
        async with paced("loop", project_id) if index else nullcontext():
            on_text(piece)
        await asyncio.sleep(0)
    if len(text) > STREAMED:
        # Five million words in pieces would keep the event loop busy for seconds, and no reader follows.
        on_text(text[STREAMED:])

    counting = partial(_tokens, request, text, calls)
    tokens = await offload(counting, size_bytes=sum(map(len, _said(request))) + len(text))
    cost = None if price is None else cost_of(price, prompt=tokens.prompt, completion=tokens.completion)
    response = ProviderResponse(
        model_used=OFFLINE_MODEL,
        text=text,
        tool_calls=calls,
        tokens=tokens,
        cost_usd=cost,
        cost_unknown="no_price" if cost is None else None,
        finish_reason="tool_call" if calls else "stop",
    )
    return ModelAnswer(output=output, response=response)


def pieces_of(text: str) -> Iterator[str]:
    """`text` cut after the space behind each WORDS_AT_ONCE words; the pieces join to exactly `text`."""
    return (piece.group() for piece in re.finditer(rf"\s*(?:\S+\s*){{1,{WORDS_AT_ONCE}}}|\s+", text))


async def _due_calls(request: ModelRequest, checks: Checks) -> list[dict[str, Any]]:
    if request.tool_choice == "none":
        return []
    offered = [tool["function"] for tool in request.tools]
    if isinstance(request.tool_choice, dict):
        wanted = request.tool_choice["function"]["name"]
        offered = [function for function in offered if function["name"] == wanted]
    past = [call["function"]["name"] for message in request.messages for call in calls_in(message)]
    due = [function for function in offered if function["name"] not in past]
    is_forced = request.tool_choice == "required" or isinstance(request.tool_choice, dict)
    if is_forced and not due:
        due = offered
    if request.settings.get("parallel_tool_calls") is False:
        due = due[:1]
    if not due:
        return []
    size_bytes = sum(map(len, _said(request)))
    asked = await offload(
        lambda: hashlib.sha256(msgspec.json.encode(request)).digest(), size_bytes=size_bytes
    )
    return [await _call(function, asked, checks) for function in due]


async def _call(function: dict[str, Any], asked: bytes, checks: Checks) -> dict[str, Any]:
    # Taken from all that was asked: each step and turn of a run has ids of its own, a repeated run the same.
    call_id = hashlib.sha256(asked + function["name"].encode()).hexdigest()[:12]
    try:
        arguments = await checks.smallest(function.get("parameters") or {})
    except StepFailure as failure:
        raise StepFailure(
            failure.code, f"no arguments for tool {function['name']!r}: {failure.message}", may_retry=False
        ) from failure
    return {
        "id": f"call_{call_id}",
        "type": "function",
        "function": {"name": function["name"], "arguments": msgspec.json.encode(arguments).decode()},
    }


def _said(request: ModelRequest) -> list[str]:
    return [request.system or "", *(text_of(message) for message in request.messages)]


def word_count(text: str) -> int:
    if text.isascii():
        # A list of a hundred thousand words would take ten times as long.
        marks = text.encode().translate(_MARKS)
        return marks.count(b" x") + marks.startswith(b"x")
    # A million words at once would be native code that lets no other task in.
    return len(text.split()) if len(text) <= LARGE_BYTES else sum(1 for _ in re.finditer(r"\S+", text))


def _tokens(request: ModelRequest, text: str, calls: list[dict[str, Any]]) -> TokenBreakdown:
    prompt = sum(map(word_count, _said(request)))
    completion = word_count(text)
    for call in calls:
        completion += len(f"{call['function']['name']} {call['function']['arguments']}".split())
    return TokenBreakdown(prompt=prompt, completion=completion, total=prompt + completion)
