"""Messages as any emitter sends them, in the shape that model calls of our own have.

`{role, content, toolCalls, toolCallId, attachments}` with texts in `content`, and as `toolCalls`
`{id, type, function: {name, arguments}}` with the arguments as JSON text. What has no place there keeps its
name beside them, and a part that is none of these keeps its shape in `content`.
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
_PARTS = '[{"'
_FINISH = ("finish_reason", "finishReason")
_WRAPPERS = words("message message_content tool_call document embedding prompt completion")


def messages_of(sent: Iterable[Any], role: str = "user") -> list[Message]:
    """All of a conversation; `role` is that of messages without one."""
    return [message for each in sent for message in _message(each, role)]


def system_of(told: Any) -> Any:
    """Instructions as one text; parts that are more than text stay parts."""
    return told if isinstance(told, str) else _content(told if isinstance(told, list) else [told])[0]


def without_system(messages: list[Message]) -> tuple[Any, list[Message]]:
    """The system messages that a conversation begins with, as one text, and the rest of it."""
    begin = 0
    while begin < len(messages) and messages[begin].get("role") == "system":
        if messages[begin].keys() != {"role", "content"} or type(messages[begin]["content"]) is not str:
            break
        begin += 1
    told = "\n\n".join(message["content"] for message in messages[:begin])
    return (told if begin else None), messages[begin:]


def response_of(received: list[Any]) -> tuple[Message | None, list[str]]:
    """The first answer, with any others as its `choices`, and the reasons why each of them ended."""
    answers, reasons = [], []
    for each in received:
        more: Message = {}
        if isinstance(each, dict):
            # As OpenAI's choices are, and LangChain's generations, which have the text a second time.
            inner, about = each.get("message"), each.get("generation_info")
            left = each.copy()
            for told in (left, about.copy()) if isinstance(about, dict) else (left,):
                reasons += [told.pop(name) for name in _FINISH if type(told.get(name)) is str]
            if inner is None:
                each = left
            else:
                each, redundant = inner, ("message", "index", "type", "text")
                more = {name: value for name, value in left.items() if name not in redundant}
        for message in _message(each, "assistant"):
            for name, value in more.items():
                message = message | {f"choice.{name}" if name in message else name: value}
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
    _, schema = _named(function, ("parameters", "input_schema", "inputSchema"), take=True)
    if schema is not None:
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
    if len(sent) == 2 and type(told_role := sent.get("role")) is str:
        # As most messages are.
        told: Message = {"role": _ROLES.get(told_role, told_role)}
        if type(parts := sent.get("parts")) is list:
            return _with_parts(told, parts)
        if type(content := sent.get("content")) is str and not content.startswith(_PARTS):
            return [told | {"content": content}]
    message = dict(sent)
    if "lc" in message and isinstance(message.get("kwargs"), dict):
        # LangChain, serialized: {lc, type, id: ["langchain", "schema", "messages", "HumanMessage"], kwargs}.
        kind = message.pop("id", None)
        message = message.pop("kwargs") | {
            k: v for k, v in message.items() if k not in ("lc", "type", "kwargs")
        }
        if isinstance(kind, list) and kind and isinstance(kind[-1], str):
            message.setdefault("type", kind[-1].removesuffix("Chunk").removesuffix("Message").lower())
    if "role" not in message:
        if isinstance(message.get("type"), str) and message["type"] in _ROLES:
            message["role"] = message.pop("type")
        elif (read := _part(message))[0] in ("call", "result"):
            # An item of OpenAI's responses.
            return [read[1]] if read[0] == "result" else [{"role": "assistant", "toolCalls": [read[1]]}]
    told_role = message.pop("role", None) or role
    told = {"role": _ROLES.get(told_role, told_role) if type(told_role) is str else told_role}
    _, parts = _named(
        {k: v for k, v in message.items() if isinstance(v, list)}, ("parts", "contents", "content")
    )
    if parts is not None:
        message = {name: value for name, value in message.items() if value is not parts}
    content = message.get("content")
    if (
        parts is None
        and type(content) is str
        and content.startswith(_PARTS)
        and _is_typed(found := decoded(content))
    ):
        parts = found
        del message["content"]
    _, call_id = _named(message, ("tool_call_id", "toolCallId"), take=True)
    _, calls = _named(message, ("tool_calls", "toolCalls"), take=True)
    if call_id is not None:
        told["toolCallId"] = call_id
    if isinstance(calls, list):
        told |= {"toolCalls": [_function(each) for each in calls]} if calls else {}
    elif calls is not None:
        told["tool_calls"] = calls
    told |= {name: value for name, value in message.items() if value is not None and value != {}}
    return [told] if parts is None else _with_parts(told, parts)


def _is_typed(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) and "type" in each for each in value)


def _with_parts(told: Message, parts: list[Any]) -> list[Message]:
    """The message with its parts; results of tools in it are messages of their own, before it."""
    content, others = _content(parts)
    if not others:
        return [told] if content is None else [told | {"content": content}]
    results = [said for what, said in others if what == "result"]
    calls = [said for what, said in others if what == "call"]
    images = [said for what, said in others if what == "image"]
    thoughts = [said for what, said in others if what == "reasoning"]
    if results and content is None and not (calls or images or thoughts):
        return [told | result for result in results]
    if content is not None:
        told = told | {"content": content}
    if images:
        told["attachments"] = images
    if calls:
        # LangChain has those of Anthropic's models in both places.
        known = told.get("toolCalls", [])
        ids = {call["id"] for call in known if isinstance(call, dict) and type(call.get("id")) is str}
        told["toolCalls"] = [
            *known,
            *(call for call in calls if type(call["id"]) is not str or call["id"] not in ids),
        ]
    if thoughts:
        told["reasoning"] = "\n\n".join(thoughts)
    return [*results, told]


def _content(parts: list[Any]) -> tuple[Any, list[tuple[str, Any]]]:
    """The texts of the parts as one, or all that is no call, result or image as parts; and those."""
    texts: list[str] = []
    inside: list[Any] = []
    others = []
    for part in parts:
        what, said = read = _part(part)
        if what == "text":
            texts.append(said)
            inside.append({"type": "text", "text": said})
        elif what == "other":
            inside.append(said)
        else:
            others.append(read)
    if not inside:
        return None, others
    return "\n\n".join(texts) if len(texts) == len(inside) else inside, others


def _part(part: Any) -> tuple[str, Any]:
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        return "other", part
    kind, inner = part.get("type"), part
    if kind is None and len(part) == 1:
        ((kind, inner),) = part.items()
        if kind == "text" and type(inner) is str:
            return "text", inner
    if not (isinstance(kind, str) and isinstance(inner, dict)):
        return "other", part
    if kind in ("text", "input_text", "output_text", "reasoning", "thinking"):
        name, said = _named(part, ("content", "text", "thinking"))
        if type(said) is str and (
            len(part) == 2 or not any(v for k, v in part.items() if k not in ("type", name))
        ):
            return "text" if "text" in kind else "reasoning", said
    elif kind in _RESULTS:
        return "result", _result(inner)
    elif kind in _CALLS and not inner.keys().isdisjoint(_NAMES):
        return "call", _call(inner)
    elif kind in ("image_url", "image") and len(part) == 2:
        _, image = _named(part, ("image_url", "image", "source"))
        while isinstance(image, dict) and image.keys() == {"image"}:
            image = image["image"]
        return "image", image if isinstance(image, dict) else {"url": image}
    elif kind == "uri" and isinstance(part.get("uri"), str):
        return "image", {"url": part["uri"]} | {k: v for k, v in part.items() if k not in ("type", "uri")}
    return "other", part


def _named(part: dict[str, Any], names: tuple[str, ...], *, take: bool = False) -> tuple[str | None, Any]:
    """The first of the members with these names that has a value, and its name."""
    for name in names:
        if part.get(name) is not None:
            return name, part.pop(name) if take else part[name]
    return None, None


def _function(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    if not isinstance(function := call.get("function"), dict):
        return _call(call)
    return call | {"type": "function", "function": function | {"arguments": _json(function.get("arguments"))}}


def _call(part: dict[str, Any]) -> dict[str, Any]:
    more = {name: value for name, value in part.items() if name != "type"}
    _, name = _named(more, _NAMES, take=True)
    _, call_id = _named(more, _IDS, take=True)
    _, arguments = _named(more, _ARGUMENTS, take=True)
    function = {"name": name, "arguments": _json(arguments)}
    return {"id": call_id, **more, "type": "function", "function": function}


def _json(value: Any) -> str:
    if value is None or type(value) is str:
        return value or ""
    return msgspec.json.encode(value).decode()


def _result(part: dict[str, Any]) -> Message:
    more = {name: value for name, value in part.items() if name != "type"}
    _, call_id = _named(more, _IDS, take=True)
    _, content = _named(more, _ANSWERS, take=True)
    if isinstance(content, dict) and content.keys() == {"type", "value"}:
        # The AI SDK: {type: text, value: …}.
        content = content["value"]
    told = {"role": "tool", "content": content, "toolCallId": call_id}
    return {name: value for name, value in told.items() if value is not None} | more
