"""A model call as attributes of OpenTelemetry's conventions for generative AI.

Their status is development: what they call messages, parts and reasons is mapped here and nowhere else.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from runglass.log.trace import ModelCall

_PROVIDERS = {
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "google": "gcp.gemini",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "grok": "x_ai",
    "xai": "x_ai",
}
"""Names of ours that the conventions have another one for."""

_SETTINGS = ("temperature", "top_p", "top_k", "max_tokens", "frequency_penalty", "presence_penalty", "seed")
_REASONS = {"tool_calls": "tool_call"}

Attribute = tuple[str, Any]


def model_name(call: ModelCall) -> str:
    """The model that was asked for, without its provider."""
    return call.model.partition(":")[2] or call.model


def call_attributes(call: ModelCall, provider: str | None, *, operation: str = "chat") -> Iterator[Attribute]:
    """The attributes of a span, None where there is none; content only where it is kept."""
    yield "gen_ai.operation.name", operation
    yield "gen_ai.provider.name", provider and _PROVIDERS.get(provider, provider)
    yield "gen_ai.request.model", model_name(call)
    yield "gen_ai.response.model", call.model_used
    if call.finish_reason is not None:
        yield "gen_ai.response.finish_reasons", [call.finish_reason]
    if call.tokens is not None:
        yield "gen_ai.usage.input_tokens", call.tokens.prompt
        yield "gen_ai.usage.output_tokens", call.tokens.completion
    yield "gen_ai.usage.cache_read.input_tokens", call.cached_tokens
    yield "gen_ai.usage.cache_write.input_tokens", call.cache_write_tokens
    yield "gen_ai.usage.reasoning.output_tokens", call.reasoning_tokens
    yield "gen_ai.request.stream", call.streamed
    if call.time_to_first_token_ms is not None:
        yield "gen_ai.response.time_to_first_chunk", call.time_to_first_token_ms / 1000
    yield "error.type", call.error_code
    yield "runglass.cost_usd", call.cost_usd
    yield "runglass.cost_unknown", call.cost_unknown
    yield "runglass.cost_estimated", call.cost_estimated or None
    yield "runglass.provider_request_id", call.request_id
    if isinstance(call.request, dict):
        yield from _request_attributes(call.request)
    if isinstance(call.response, dict):
        reason = _REASONS.get(call.finish_reason or "", call.finish_reason or "stop")
        message = {**_message(call.response), "finish_reason": reason}
        yield "gen_ai.output.messages", _json([message])


def tool_attributes(call: ModelCall, following: ModelCall) -> Iterator[list[Attribute]]:
    """Of each tool that a call asked for and whose result the following one has; none without content."""
    response, request = call.response, following.request
    asked = response.get("toolCalls") if isinstance(response, dict) else None
    told = request.get("messages") if isinstance(request, dict) else None
    results = {
        message.get("toolCallId"): message.get("content")
        for message in (told if isinstance(told, list) else ())
        if isinstance(message, dict) and message.get("role") == "tool"
    }
    for each in asked if isinstance(asked, list) else ():
        if isinstance(each, dict) and each.get("id") in results:
            part = _tool_call(each)
            yield [
                ("gen_ai.operation.name", "execute_tool"),
                ("gen_ai.tool.name", part["name"]),
                ("gen_ai.tool.call.id", part["id"]),
                ("gen_ai.tool.type", "function"),
                ("gen_ai.tool.call.arguments", _json(part["arguments"])),
                ("gen_ai.tool.call.result", _json(results[part["id"]])),
            ]


def _request_attributes(request: dict[str, Any]) -> Iterator[Attribute]:
    settings = request.get("settings")
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name in _SETTINGS and type(value) in (int, float):
            yield f"gen_ai.request.{name}", value
    if isinstance(system := request.get("system"), str):
        yield "gen_ai.system_instructions", _json([{"type": "text", "content": system}])
    # Content that was cut may have another shape.
    if isinstance(messages := request.get("messages"), list):
        yield "gen_ai.input.messages", _json([_message(each) for each in messages if isinstance(each, dict)])
    if isinstance(tools := request.get("tools"), list):
        yield "gen_ai.tool.definitions", _json(tools)


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = str(message.get("role", "user")), message.get("content")
    if role == "tool":
        parts = [{"type": "tool_call_response", "id": message.get("toolCallId"), "response": content}]
    else:
        parts = list(_parts(content))
        calls = message.get("toolCalls")
        if isinstance(calls, list):
            parts += [_tool_call(call) for call in calls if isinstance(call, dict)]
    return {"role": role, "parts": parts}


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    for part in content if isinstance(content, list) else [content]:
        match part:
            case None:
                continue
            case str():
                yield {"type": "text", "content": part}
            case {"type": "text", "text": str(text)}:
                yield {"type": "text", "content": text}
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                yield {"type": "uri", "modality": "image", "uri": url}
            case _:
                yield {"type": "text", "content": _json(part)}


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # A model may have sent what is no JSON: it is passed on as it is.
        with suppress(msgspec.DecodeError, RecursionError):
            arguments = msgspec.json.decode(arguments)
    return {"type": "tool_call", "id": call.get("id"), "name": function.get("name"), "arguments": arguments}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
