"""Request bodies: from bytes to checked values, with errors that name the field.

Strict on purpose. A field that is not known is refused: a parameter lost to a typo would run the wrong thing.
Null stands for "not given", as clients in several languages send it.
"""

import re
from typing import Any

import msgspec

from runglass.errors import api_error
from runglass.execution import ExecuteRequest, accept_both_spellings
from runglass.flow_check import suggestion

MAX_DEPTH = 100
"""Levels of nesting that a body may have. Recursive code behind this would fail at about ten times that."""

NOT_YET = frozenset(
    {
        "messages",
        "attachments",
        "tools",
        "toolChoice",
        "executionId",
        "pausedAtStep",
        "iterationsUsed",
        "toolCallMessages",
        "accumulatedOutputs",
    }
)
"""Fields of the contract that this version cannot honour, and therefore refuses."""

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_UNDERSCORE = re.compile(r"_([a-z])")


def read_execute(body: bytes) -> ExecuteRequest:
    """The request in the body of `POST …/execute`. Raises INVALID_REQUEST."""
    members = accept_both_spellings(_object(body), ExecuteRequest)
    known = ExecuteRequest.__struct_encode_fields__
    for name in members:
        camel = _UNDERSCORE.sub(lambda match: match[1].upper(), name)
        if camel in NOT_YET:
            raise api_error("INVALID_REQUEST", f"`{name}` is not supported by this version of the server")
        if name not in known and camel in known:
            raise api_error("INVALID_REQUEST", f"`{camel}` is given twice, as `{camel}` and as `{name}`")
        if name not in known:
            raise api_error("INVALID_REQUEST", f"`{name}`: unknown field{suggestion(name, list(known))}")
    try:
        return msgspec.convert(members, ExecuteRequest)
    except msgspec.ValidationError as error:
        raise api_error("INVALID_REQUEST", _located(str(error))) from error


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
