"""Request bodies: from bytes to checked values, with errors that name the field.

Callers may send fields of their own, and send back whole responses, so unknown fields are ignored. Only two
kinds are refused, as ignoring them would start the wrong run: a misspelt name, and a field that belongs to
another call. Null stands for "not given", as clients in several languages send it.
"""

import re
from typing import Any, TypeVar

import msgspec

from runglass.errors import api_error
from runglass.limits.offload import yield_to_others
from runglass.server.requests.attachments import spell_attachments
from runglass.server.requests.did_you_mean import camel, refuse_slips
from runglass.support.json_weight import MOST_VALUES, too_heavy
from runglass.support.safe_text import HALF_ESCAPE
from runglass.wire.run_api import ExecuteRequest, JobRequest, RunRequest, StepRequest, accept_both_spellings

Shape = TypeVar("Shape", bound=msgspec.Struct)

MAX_DEPTH = 100
"""The most levels of nesting in a body. Recursive code behind this would fail at about ten times that."""

MANAGING_BYTES = 16 * 1024
"""The most bytes of a managing request, as these are decoded on the event loop."""

_CALLS: dict[str, type[RunRequest]] = {"execute": ExecuteRequest, "step": StepRequest, "jobs": JobRequest}

CALLS_WITH = {
    field: [name for name, call in _CALLS.items() if field in call.__struct_encode_fields__]
    for shape in _CALLS.values()
    for field in shape.__struct_encode_fields__
}
"""The names of the calls that accept a field."""

WITHOUT_EFFECT = frozenset({"pausedAtStep", "iterationsUsed", "accumulatedOutputs"})
"""Fields of a pause that clients may send back. Calls that do not know them run the same without."""

_BYTE = re.compile(r"\(byte (\d+)\)")
_EXCERPT_BYTES = 16
"""Bytes shown on each side of a mistake; an escape of a surrogate pair has twelve."""


def read_request(body: bytes, shape: type[Shape], *, most_values: int = MOST_VALUES) -> Shape:
    """The request in the body of a call that runs a flow, with at most so many values in it.

    Raises INVALID_REQUEST, INVALID_ATTACHMENT, TOOLS_INVALID.
    """
    members = accept_both_spellings(members_of(body, most_values=most_values), shape)
    _check_names(members, shape)
    if "attachments" in members:
        members["attachments"] = spell_attachments(members["attachments"])
    if not isinstance(members.get("tools", []), list):
        raise api_error("TOOLS_INVALID", "`tools` must be a list of function tools")
    overrides = members.get("blockOverrides")
    for step_id, fields in overrides.items() if isinstance(overrides, dict) else ():
        if not isinstance(fields, dict):
            raise api_error(
                "INVALID_REQUEST",
                f"`blockOverrides.{step_id:.100}` must be an object, the step's fields, not {_kind(fields)}",
            )
    return _converted(members, shape)


def read_body(body: bytes, shape: type[Shape]) -> Shape:
    """The value in the body of a managing request. Raises REQUEST_TOO_LARGE and INVALID_REQUEST."""
    if len(body) > MANAGING_BYTES:
        message = f"the request body is larger than {MANAGING_BYTES:,} bytes, plenty for its few fields"
        raise api_error("REQUEST_TOO_LARGE", message)
    members = members_of(body)
    refuse_slips(members, shape.__struct_encode_fields__, kind="field")
    return _converted(members, shape)


def _check_names(members: dict[str, Any], shape: type[msgspec.Struct]) -> None:
    known = shape.__struct_encode_fields__
    unknown = {name: camel(name) for name in members if name not in known}
    for name, field in unknown.items():
        if field in known:
            raise api_error("INVALID_REQUEST", f"`{field}` is given twice, as `{field}` and as `{name}`")
        if field in CALLS_WITH and field not in WITHOUT_EFFECT and members[name]:
            calls = " and ".join(f"`{call}`" for call in CALLS_WITH[field])
            raise api_error("INVALID_REQUEST", f"`{name}` is a field of {calls}, not of this call")
    refuse_slips((name for name, field in unknown.items() if field not in CALLS_WITH), known, kind="field")


def _converted(members: dict[str, Any], shape: type[Shape]) -> Shape:
    try:
        return msgspec.convert(members, shape)
    except msgspec.ValidationError as error:
        raise api_error("INVALID_REQUEST", located(error)) from error


def members_of(body: bytes, *, most_values: int = MOST_VALUES) -> dict[str, Any]:
    """The members of the body's JSON object without nulls, weighed before it is decoded.

    Raises INVALID_REQUEST.
    """
    if not body:
        raise api_error("INVALID_REQUEST", "the body is empty: send a JSON object, at least `{}`")
    if heavy := too_heavy(body, most_values, between=yield_to_others):
        raise api_error(
            "INVALID_REQUEST", f"the request body is too complex: {heavy} (setting body_values_limit)"
        )
    yield_to_others()
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise api_error("INVALID_REQUEST", "the body is not valid JSON: its text is not UTF-8") from error
    except msgspec.DecodeError as error:
        reason = "it has an escape of half a surrogate pair, which is not a character"
        shown = reason if HALF_ESCAPE.search(_excerpt(body, str(error))) else str(error)
        raise api_error("INVALID_REQUEST", f"the body is not valid JSON: {shown}") from error
    except RecursionError as error:
        raise _too_deep() from error
    yield_to_others()
    _check_depth(value)
    yield_to_others()
    if not isinstance(value, dict):
        raise api_error("INVALID_REQUEST", f"the body must be a JSON object, not {_kind(value)}")
    return {name: member for name, member in value.items() if member is not None}


def _excerpt(body: bytes, message: str) -> bytes:
    """The part of the body around the position that an error of the decoder names, or else its end."""
    byte = _BYTE.search(message)
    position = len(body) if byte is None else int(byte[1])
    return body[max(0, position - _EXCERPT_BYTES) : position + _EXCERPT_BYTES]


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


def located(error: msgspec.ValidationError, at: str = "") -> str:
    """What the error says, with the path of the value, below `at`, in front."""
    message, _, inside = str(error).partition(" - at `$")
    path = f"{at}{inside}".rstrip("`").removeprefix(".")
    return f"`{path}`: {message}" if path else message


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
