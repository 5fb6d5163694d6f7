"""Request bodies: from bytes to checked values, with errors that name the field.

Strict on purpose. A field that is not known is refused: a parameter lost to a typo would run the wrong thing.
Null stands for "not given", as clients in several languages send it.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from runglass.errors import api_error
from runglass.execution import RunRequest, accept_both_spellings
from runglass.schemas import suggestion
from runglass.server.attachments import spell_attachments

Request = TypeVar("Request", bound=RunRequest)
Result = TypeVar("Result")

LARGE_BYTES = 256 * 1024
"""Bodies up to this size are read on the event loop: that takes a few milliseconds, 25 at the very worst."""

MAX_DEPTH = 100
"""Levels of nesting that a body may have. Recursive code behind this would fail at about ten times that."""

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_UNDERSCORE = re.compile(r"_([a-z])")


def read_request(body: bytes, shape: type[Request]) -> Request:
    """The request in the body of a call that runs a flow. Raises INVALID_REQUEST, and TOOLS_INVALID."""
    members = accept_both_spellings(_object(body), shape)
    known = shape.__struct_encode_fields__
    for name in members:
        camel = _UNDERSCORE.sub(lambda match: match[1].upper(), name)
        if name not in known and camel in known:
            raise api_error("INVALID_REQUEST", f"`{camel}` is given twice, as `{camel}` and as `{name}`")
        if name not in known:
            raise api_error("INVALID_REQUEST", f"`{name}`: unknown field{suggestion(name, list(known))}")
    if "attachments" in members:
        members["attachments"] = spell_attachments(members["attachments"])
    if not isinstance(members.get("tools", []), list):
        raise api_error("TOOLS_INVALID", "`tools` must be a list of function tools")
    try:
        return msgspec.convert(members, shape)
    except msgspec.ValidationError as error:
        raise api_error("INVALID_REQUEST", _located(str(error))) from error


async def read_aside(read: Callable[[bytes], Result], body: bytes) -> Result:
    """`read(body)`, in a thread if the body is so large that everybody else would wait for it."""
    return read(body) if len(body) <= LARGE_BYTES else await asyncio.to_thread(read, body)


def _object(body: bytes) -> dict[str, Any]:
    """The members of the body's JSON object, those that are null left out."""
    if not body:
        raise api_error("INVALID_REQUEST", "the body is empty: send a JSON object, at least `{}`")
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise api_error("INVALID_REQUEST", "the body is not valid JSON: its text is not UTF-8") from error
    except msgspec.DecodeError as error:
        raise api_error("INVALID_REQUEST", f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise _too_deep() from error
    _check_depth(value)
    if not isinstance(value, dict):
        raise api_error("INVALID_REQUEST", f"the body must be a JSON object, not {_kind(value)}")
    return {name: member for name, member in value.items() if member is not None}


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> Exception:
    return api_error("INVALID_REQUEST", f"the body is nested more than {MAX_DEPTH} levels deep")


def _located(message: str) -> str:
    place = _PLACE.search(message)
    return f"`{place[1]}`: {message[: place.start()]}" if place else message


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
