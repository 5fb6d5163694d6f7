"""Messages as any emitter sends them, in the shape that model calls of our own have.

`{role, content, toolCalls, toolCallId, attachments}` with texts in `content`, and as `toolCalls`
`{id, type, function: {name, arguments}}` with the arguments as JSON text. What has no place there keeps its
name beside them, and a part that is none of these keeps its shape in `content`. All that is known of shapes
is the names of members: a message has parts, a text, or calls, and a part is a text, a call or a result.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from runglass.recording.dialects.readers import by_word, decoded, words

Message = dict[str, Any]

_ROLES = by_word("""
user: human user
assistant: ai model assistant
tool: function tool
system: system
""")
_PARTS = ("parts", "contents", "content")
_TEXTS = by_word("""
text: text input_text output_text
reasoning: reasoning thinking
""")
_CALLS = words("tool_call tool-call tool_use toolUse functionCall function_call")
_RESULTS = words(
    "tool_call_response tool-result tool_result toolResult functionResponse function_response"
    " function_call_output"
)
"""Types of parts, or of Bedrock and Google, which have no types, the name of their one member."""
_NAMES = ("name", "toolName")
_IDS = ("call_id", "tool_use_id", "tool_call_id", "toolCallId", "toolUseId", "id")
_ARGUMENTS = ("arguments", "args", "input")
_ANSWERS = ("response", "result", "output", "content")
_WRAPPERS = words("message message_content tool_call document embedding prompt completion")


def messages_of(sent: Iterable[Any], role: str = "user") -> list[Message]:
    """All of a conversation; `role` is that of messages without one."""
    return [message for each in sent for message in _message(each, role)]


def system_of(told: Any) -> Any:
    """Instructions as one text; parts that are more than text stay parts."""
    return told if isinstance(told, str) else _content(told if isinstance(told, list) else [told])[0]


def without_system(messages: list[Message]) -> tuple[Any, list[Message]]:
    """The system messages that a conversation begins with, as one text, and the rest of it."""
    texts: list[str] = []
    for message in messages:
        if message.get("role") != "system" or message.keys() != {"role", "content"}:
            break
        if type(message["content"]) is not str:
            break
        texts.append(message["content"])
    return ("\n\n".join(texts) if texts else None), messages[len(texts) :]


def response_of(received: list[Any]) -> tuple[Message | None, list[str]]:
    """The first answer, with any others as its `choices`, and the reasons why each of them ended."""
    if not received:
        return None, []
    answers: list[Message] = []
    reasons: list[str] = []
    for each in received:
        more: Message = {}
        if isinstance(each, dict):
            each = each.copy()
            info = each.get("generation_info")
            for told in (each, info.copy()) if isinstance(info, dict) else (each,):
                for name in ("finish_reason", "finishReason"):
                    reasons += [told.pop(name)] if type(told.get(name)) is str else []
            if each.get("message") is not None:
                # As OpenAI's choices are, and LangChain's generations, which have the text a second time.
                more, each = each, each["message"]
                more = {k: v for k, v in more.items() if k not in ("message", "index", "type", "text")}
        for message in _message(each, "assistant"):
            message |= {f"choice.{name}" if name in message else name: value for name, value in more.items()}
            is_item = isinstance(each, dict) and "role" not in each
            if answers and is_item and message.keys() == {"role", "toolCalls"}:
                # Each call of a tool by itself: they are of one answer.
                answers[-1].setdefault("toolCalls", []).extend(message["toolCalls"])
            else:
                answers.append(message)
    if not answers:
        return None, reasons
    first = {"role": "assistant", "content": None} | answers[0]
    return first | {"choices": answers[1:]} if len(answers) > 1 else first, reasons


def tools_of(told: list[Any]) -> list[Any]:
    """Definitions of tools in the format of OpenAI's functions, where they can be read."""
    return [_tool(each) if isinstance(each, dict) else each for each in told]


def _tool(tool: dict[str, Any]) -> Any:
    for wrapper in ("tool", "json_schema"):
        # OpenInference: `llm.tools.0.tool.json_schema`, a JSON text.
        inner = tool.get(wrapper) if len(tool) == 1 else None
        inner = decoded(inner) if isinstance(inner, str) else inner
        tool = inner if isinstance(inner, dict) else tool
    if "function" in tool or not isinstance(tool.get("name"), str):
        return tool
    function = {name: value for name, value in tool.items() if name != "type"}
    if (schema := _take(function, ("parameters", "input_schema", "inputSchema"))) is not None:
        function["parameters"] = schema if not isinstance(schema, str) else decoded(schema) or schema
    return {"type": tool.get("type", "function"), "function": function}


def unfolded(tree: Any) -> Any:
    """What keys with indexes and wrappers made into nested objects, as lists without them."""
    if type(tree) is not dict:
        return tree
    if len(tree) == 1 and (only := next(iter(tree))) in _WRAPPERS:
        return unfolded(tree[only])
    if "".join(tree).isdecimal():
        return [unfolded(tree[key]) for key in sorted(tree, key=int)]
    return {key: unfolded(value) for key, value in tree.items()}


def _message(sent: Any, role: str) -> list[Message]:
    if isinstance(sent, list):
        return messages_of(sent, role)
    if not isinstance(sent, dict):
        return [{"role": role, "content": sent}]
    if len(sent) == 2 and type(kind := sent.get("role")) is str:
        # As most messages are.
        if type(parts := sent.get("parts")) is list:
            return _with_parts({"role": _ROLES.get(kind, kind)}, parts)
        if type(content := sent.get("content")) is str and not content.startswith('[{"'):
            return [{"role": _ROLES.get(kind, kind), "content": content}]
    message = dict(sent)
    if "lc" in message and isinstance(message.get("kwargs"), dict):
        # LangChain, serialized: {lc, type, id: ["langchain", "schema", "messages", "HumanMessage"], kwargs}.
        kind = message.pop("id", None)
        kind = kind[-1] if isinstance(kind, list) and kind else ""
        message = {"type": str(kind).removesuffix("Chunk").removesuffix("Message").lower()} | message[
            "kwargs"
        ]
    told_role = message.pop("role", None)
    if told_role is None:
        kind = message.get("type")
        if type(kind) is str and kind in _ROLES:
            told_role = message.pop("type")
        elif (read := _part(message))[0] in ("call", "result"):
            # An item of OpenAI's responses.
            return [read[1] if read[0] == "result" else {"role": "assistant", "toolCalls": [read[1]]}]
    told_role = told_role or role
    told: Message = {"role": _ROLES.get(told_role, told_role) if type(told_role) is str else told_role}
    parts = next((message.pop(name) for name in _PARTS if type(message.get(name)) is list), None)
    if type(content := message.get("content")) is str and parts is None and content.startswith('[{"'):
        found = decoded(content)
        if isinstance(found, list) and all(isinstance(each, dict) and "type" in each for each in found):
            parts = found
            del message["content"]
    if (call_id := _take(message, ("tool_call_id", "toolCallId"))) is not None:
        told["toolCallId"] = call_id
    calls = _take(message, ("tool_calls", "toolCalls"))
    if isinstance(calls, list):
        told |= {"toolCalls": [_function(each) for each in calls]} if calls else {}
    elif calls is not None:
        told["tool_calls"] = calls
    told |= {name: value for name, value in message.items() if value is not None and value != {}}
    return [told] if parts is None else _with_parts(told, parts)


def _with_parts(told: Message, parts: list[Any]) -> list[Message]:
    """The message with its parts; results of tools in it are messages of their own, before it."""
    content, others = _content(parts)
    if content is not None:
        told = told | {"content": content}
    if not others:
        return [told]
    calls = others.get("call", [])
    if "image" in others:
        told["attachments"] = others["image"]
    if calls:
        # LangChain has those of Anthropic's models in both places.
        known = told.get("toolCalls", [])
        ids = {call["id"] for call in known if isinstance(call, dict) and type(call.get("id")) is str}
        calls = [call for call in calls if type(call["id"]) is not str or call["id"] not in ids]
        told["toolCalls"] = [*known, *calls]
    if "reasoning" in others:
        told["reasoning"] = "\n\n".join(others["reasoning"])
    results = others.get("result", [])
    if results and content is None and len(others) == 1:
        return [told | result for result in results]
    return [*results, told]


def _content(parts: list[Any]) -> tuple[Any, dict[str, list[Any]]]:
    """The texts of the parts as one, or all that is no call, result or image as parts; and those, by kind."""
    texts: list[str] = []
    inside: list[Any] = []
    others: dict[str, list[Any]] = {}
    for part in parts:
        what, said = _part(part)
        if what == "text":
            texts.append(said)
            inside.append({"type": "text", "text": said})
        elif what == "other":
            inside.append(said)
        else:
            others.setdefault(what, []).append(said)
    if not inside:
        return None, others
    return "\n\n".join(texts) if len(texts) == len(inside) else inside, others


def _part(part: Any) -> tuple[str, Any]:
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        return "other", part
    kind, inner = part.get("type"), part
    if kind == "text" and len(part) == 2 and type(said := part.get("content")) is str:
        return "text", said
    if kind is None and len(part) == 1:
        ((kind, inner),) = part.items()
        inner = {"text": inner} if kind == "text" else inner
    if not (isinstance(kind, str) and isinstance(inner, dict)):
        return "other", part
    more = {name: value for name, value in inner.items() if name != "type"}
    if kind in _TEXTS:
        said = _take(more, ("content", "text", "thinking"))
        if type(said) is str and not any(more.values()):
            return _TEXTS[kind], said
    elif kind in _RESULTS:
        call_id, content = _take(more, _IDS), _take(more, _ANSWERS)
        if isinstance(content, dict) and content.keys() == {"type", "value"}:
            # The AI SDK: {type: text, value: …}.
            content = content["value"]
        told = {"role": "tool", "content": content, "toolCallId": call_id}
        return "result", {name: value for name, value in told.items() if value is not None} | more
    elif kind in _CALLS and not inner.keys().isdisjoint(_NAMES):
        return "call", _call(more)
    elif kind in ("image_url", "image", "uri"):
        image = _take(more, ("image_url", "image", "source", "uri"))
        while isinstance(image, dict) and image.keys() == {"image"}:
            image = image["image"]
        if image is not None and (kind == "uri" or not more):
            return "image", (image if isinstance(image, dict) else {"url": image}) | more
    return "other", part


def _take(part: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of the members with these names that has a value, taken out."""
    for name in names:
        if part.get(name) is not None:
            return part.pop(name)
    return None


def _function(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    if not isinstance(function := call.get("function"), dict):
        return _call({name: value for name, value in call.items() if name != "type"})
    return call | {"type": "function", "function": function | {"arguments": _json(function.get("arguments"))}}


def _call(more: dict[str, Any]) -> dict[str, Any]:
    name, call_id, arguments = _take(more, _NAMES), _take(more, _IDS), _take(more, _ARGUMENTS)
    function = {"name": name, "arguments": _json(arguments)}
    return {"id": call_id, **more, "type": "function", "function": function}


def _json(value: Any) -> str:
    if value is None or type(value) is str:
        return value or ""
    return msgspec.json.encode(value).decode()
