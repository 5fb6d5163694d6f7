"""A request to a model as its provider got it, in the shape in which a trace tells it.

Pure: the body of an HTTP request in, `ModelCall.request` out. Whatever has no place of its own there is under
`settings` by the provider's names, so that nothing of a body is lost.
"""

import json
from collections.abc import Callable
from itertools import groupby
from typing import Any

import msgspec

from runglass.engine.models.model_types import ModelRequest

_SCHEMAS = (
    ("response_format", "json_schema", "schema"),
    # llama.cpp's own way.
    ("response_format", "schema"),
    ("text", "format", "schema"),
    ("output_config", "format", "schema"),
    ("generationConfig", "responseJsonSchema"),
    ("generationConfig", "responseSchema"),
)
"""Where bodies have the schema of the answer: OpenAI chat and its like, responses, Anthropic, Google."""

_Part = tuple[str, Any]
"""A part of a message: `text`, `image`, `call` of a tool, `result` of one, or `other`, and what it says."""
_ORDER = ("text", "image", "call")
"""Parts in this order make a message in our shape; any others stay as they were sent."""


def as_given(request: ModelRequest) -> dict[str, Any]:
    """`ModelCall.request` of a request that no provider got, as the built-in model's."""
    return _told(
        system=request.system,
        messages=request.messages,
        settings=request.settings or None,
        tools=request.tools or None,
        toolChoice=request.tool_choice,
        outputSchema=request.output_schema,
    )


def as_sent(data: bytes) -> dict[str, Any]:
    """`ModelCall.request` of a request with this body; one of an unknown kind is whole under `settings`."""
    try:
        return _read(msgspec.json.decode(data))
    except (AttributeError, KeyError, TypeError, RecursionError, msgspec.DecodeError):
        return {"settings": {"body": data.decode(errors="replace")}}


def _read(body: dict[str, Any]) -> dict[str, Any]:
    if "contents" in body:
        system, messages = _google(body)
    elif "input" in body:
        system, messages = _responses(body)
    else:
        system, messages = _chat(body)
    schema = next((found for path in _SCHEMAS if (found := _taken(body, *path)) is not None), None)
    tools, choice = body.pop("tools", None), body.pop("tool_choice", None)
    if choice is None:
        choice = body.pop("toolConfig", None)
    return _told(
        system=system,
        messages=messages,
        settings=body or None,
        tools=tools,
        toolChoice=choice,
        outputSchema=schema,
    )


def _told(**told: Any) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def _taken(body: Any, *path: str) -> Any:
    for name in path[:-1]:
        body = body.get(name) if isinstance(body, dict) else None
    return body.pop(path[-1], None) if isinstance(body, dict) else None


def _chat(body: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """OpenAI chat and all that are compatible, Groq, Mistral, Cohere; and Anthropic, whose parts say more."""
    sent = body.pop("messages", [])
    system = [body.pop("system")] if "system" in body else []
    while sent and sent[0].get("role") == "system" and sent[0].keys() == {"role", "content"}:
        system.append(sent.pop(0)["content"])
    messages = []
    for message in sent:
        for name, ours in (("tool_calls", "toolCalls"), ("tool_call_id", "toolCallId")):
            if message.get(name) is not None:
                message[ours] = message.pop(name)
        messages += _messages(message, message.get("content"), _chat_part)
    return _system(system), messages


def _chat_part(part: Any) -> _Part:
    match part:
        case {"type": "text", "text": str(text)} if len(part) == 2:
            return "text", text
        case {"type": "image_url", "image_url": image} if len(part) == 2:
            return "image", image if isinstance(image, dict) else {"url": image}
        case {"type": "image", "source": dict(source)} if len(part) == 2:
            return "image", source
        case {"type": "tool_use", "name": name, "input": arguments, **more}:
            return "call", _call(name, arguments, more)
        case {"type": "tool_result", "tool_use_id": call_id, **more}:
            told: dict[Any, Any] = {"role": "tool", **more, "toolCallId": call_id}
            return "result", _messages(told, more.get("content"), _chat_part)[0]
    return "other", part


def _responses(body: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """OpenAI responses: what the model said and asked for in one answer are items of their own there."""
    sent = body.pop("input")
    messages: list[dict[str, Any]] = []
    for item in [{"role": "user", "content": sent}] if isinstance(sent, str) else sent:
        told: dict[Any, Any]
        match item:
            case {"type": "function_call", "name": name, "arguments": arguments, "call_id": call_id, **more}:
                call = _call(name, arguments, {"id": call_id, **more})
                if not messages or messages[-1].get("role") != "assistant":
                    messages.append({"role": "assistant"})
                messages[-1].setdefault("toolCalls", []).append(call)
            case {"type": "function_call_output", "call_id": call_id, "output": output, **more}:
                told = {"role": "tool", "content": output, "toolCallId": call_id, **more}
                messages.append(told)
            case {"content": content}:
                messages += _messages(item, content, _responses_part)
            case _:
                messages.append(item)
    return body.pop("instructions", None), messages


def _responses_part(part: Any) -> _Part:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)} if len(part) == 2:
            return "text", text
        case {"type": "input_image", "image_url": str(url), **more}:
            return "image", {"url": url, **more}
    return "other", part


def _google(body: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    messages = []
    for content in body.pop("contents"):
        parts = content.pop("parts", None)
        role = content.get("role", "user")
        told = {**content, "role": "assistant" if role == "model" else role, "content": parts}
        messages += _messages(told, parts, _google_part)
    return _system([_taken(body, "systemInstruction", "parts")], _google_part), messages


def _google_part(part: Any) -> _Part:
    match part:
        case {"text": str(text)} if len(part) == 1:
            return "text", text
        case {"fileData": dict(data)} | {"inlineData": dict(data)} if len(part) == 1:
            ours = {"file_uri": "url", "fileUri": "url", "mime_type": "mimeType"}
            return "image", {ours.get(name, name): value for name, value in data.items()}
        case {"functionCall": {"name": name, **call}, **more}:
            return "call", _call(name, call.pop("args", {}), {**call, **more})
        case {"functionResponse": {"response": response, **answer}, **more}:
            call_id = {"toolCallId": answer.pop("id")} if "id" in answer else {}
            return "result", {"role": "tool", "content": response, **call_id, **answer, **more}
    return "other", part


def _call(name: str, arguments: Any, more: dict[Any, Any]) -> dict[str, Any]:
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return {**more, "type": "function", "function": {"name": name, "arguments": arguments}}


def _messages(message: dict[str, Any], content: Any, read: Callable[[Any], _Part]) -> list[dict[str, Any]]:
    """`message` with its content in our shape; results of tools in it are messages of their own."""
    if not isinstance(content, list) or not content:
        return [message]
    told: list[dict[str, Any]] = []
    both = zip(map(read, content), content, strict=True)
    for is_result, group in groupby(both, lambda each: each[0][0] == "result"):
        parts, sent = zip(*group, strict=True)
        if is_result:
            told += [result for _, result in parts]
            continue
        kinds = [kind for kind, _ in parts]
        if "other" in kinds or kinds != sorted(kinds, key=_ORDER.index):
            told.append({**message, "content": list(sent)})
            continue
        texts, images, calls = ([said for kind, said in parts if kind == each] for each in _ORDER)
        ours = {name: value for name, value in message.items() if name != "content"}
        if texts:
            ours["content"] = "\n\n".join(texts)
        if images:
            ours["attachments"] = images
        if calls:
            ours["toolCalls"] = calls
        told.append(ours)
    return told


def _system(sent: list[Any], read: Callable[[Any], _Part] = _chat_part) -> Any:
    """The system texts with an empty line between them; parts that are more than text stay parts."""
    parts = [
        part
        for each in sent
        if each is not None
        for part in ([{"type": "text", "text": each}] if isinstance(each, str) else each)
    ]
    said = [read(part) for part in parts]
    if any(kind != "text" for kind, _ in said):
        return parts
    return "\n\n".join(text for _, text in said) if said else None
