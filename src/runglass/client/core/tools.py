"""The tools that a caller offers: the calls that a model makes of them, and how results go back.

Knows handlers and messages, and nothing of requests and transports.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from runglass.support.safe_text import replace_surrogates, whole_value

ToolHandler = Callable[[str, dict[str, Any]], Any]
"""Answers a call: takes a tool's name and arguments, and returns its result or, on asyncio, an awaitable."""

Results = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Results by the id of their call, or the messages that carry them."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a model made of one of the caller's tools."""

    id: str
    name: str
    arguments_json: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments. Raises ValueError where the model's text is no JSON object."""
        try:
            return msgspec.json.decode(self.arguments_json or "{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ValueError(
                f"the arguments of {self.name!r} are no JSON object ({error}): {self.arguments_json!r:.200}"
            ) from error


def calls_in(raw: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
    """The calls in an answer of the server."""
    return [
        ToolCall(id=call["id"], name=call["function"]["name"], arguments_json=call["function"]["arguments"])
        for call in raw
    ]


def result_messages(calls: Sequence[ToolCall], results: Results) -> list[dict[str, Any]]:
    """The messages that answer `calls`, all of them and no other. Raises ValueError otherwise."""
    if isinstance(results, Mapping):
        messages = [
            {"role": "tool", "toolCallId": call_id, "content": content_of(value)}
            for call_id, value in results.items()
        ]
    else:
        messages = [dict(message) for message in results]
    answered = [message.get("toolCallId", message.get("tool_call_id")) for message in messages]
    known = [call.id for call in calls]
    problems: dict[str, list[Any]] = {
        "there is no result for": [call_id for call_id in known if call_id not in answered],
        "the run does not wait for": [call_id for call_id in answered if call_id not in known],
        "there is more than one result for": [call_id for call_id in known if answered.count(call_id) > 1],
    }
    for problem, call_ids in problems.items():
        if call_ids:
            listed = ", ".join(map(repr, call_ids))
            raise ValueError(f"{problem} tool call {listed}; it waits for {', '.join(map(repr, known))}")
    return messages


def content_of(value: Any) -> str:
    """A tool's result as a model reads it: text as it is, anything else as JSON. Raises TypeError.

    Halves of characters are replaced rather than refused, as the run waits and the rest serves the model.
    """
    if isinstance(value, str):
        return replace_surrogates(value)
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(whole_value(msgspec.to_builtins(value))).decode()


def arguments_of(call: ToolCall) -> dict[str, Any] | str:
    """The arguments; where they are no JSON object, the result that tells the model so."""
    try:
        return call.arguments
    except ValueError as error:
        return content_of({"error": str(error)})
