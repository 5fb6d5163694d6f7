"""Strips the content of a run from its events and steps, as if nothing had been captured.

Events and steps are stripped each for itself, and still belong together: stripped events fold to the
stripped steps, byte for byte. `KEPT_FIELDS` lists the fields that stay, so that a new field counts as
content unless it is added there. Nothing here does I/O; stripping twice is the same as stripping once.
"""

from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT
from msgspec.structs import fields, replace

from runglass.errors import RETRY_AFTER
from runglass.log.events import KnownEvent, UnknownEvent, decode_event, encode_event
from runglass.log.fold import DAMAGE
from runglass.log.trace import ModelCall, StepTrace
from runglass.support.lazy_json import Json, encoded

Data = TypeVar("Data", bytes, bytes | None)

_ERROR_LEFT = ("code", "type", "line", RETRY_AFTER)


def _whole(value: Any) -> Any:
    return value


def _error(error: Any) -> Json:
    """The source of an error stays; its message, which may repeat its input, goes."""
    if not isinstance(error, dict):
        return None
    left = {name: error[name] for name in _ERROR_LEFT if isinstance(error.get(name), str | int)}
    # The reason of a cancellation is no content: the last event has it, and the fold copies it to the steps.
    if error.get("code") == "CANCELLED" and isinstance(error.get("message"), str):
        left["message"] = error["message"]
    return encoded(msgspec.json.encode(left))


def _model_call(call: ModelCall) -> ModelCall:
    """The request and the response of a model call go; its model, duration and cost stay."""
    return replace(call, request=None, response=None, truncated=False)


def _override_names(names: list[str]) -> list[str]:
    """The names of steps' own fields; the names of inputs are the caller's words."""
    return [name for name in names if ".input." not in name]


KEPT_FIELDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        (
            # which run, step and attempt it is
            *("execution_id", "run_id", "flow_id", "seq", "at", "version", "trigger_type", "step_count"),
            *("flow_slug", "session_id", "started_by", "trace_parent", "trace_state", "rerun_of"),
            *("step_id", "step_ids", "name", "step_index", "attempt", "loop_index", "loop_path"),
            # what became of it, and when
            *("status", "started_at", "completed_at", "duration_ms", "delay_ms", "next_attempt"),
            *("iterations", "iterations_used", "reason", "summary", "finish_reason"),
            # how much it was, and what it cost
            *("input_size_bytes", "output_size_bytes", "tokens", "cost_usd", "model_used", "reservation"),
            "left_out",
            # of recorded runs, of which the sender's words for a session, a user and tags are names, too
            *(
                "trace_id",
                "continues",
                "span_id",
                "parent_span_id",
                "kind",
                "is_gen_ai",
                "entry_name",
                "scope",
            ),
            *("start_time_unix_nano", "end_time_unix_nano", "session", "user", "tags", "service", "release"),
            *("environment", "notes"),
        ),
        _whole,
    ),
    "span": lambda span: _stripped(span),
    "error": _error,
    "error_context": _error,
    "model_call": _model_call,
    "model_calls": lambda calls: tuple(_model_call(call) for call in calls),
    "overridden": _override_names,
}
"""Fields of events and steps that stay, whole or in part: each with a function that takes out the content."""

_steps = msgspec.json.Decoder(StepTrace)


def _or_nothing(strip: Callable[[Data], Data]) -> Callable[[Data], Data]:
    """The function, for which all of what cannot be read is content: empty bytes are left of it."""

    @wraps(strip)
    def stripped(data: Data) -> Data:
        try:
            return strip(data)
        except DAMAGE:
            return b""

    return stripped


@_or_nothing
def strip_event(data: bytes) -> bytes:
    """The event, as JSON, without its content."""
    event = decode_event(data)
    if isinstance(event, UnknownEvent):
        kept = {
            name: value for name, value in event.data.items() if name == "eventType" or name in _WIRE_NAMES
        }
        return msgspec.json.encode(kept)
    stripped: KnownEvent = _stripped(event)
    return encode_event(stripped)


@_or_nothing
def strip_step(data: bytes) -> bytes:
    """The StepTrace, as JSON, without its content."""
    return msgspec.json.encode(_stripped(_steps.decode(data)))


@_or_nothing
def strip_summary(data: bytes) -> bytes:
    """The RunSummary, as JSON, without its content."""
    summary = msgspec.json.decode(data, type=dict[str, Any])
    error = summary.get("error")
    if isinstance(error, dict) and error.get("code") != "CANCELLED":
        error.pop("message", None)
    for content in ("input", "inputPreview", "result", "resultPreview"):
        summary.pop(content, None)
    if names := _override_names(summary.get("overridden", [])):
        summary["overridden"] = names
    else:
        summary.pop("overridden", None)
    return msgspec.json.encode(summary)


@_or_nothing
def strip_error(data: bytes | None) -> bytes | None:
    """The error of a run, as JSON, without its message."""
    if data is None or not isinstance(error := msgspec.json.decode(data), dict):
        return data
    return bytes(_error(error))  # type: ignore[arg-type]  # encoded, as all that is not read yet


def _stripped(struct: Any) -> Any:
    kind: type[msgspec.Struct] = type(struct)
    return replace(struct, **{name: left(struct) for name, left in _changes(kind).items()})


@cache
def _changes(kind: type[msgspec.Struct]) -> dict[str, Callable[[Any], Any]]:
    """The fields of such a struct that do not stay whole, each with the function for its value."""
    changes = {}
    for field in fields(kind):
        left = KEPT_FIELDS.get(field.name)
        if left is None:
            changes[field.name] = _emptied(field)
        elif left is not _whole:
            changes[field.name] = partial(_kept_part, field.name, left)
    return changes


def _kept_part(name: str, left: Callable[[Any], Any], struct: Any) -> Any:
    return left(getattr(struct, name))


def _emptied(field: msgspec.structs.FieldInfo) -> Callable[[Any], Any]:
    """The field's value without content: its default, or the empty value of its kind."""
    # A field with a default is not read, as content is large and is decoded when it is read.
    if field.default is not NODEFAULT:
        return lambda _: field.default
    if field.default_factory is not NODEFAULT:
        factory = field.default_factory
        return lambda _: factory()
    return partial(_kept_part, field.name, _empty)


def _empty(value: Any) -> Any:
    return type(value)() if isinstance(value, str | list | tuple | dict) else None


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_WIRE_NAMES = {_camel(name) for name, left in KEPT_FIELDS.items() if left is _whole} - {
    *("reason", "summary", "user", "tags", "notes")
}
"""The fields that stay of events that this version does not know, as any other may be content."""
