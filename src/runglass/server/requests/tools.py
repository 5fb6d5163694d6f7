"""The tools that a caller offers, and the results that it sends back for the calls a model made of them.

Pure checks. Knows no flow and no run.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from runglass.errors import APIError, api_error
from runglass.server.requests.attachments import is_content, read_content

MAX_TOOLS = 64

_FIELDS: dict[str, tuple[type, str]] = {
    "description": (str, "text"),
    "parameters": (dict, "a JSON Schema object"),
    "strict": (bool, "true or false"),
}
_CHOICES = ("auto", "none", "required")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_tools(tools: list[dict[str, Any]], tool_choice: str | dict[str, Any] | None) -> None:
    """Raises TOOLS_INVALID or TOOL_NAME_INVALID unless both are in the OpenAI function format.

    Members that the format does not have are left for the provider.
    """
    if len(tools) > MAX_TOOLS:
        raise api_error("TOOLS_INVALID", f"`tools` has {len(tools)} entries; at most {MAX_TOOLS} are taken")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        name = _checked_name(tool, f"tools[{index}]")
        if name in names:
            raise api_error("TOOLS_INVALID", f"`tools[{index}]`: there is a tool {name!r} before it")
        names.add(name)
    _check_choice(tool_choice, names)


def match_tool_results(
    pending_calls: Sequence[Mapping[str, Any]],
    tool_call_messages: Sequence[dict[str, Any]],
    *,
    execution_id: str | None = None,
) -> list[dict[str, Any]]:
    """The results of the pending calls, in the order of the calls, as `{role, toolCallId, name, content}`.

    `tool_call_messages` is the conversation that the caller was given, with the results appended. Only
    messages after the last assistant turn count, so that results of earlier rounds do not. `content` is
    always text; any other value is turned into JSON. Raises TOOL_RESULTS_MISMATCH.
    """
    given: dict[str, str] = {}
    names = {call["id"]: call["function"]["name"] for call in pending_calls}
    first = 0
    for index, message in enumerate(tool_call_messages, 1):
        if message.get("role") == "assistant":
            first = index
    for index, message in enumerate(tool_call_messages[first:], first):
        call_id, content = _result(message, f"toolCallMessages[{index}]", execution_id)
        if call_id in given:
            raise _mismatch(f"there are two results for the tool call {call_id!r}", execution_id)
        if call_id not in names:
            waiting = ", ".join(repr(name) for name in names)
            raise _mismatch(f"no tool call {call_id!r} is pending; the run waits for {waiting}", execution_id)
        given[call_id] = content
    missing = [repr(call_id) for call_id in names if call_id not in given]
    if missing:
        raise _mismatch(f"there is no result for the tool call {', '.join(missing)}", execution_id)
    return [
        {"role": "tool", "toolCallId": call_id, "name": name, "content": given[call_id]}
        for call_id, name in names.items()
    ]


def result_text(value: Any, path: str, *, execution_id: str | None = None) -> str:
    """A tool's result as a model reads it: text, or parts of text, as it is, anything else as JSON.

    Raises INVALID_ATTACHMENT for parts that are images.
    """
    if isinstance(value, str):
        return value
    if not is_content(value):
        return msgspec.json.encode(value).decode()
    if (content := read_content(value, path)).images:
        raise api_error(
            "INVALID_ATTACHMENT",
            f"`{path}`: a tool's result has text alone; show its image in the user's next message",
            execution_id=execution_id,
        )
    return content.text


def whole_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """A checked `toolChoice` in the OpenAI format: one function may be named by its bare name."""
    if choice is None or isinstance(choice, dict) or choice in _CHOICES:
        return choice
    return {"type": "function", "function": {"name": choice}}


def _checked_name(tool: dict[str, Any], path: str) -> str:
    function = tool.get("function")
    if not isinstance(function, dict) or tool.get("type") != "function":
        raise api_error("TOOLS_INVALID", f"`{path}` must be `{{type: 'function', function: {{name, …}}}}`")
    for field, (kind, words) in _FIELDS.items():
        if function.get(field) is not None and not isinstance(function[field], kind):
            raise api_error("TOOLS_INVALID", f"`{path}.function.{field}` must be {words}")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise api_error(
            "TOOL_NAME_INVALID",
            f"`{path}.function.name` must be 1 to 64 letters, digits, `_` or `-`, not {name!r:.100}",
        )
    return name


def _check_choice(choice: str | dict[str, Any] | None, names: set[str]) -> None:
    match choice:
        case None | "auto" | "none":
            return
        case "required":
            if names:
                return
            raise api_error("TOOLS_INVALID", "`toolChoice` is 'required', but there are no `tools`")
        case str(name) | {"type": "function", "function": {"name": str(name)}}:
            if name in names:
                return
            raise api_error("TOOLS_INVALID", f"`toolChoice` names {name!r:.100}, which is not among `tools`")
    raise api_error(
        "TOOLS_INVALID",
        "`toolChoice` must be 'auto', 'none', 'required', the name of a tool or"
        " `{type: 'function', function: {name: …}}`",
    )


def _result(message: dict[str, Any], path: str, execution_id: str | None) -> tuple[str, str]:
    if message.get("role") not in (None, "tool"):
        raise _mismatch(f"`{path}` is not the result of a tool call", execution_id)
    call_ids = [message[field] for field in ("toolCallId", "tool_call_id") if message.get(field) is not None]
    call_id = call_ids[0] if call_ids and call_ids[0] == call_ids[-1] else None
    if not isinstance(call_id, str):
        raise _mismatch(f"`{path}` must name its tool call in `toolCallId`", execution_id)
    contents = [message[field] for field in ("content", "output") if field in message]
    if len(contents) != 1:
        problem = "has both `content` and `output`" if contents else "has no `content`"
        raise _mismatch(f"`{path}`, the result of tool call {call_id!r}, {problem}", execution_id)
    return call_id, result_text(contents[0], f"{path}.content", execution_id=execution_id)


def _mismatch(message: str, execution_id: str | None) -> APIError:
    return api_error("TOOL_RESULTS_MISMATCH", message, execution_id=execution_id)
