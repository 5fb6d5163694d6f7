"""`messages` of a request: a conversation whose last turn is the current one.

Turns in, turns out, checked and in one spelling. How they reach a model is not known here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from runglass.errors import api_error
from runglass.execution import RunRequest, accept_both_spellings
from runglass.server.attachments import check_attachments
from runglass.server.tools import result_text

MAX_MESSAGES_BYTES = 1_000_000
ROLES = ("user", "assistant", "tool")

Asking = TypeVar("Asking", bound=RunRequest)


class Conversation(NamedTuple):
    """The turns before the current one, and the text of that; None where the caller sent neither."""

    history: list[dict[str, Any]]
    message: str | None


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


def check_messages(messages: Sequence[Any] | None, *, message: str | None, size_bytes: int) -> Conversation:
    """The history and the current message of a request, from its `messages` or else its `message`.

    `size_bytes` is the size of `messages` as JSON. An empty list counts as not given. The history comes in
    camelCase, with tool results as text; members that turns do not have are dropped, as other systems put
    many into theirs. Raises MESSAGES_TOO_LARGE, MESSAGES_ROLE_INVALID and INVALID_REQUEST.
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
    return Conversation([_plain(turn) for turn in turns[:-1]], current.content)


def _turn(item: Any, place: str) -> _Turn:
    role = item.get("role") if isinstance(item, dict) else None
    if isinstance(role, str) and role not in ROLES:
        raise api_error(
            "MESSAGES_ROLE_INVALID", f"`{place}.role` must be user, assistant or tool, not {role!r:.100}"
        )
    try:
        turn = msgspec.convert(accept_both_spellings(item, _Turn), _Turn)
    except msgspec.ValidationError as error:
        message, _, inside = str(error).partition(" - at `$")
        raise api_error("INVALID_REQUEST", f"`{place}{inside.rstrip('`')}`: {message}") from error
    if turn.role == "tool":
        if not turn.tool_call_id:
            raise api_error(
                "INVALID_REQUEST", f"`{place}.toolCallId`: a tool's turn needs the id of its call"
            )
    elif not isinstance(turn.content, str) and (turn.role == "user" or turn.content is not None):
        raise api_error("INVALID_REQUEST", f"`{place}.content` must be text")
    elif turn.content is None and not turn.tool_calls:
        raise api_error("INVALID_REQUEST", f"`{place}` has neither `content` nor `toolCalls`")
    return turn


def _plain(turn: _Turn) -> dict[str, Any]:
    content = result_text(turn.content) if turn.role == "tool" else turn.content
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(turn, content=content))
    return plain


def spoken(asked: Asking) -> tuple[Asking, list[dict[str, Any]]]:
    """The request with the current turn as its `message`, and the turns before it.

    Raises what `check_messages` and `check_attachments` raise.
    """
    size = len(msgspec.json.encode(asked.messages))
    said = check_messages(asked.messages, message=asked.message, size_bytes=size)
    check_attachments(asked.attachments)
    return msgspec.structs.replace(asked, message=said.message, messages=None), said.history
