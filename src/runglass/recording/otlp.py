"""The body of an OTLP request, decoded span by span and record by record.

One that is broken is refused by itself: of protobuf only the frames around spans are walked here, and each
span is parsed alone, as each is of OTLP/JSON. The whole body is checked for being a message before the first
span is handed out, and no more than one span is in memory as an object. Knows nothing of HTTP, of runs and of
what attributes mean.

More than 300 lines: one message, in two encodings.
"""

import base64
import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runglass.errors import RunglassError
from runglass.recording.received import ReceivedLog, ReceivedSpan, Refused, SpanEvent, SpanLink
from runglass.support.json_weight import weighs_more
from runglass.support.safe_text import HALF_ESCAPE

Signal = Literal["traces", "logs"]
Received = ReceivedSpan | ReceivedLog | Refused

MOST_SPANS = 200_000
"""Spans, or records, and scopes of one request: each takes its time, however few bytes it has."""
LARGE_SPAN_BYTES = 64 * 1024
"""A span up to this size cannot have too many values."""
MOST_VALUES = 200_000
"""Values of one span. In memory an empty one takes two hundred times its bytes."""
FIELDS_OF_VALUE = 8
"""The most fields that a value of a span has, with those of its name and what it is in, and some to spare."""
JSON_WEIGHT = 10
"""What an attribute of JSON weighs, with its braces and names."""
_LAST_NS = (1 << 64) - 1
MOST_LEVELS = 64
"""Levels of lists and objects in a value. Those of protobuf are bounded by its library, below that."""

LOOKED_AT = 1000
"""Fields of a span that is refused which are looked at to tell where it belongs."""

_FIRST, _SECOND = 0x0A, 0x12
"""The tags of the first and second field where that is a message, a text or bytes."""
_OF_A_LOG = frozenset({0x09, 0x10, 0x59})
"""Tags of `time_unix_nano`, `severity_number` and `observed_time_unix_nano`, which a span cannot have."""
_OF_A_SPAN = frozenset({_FIRST, _SECOND, 0x39, 0x41})
"""Tags of both ids and both times, which a log record cannot have."""
_HEX = re.compile("[0-9a-fA-F]+")
_ELSEWHERE = re.compile(rb'"(spans|log_?records)"\s*:\s*\[\s*\{', re.IGNORECASE)
"""Spans under names that the JSON of OTLP has not: those of the fields of protobuf, or of former days."""
_PLACES = "`resourceSpans[].scopeSpans[].spans` or `resourceLogs[].scopeLogs[].logRecords`"

IN_PARTS = "send it in parts, with a smaller size of batches"
_NO_SPAN_ID = "its span id is not 8 bytes, or all of them are 0"
_NO_TRACE_ID = "its trace id is not 16 bytes, or all of them are 0"
_BAD_PARENT_ID = "its parent span id is not 8 bytes"
_NO_SPAN = "it belongs to no span: it has no trace id and span id"
_TOO_MANY = f"it has more than {MOST_VALUES:,} values"
_IS_A_LOG = "it is a log record: those are sent to /v1/logs"
_IS_A_SPAN = "it is a span: those are sent to /v1/traces"
_UNREADABLE = "it cannot be parsed: a text is not UTF-8, or it is damaged, or nested too deeply"
_WRONG_TYPE = "a field of it, or the value of an attribute, has the wrong type"
_TOO_LATE = "a time has more than 64 bits"
_BAD_RESOURCE = "its resource or scope cannot be parsed: a text is not UTF-8, it is damaged, or too large"


class NotOtlp(RunglassError):
    """The body is not the message that it should be; nothing of it was read."""


_BROKEN = (DecodeError, NotOtlp)


class _Origin(NamedTuple):
    """What spans of one scope share."""

    scope: str
    scope_version: str
    resource: dict[str, Any]


class _BadValue(Exception):
    """A value that is refused, with the reason."""


def decode(body: bytes, signal: Signal, *, is_json: bool, skip: int = 0) -> Iterator[Received]:
    """The spans, or log records, of a request, each decoded when it is asked for, but for the first `skip`.

    The whole body is checked first, which takes a microsecond for each. Raises NotOtlp.
    """
    if is_json:
        return _json_items(_json_export(body, signal), signal, skip)
    return _items(body, _scopes_of(body, signal), signal, skip)


# Protobuf


class _ScopeFrame(NamedTuple):
    """Where in the body the spans of a scope are. The messages of one resource are in the same list."""

    resource: list[bytes]
    scope: list[bytes]
    start: int
    end: int


def _scopes_of(body: bytes, signal: Signal) -> list[_ScopeFrame]:
    found: list[_ScopeFrame] = []
    is_known, counted = not body, count(1)

    def fields(start: int, end: int) -> Iterator[tuple[int, int, int]]:
        for field in _fields(body, start, end):
            if next(counted) > MOST_SPANS:
                raise NotOtlp(f"the body has more than {MOST_SPANS:,} spans; {IN_PARTS}")
            yield field

    for tag, start, end in fields(0, len(body)):
        if tag != _FIRST:
            continue
        is_known = True
        resource: list[bytes] = []
        for inner_tag, inner_start, inner_end in fields(start, end):
            if inner_tag == _FIRST:
                # A message in two parts is what both say, in this order.
                resource.append(body[inner_start:inner_end])
            elif inner_tag == _SECOND:
                scope = [body[at:to] for each, at, to in fields(inner_start, inner_end) if each == _FIRST]
                found.append(_ScopeFrame(resource, scope, inner_start, inner_end))
    if not is_known:
        raise NotOtlp(f"the body is no message of OTLP with {signal}")
    return found


def _items(body: bytes, scopes: list[_ScopeFrame], signal: Signal, skip: int) -> Iterator[Received]:
    last: list[bytes] | None = None
    resource: dict[str, Any] | None = None
    for frame in scopes:
        if frame.resource is not last:
            last, resource = frame.resource, _resource(frame.resource)
        origin = None if resource is None else _origin(frame.scope, resource)
        for tag, start, end in _fields(body, frame.start, frame.end):
            if tag != _SECOND:
                continue
            if skip:
                skip -= 1
            elif origin is None:
                yield Refused(_BAD_RESOURCE)
            else:
                yield _read_frame(body[start:end], origin, signal)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The tag of each field of a message, and from where to where it is. Raises NotOtlp where it is none."""
    while at < end:
        # Nearly all tags, and many sizes, are one byte.
        tag, start = (byte, at + 1) if (byte := data[at]) < 0x80 else _varint(data, at, end)
        match tag & 7:
            case 2:
                size, start = _varint(data, start, end)
                at = start + size
            case 0:
                at = _varint(data, start, end)[1]
            case 1:
                at = start + 8
            case 5:
                at = start + 4
            case _:
                raise NotOtlp(_no_message(data, at))
        if at > end or tag < 8:
            raise NotOtlp(_no_message(data, start))
        yield tag, start, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise NotOtlp(_no_message(data, at))


def _no_message(data: bytes, at: int) -> str:
    if data[:16].lstrip()[:1] in (b"{", b"["):
        return "the body looks like JSON: send it with `Content-Type: application/json`"
    return f"the body is not an OTLP message: it is damaged or truncated at byte {at:,} of {len(data):,}"


_INSIDE: dict[str, dict[int, str]] = {
    "traces": {0x4A: "pair", 0x5A: "event", 0x6A: "link"},
    "logs": {0x2A: "value", 0x32: "pair"},
    "resource": {0x0A: "pair"},
    "scope": {0x1A: "pair"},
    "event": {0x1A: "pair"},
    "link": {0x22: "pair"},
    "pair": {0x12: "value"},
    "value": {0x2A: "list", 0x32: "object"},
    "list": {0x0A: "value"},
    "object": {0x0A: "pair"},
}
"""Of each message the fields that are messages, by their tags."""


def _bounded(frame: bytes, kind: str) -> bytes:
    """The frame of a message of this kind. Raises _BadValue where its objects would fill the memory."""
    pending = [(_INSIDE[kind], 0, len(frame))] if len(frame) > LARGE_SPAN_BYTES else []
    walked, counted = count(1), count(1)
    while pending:
        inside, start, end = pending.pop()
        for tag, inner_start, inner_end in _fields(frame, start, end):
            if next(walked) > FIELDS_OF_VALUE * MOST_VALUES:
                raise _BadValue(_TOO_MANY)
            if tag in inside:
                if next(counted) > MOST_VALUES:
                    raise _BadValue(_TOO_MANY)
                pending.append((_INSIDE[inside[tag]], inner_start, inner_end))
    return frame


def _read_frame(frame: bytes, origin: _Origin, signal: Signal) -> Received:
    try:
        if signal == "traces":
            return _span(Span.FromString(_bounded(frame, signal)), origin, _attributes)
        return _log(LogRecord.FromString(_bounded(frame, signal)), origin, _attributes, _value)
    except _BadValue as error:
        reason = str(error)
    except _BROKEN:
        reason = _UNREADABLE
    others, misplaced = (_OF_A_LOG, _IS_A_LOG) if signal == "traces" else (_OF_A_SPAN, _IS_A_SPAN)
    try:
        first = islice(_fields(frame, 0, len(frame)), LOOKED_AT)
        is_misplaced = any(tag in others for tag, _, _ in first)
    except NotOtlp:
        is_misplaced = False
    return Refused(misplaced if is_misplaced else reason)


def _resource(parts: list[bytes]) -> dict[str, Any] | None:
    try:
        return _attributes(Resource.FromString(_bounded(b"".join(parts), "resource")).attributes)
    except (*_BROKEN, _BadValue):
        return None


def _origin(parts: list[bytes], resource: dict[str, Any]) -> _Origin | None:
    try:
        scope = InstrumentationScope.FromString(_bounded(b"".join(parts), "scope"))
    except (*_BROKEN, _BadValue):
        return None
    return _Origin(scope.name, scope.version, resource)


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    # Most are texts. What is not set reads as an empty one, and to ask which it is takes longer.
    found = {}
    for pair in pairs:
        value = pair.value
        found[pair.key] = value.string_value or _value(value)
    return found


def _value(value: Any) -> Any:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "bool_value":
            return value.bool_value
        case "double_value":
            return _number(value.double_value)
        case "array_value":
            return [_value(each) for each in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
    return None


def _number(value: float) -> float | str:
    """The number; what JSON has no number for as the text that protobuf has for it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# JSON

_NOTHING = msgspec.Raw(b"{}")
_Whole = Annotated[int, msgspec.Meta(ge=0)] | Annotated[float, msgspec.Meta(ge=0)] | None


class _JsonGroup(msgspec.Struct, rename="camel"):
    """An export, what it has of a resource, and what that has of a scope."""

    resource_spans: "list[_JsonGroup] | None" = None
    resource_logs: "list[_JsonGroup] | None" = None
    resource: msgspec.Raw = _NOTHING
    scope_spans: "list[_JsonGroup] | None" = None
    scope_logs: "list[_JsonGroup] | None" = None
    scope: msgspec.Raw = _NOTHING
    spans: list[msgspec.Raw] | None = None
    log_records: list[msgspec.Raw] | None = None


class _JsonMessage(msgspec.Struct, rename="camel"):
    """The fields of spans, log records and what is in them, called as in protobuf."""

    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    version: str | None = None
    kind: int | str | None = None
    time_unix_nano: _Whole = None
    observed_time_unix_nano: _Whole = None
    start_time_unix_nano: _Whole = None
    end_time_unix_nano: _Whole = None
    status: "_JsonMessage | None" = None
    code: int | str | None = None
    message: str | None = None
    attributes: Any = None
    events: "list[_JsonMessage] | None" = None
    links: "list[_JsonMessage] | None" = None
    dropped_attributes_count: _Whole = None
    dropped_events_count: _Whole = None
    dropped_links_count: _Whole = None
    severity_number: int | str | None = None
    event_name: str | None = None
    body: Any = None


_read_export = msgspec.json.Decoder(_JsonGroup).decode
# Numbers of 64 bits come as texts.
_read_message = msgspec.json.Decoder(_JsonMessage, strict=False).decode
_NO_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _json_export(body: bytes, signal: Signal) -> list[_JsonGroup]:
    if body.count(b",") > JSON_WEIGHT * MOST_SPANS:
        raise NotOtlp(f"the body has more than {JSON_WEIGHT * MOST_SPANS:,} values; {IN_PARTS}")
    try:
        try:
            export = _read_export(body)
        except msgspec.DecodeError:
            export = _read_export(HALF_ESCAPE.sub(rb"\\ufffd", body))
    except _NO_JSON as error:
        raise NotOtlp(f"the body is no OTLP/JSON: {error}") from error
    if export.resource_spans is None and export.resource_logs is None and body.strip() != b"{}":
        # Who sends something else is not to believe that it was taken.
        wanted = "resourceSpans" if signal == "traces" else "resourceLogs"
        raise NotOtlp(f"the body is no OTLP/JSON with {signal}: it has no `{wanted}`")
    resources = [*(export.resource_spans or ()), *(export.resource_logs or ())]
    scopes = (scope for each in resources for scope in (*(each.scope_spans or ()), *(each.scope_logs or ())))
    if not any(scope.spans or scope.log_records for scope in scopes) and _ELSEWHERE.search(body):
        raise NotOtlp("the body is no OTLP/JSON: its spans or records are not at " + _PLACES)
    return resources


def _json_items(resources: list[_JsonGroup], signal: Signal, skip: int) -> Iterator[Received]:
    def read(message: _JsonMessage, origin: _Origin) -> Received:
        if signal == "traces":
            return _span(message, origin, _json_pairs)
        return _log(message, origin, _json_pairs, _json_value)

    for each in resources:
        resource = _read_raw(lambda message: _json_pairs(message.attributes), each.resource)
        for scope in [*(each.scope_spans or ()), *(each.scope_logs or ())]:
            origin = resource
            if not isinstance(resource, Refused):
                origin = _read_raw(
                    lambda message, of: _Origin(message.name or "", message.version or "", of),
                    *(scope.scope, resource),
                )
            spans, records = scope.spans or (), scope.log_records or ()
            wanted, others = (spans, records) if signal == "traces" else (records, spans)
            first, skip = min(skip, len(wanted)), max(0, skip - len(wanted))
            for raw in wanted[first:]:
                yield Refused(_BAD_RESOURCE) if isinstance(origin, Refused) else _read_raw(read, raw, origin)
            if others and skip:
                skip -= 1
            elif others:
                yield Refused(_IS_A_LOG if signal == "traces" else _IS_A_SPAN, len(others))


def _read_raw(read: Callable[..., Any], raw: msgspec.Raw, *beside: Any) -> Any:
    """What `read` makes of the object, or its refusal."""
    data = bytes(raw)
    if len(data) > LARGE_SPAN_BYTES and weighs_more(data, JSON_WEIGHT * MOST_VALUES):
        return Refused(_TOO_MANY)
    try:
        return read(_read_message(b"{}" if data == b"null" else data), *beside)
    except _BadValue as error:
        return Refused(str(error))
    except (msgspec.ValidationError, AttributeError, TypeError, ValueError, OverflowError):
        return Refused(_WRONG_TYPE)
    except _NO_JSON:
        return Refused(_UNREADABLE)


def _json_pairs(pairs: Any, level: int = 1) -> dict[str, Any]:
    """Attributes, which some senders have as a plain object."""
    if isinstance(pairs, dict):
        return {name: _json_value(value, level) for name, value in pairs.items()}
    found = {pair.get("key") or "": _json_value(pair.get("value"), level) for pair in pairs or ()}
    if not all(isinstance(key, str) for key in found):
        raise _BadValue(_WRONG_TYPE)
    return found


def _json_value(value: Any, level: int = 1) -> Any:
    """What an `AnyValue`, an object with one member, says. Any other JSON is taken as it is."""
    if level > MOST_LEVELS:
        raise _BadValue(f"a value is nested deeper than {MOST_LEVELS} levels")
    if isinstance(value, list):
        return [_json_value(each, level + 1) for each in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"stringValue": str(inner)} | {"bytesValue": str(inner)} | {"boolValue": bool(inner)}:
            return inner
        case {"intValue": str(inner) | int(inner)}:
            return int(inner)
        case {"doubleValue": str(inner) | int(inner) | float(inner)}:
            return _number(float(inner))
        case {"arrayValue": dict(inner)}:
            return [_json_value(each, level + 1) for each in inner.get("values") or ()]
        case {"kvlistValue": dict(inner)}:
            return _json_pairs(inner.get("values"), level + 1)
    # Of an `AnyValue` that has none nothing is known.
    return {name: _json_value(inner, level + 1) for name, inner in value.items()} or None


# Of both: the messages of protobuf, and objects that have the same fields


_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_CODES = ("UNSET", "OK", "ERROR")
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_SEVERITIES = ("UNSPECIFIED", *(f"{level}{number}" for level in _LEVELS for number in ("", 2, 3, 4)))
"""The names of OTLP's enumerations, without the prefix of each."""


def _span(span: Any, origin: _Origin, attributes_of: Callable[[Any], dict[str, Any]]) -> ReceivedSpan:
    parent_id, status = span.parent_span_id, span.status
    return ReceivedSpan(
        _id(span.trace_id, 16, _NO_TRACE_ID),
        _id(span.span_id, 8, _NO_SPAN_ID),
        _id(parent_id, 8, _BAD_PARENT_ID) if _is_set(parent_id) else None,
        span.name or "",
        _enum(span.kind, "SPAN_KIND_", _KINDS),
        _ns(span.start_time_unix_nano),
        _ns(span.end_time_unix_nano),
        _enum(status.code, "STATUS_CODE_", _CODES) if status else 0,
        status.message or "" if status else "",
        attributes_of(span.attributes),
        [
            SpanEvent(_ns(each.time_unix_nano), each.name or "", attributes_of(each.attributes))
            for each in span.events or ()
        ],
        [
            SpanLink(_hex(each.trace_id), _hex(each.span_id), attributes_of(each.attributes))
            for each in span.links or ()
        ],
        *origin,
        (span.dropped_attributes_count or 0)
        + (span.dropped_events_count or 0)
        + (span.dropped_links_count or 0),
    )


def _log(
    record: Any,
    origin: _Origin,
    attributes_of: Callable[[Any], dict[str, Any]],
    value_of: Callable[[Any], Any],
) -> ReceivedLog:
    if not _is_set(record.trace_id) and not _is_set(record.span_id):
        raise _BadValue(_NO_SPAN)
    attributes = attributes_of(record.attributes)
    # Records had the name of the event there before there was a field for it.
    name = record.event_name or attributes.get("event.name")
    return ReceivedLog(
        _id(record.trace_id, 16, _NO_TRACE_ID),
        _id(record.span_id, 8, _NO_SPAN_ID),
        _ns(record.time_unix_nano or record.observed_time_unix_nano),
        name if isinstance(name, str) else "",
        value_of(record.body),
        _enum(record.severity_number, "SEVERITY_NUMBER_", _SEVERITIES),
        attributes,
        *origin,
    )


def _id(value: bytes | str | None, size: int, reason: str) -> str:
    if isinstance(value, bytes):
        if len(value) != size or not any(value):
            raise _BadValue(reason)
        return value.hex()
    if value is None or len(value) != 2 * size or not value.strip("0") or not _HEX.fullmatch(value):
        raise _BadValue(f"{reason}; in JSON they are hexadecimal")
    return value.lower()


def _is_set(id: bytes | str | None) -> bool:
    return any(id) if isinstance(id, bytes) else bool(id and id.strip("0"))


def _hex(id: bytes | str | None) -> str:
    return id.hex() if isinstance(id, bytes) else (id or "").lower()


def _ns(value: float | None) -> int:
    if (value or 0) > _LAST_NS:
        raise _BadValue(_TOO_LATE)
    return int(value or 0)


def _enum(value: Any, prefix: str, names: tuple[str, ...]) -> int:
    """The number of an enumeration, which comes as a number or by its name; 0 for an unknown one."""
    if isinstance(value, str):
        name = value.removeprefix(prefix)
        return names.index(name) if name in names else 0
    return value or 0
