"""`messages` of a request: a conversation whose last turn is the current one.

Turns in, turns out, checked and in one spelling. Knows nothing of models.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from runglass.errors import api_error
from runglass.server.requests.attachments import (
    MAX_ATTACHMENTS,
    check_attachments,
    read_content,
    spell_attachments,
)
from runglass.server.requests.body_parsing import located
from runglass.server.requests.tools import result_text
from runglass.wire.run_api import Attachment, RunRequest, accept_both_spellings

MAX_MESSAGES_BYTES = 1_000_000
ROLES = ("user", "assistant", "tool")

CallBody = TypeVar("CallBody", bound=RunRequest)


class Conversation(NamedTuple):
    """The turns before the current one, and the text of the current one; None where the caller sent neither.

    `images` are those of the current turn.
    """

    history: list[dict[str, Any]]
    message: str | None
    images: Sequence[Attachment] = ()


class _Function(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    function: _Function
    type: str = "function"


class _Turn(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    role: str
    content: Any = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    attachments: list[Attachment] = []


def check_messages(messages: Sequence[Any] | None, *, message: str | None, size_bytes: int) -> Conversation:
    """The history and the current message of a request, from its `messages` or else its `message`.

    `size_bytes` is the size of `messages` as JSON. An empty list counts as not given. The history comes in
    camelCase, with content as text, and images beside it as `attachments`; unknown members are dropped, as
    other systems put many into their turns. Raises MESSAGES_TOO_LARGE, MESSAGES_ROLE_INVALID, INVALID_REQUEST
    and INVALID_ATTACHMENT.
    """
    if not messages:
        return Conversation([], message)
    if message is not None:
        raise api_error("INVALID_REQUEST", "`messages` and `message` exclude each other; send one of them")
    if size_bytes > MAX_MESSAGES_BYTES:
        raise api_error(
            "MESSAGES_TOO_LARGE",
            f"`messages` has {size_bytes:,} bytes; at most {MAX_MESSAGES_BYTES:,} are taken",
        )
    turns = [_turn(item, f"messages[{index}]") for index, item in enumerate(messages)]
    current = turns[-1]
    if current.role != "user":
        raise api_error(
            "MESSAGES_ROLE_INVALID",
            f"`messages[{len(turns) - 1}]` is the current turn and must be the user's, not {current.role!r}",
        )
    history = [msgspec.to_builtins(turn) for turn in turns[:-1]]
    return Conversation(history, current.content, tuple(current.attachments))


def kept_history(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """The turns that a run has kept, with their images, for a further run. A file may have had any others.

    Raises what `check_messages` raises.
    """
    turns = [_turn(item, f"messages[{index}]") for index, item in enumerate(messages)]
    for index, item in enumerate(messages):
        images = spell_attachments(item.get("attachments", []))
        try:
            turns[index] = msgspec.structs.replace(
                turns[index], attachments=msgspec.convert(images, list[Attachment])
            )
        except msgspec.ValidationError as error:
            raise api_error("INVALID_ATTACHMENT", f"`messages[{index}].attachments`: {error}") from error
        check_attachments(turns[index].attachments)
    return [msgspec.to_builtins(turn) for turn in turns]


def _turn(item: Any, path: str) -> _Turn:
    role = item.get("role") if isinstance(item, dict) else None
    if isinstance(role, str) and role not in ROLES:
        raise api_error(
            "MESSAGES_ROLE_INVALID", f"`{path}.role` must be user, assistant or tool, not {role!r:.100}"
        )
    try:
        turn = msgspec.convert(_normalized(item, path), _Turn)
    except msgspec.ValidationError as error:
        raise api_error("INVALID_REQUEST", located(error, path)) from error
    if turn.role == "tool":
        if not turn.tool_call_id:
            raise api_error("INVALID_REQUEST", f"`{path}.toolCallId`: a tool's turn needs the id of its call")
        return msgspec.structs.replace(turn, content=result_text(turn.content, f"{path}.content"))
    if turn.role == "assistant" and turn.content in (None, []):
        if not turn.tool_calls:
            raise api_error("INVALID_REQUEST", f"`{path}` has neither `content` nor `toolCalls`")
        return msgspec.structs.replace(turn, content=None)
    content = read_content(turn.content, f"{path}.content")
    if content.images and turn.role == "assistant":
        raise api_error("INVALID_REQUEST", f"`{path}.content`: an assistant's turn has text alone")
    if len(content.images) > MAX_ATTACHMENTS:
        message = f"`{path}.content` has {len(content.images)} images; at most {MAX_ATTACHMENTS} are taken"
        raise api_error("INVALID_ATTACHMENT", message)
    return msgspec.structs.replace(turn, content=content.text, attachments=content.images)


def _normalized(item: Any, path: str) -> Any:
    """A turn in camelCase and without nulls; other values come back as they are."""
    if not isinstance(item, dict):
        return item
    for name, other in (("toolCalls", "tool_calls"), ("toolCallId", "tool_call_id")):
        both = [item[spelled] for spelled in (name, other) if item.get(spelled) is not None]
        if len(both) == 2 and both[0] != both[1]:
            message = f"`{path}` has `{name}` and `{other}`, and they are not the same"
            raise api_error("INVALID_REQUEST", message)
    # The images of a turn are in its content; a member `attachments` comes from another system.
    known = {name: value for name, value in item.items() if name != "attachments" and value is not None}
    return accept_both_spellings(known, _Turn)


def normalize_messages(call_body: CallBody) -> tuple[CallBody, list[dict[str, Any]]]:
    """The request with the current turn as its `message`, and the turns before it.

    Raises what `check_messages` and `check_attachments` raise.
    """
    size = len(msgspec.json.encode(call_body.messages))
    checked = check_messages(call_body.messages, message=call_body.message, size_bytes=size)
    images = [*call_body.attachments, *checked.images]
    check_attachments(images)
    call_body = msgspec.structs.replace(call_body, message=checked.message, messages=None, attachments=images)
    return call_body, checked.history
