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
from typing import Any, Literal, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runglass.errors import RunglassError
from runglass.limits.offload import yield_to_others
from runglass.recording.received import ReceivedLog, ReceivedSpan, Refused, SpanEvent, SpanLink
from runglass.support.json_weight import weighs_more

Signal = Literal["traces", "logs"]
Received = ReceivedSpan | ReceivedLog | Refused

MOST_SPANS = 200_000
"""Spans, or records, and scopes of one request: each takes its time, however few bytes it has."""
LARGE_BYTES = 64 * 1024
"""A span up to this size cannot have too many values."""
MOST_VALUES = 200_000
"""Values of one span. In memory an empty one takes two hundred times its bytes."""
FIELDS_OF_VALUE = 8
"""The most fields that a value of a span has, with those of its name and what it is in, and some to spare."""
JSON_WEIGHT = 10
"""What an attribute of JSON weighs, with its braces and names."""
MOST_LEVELS = 64
"""Levels of lists and objects in a value. Those of protobuf are bounded by its library, below that."""

SLICE, SLICE_BYTES = 2000, 1 << 20
"""So many spans of a request, of about so many bytes, are in memory, and recorded, at a time."""
EVENT_WEIGHT = 64
"""What an event or a link takes beyond its bytes: in memory an empty one takes a hundred times as many."""

REST_EVERY = 1000
"""Frames, some hundred microseconds, after which the thread for large work lets others go before."""

_FIRST, _SECOND = 0x0A, 0x12
"""The tags of the first and second field where that is a message, a text or bytes."""
_OF_A_LOG = frozenset({0x09, 0x10, 0x59})
"""Tags of `time_unix_nano`, `severity_number` and `observed_time_unix_nano`, which a span cannot have."""
_OF_A_SPAN = frozenset({_FIRST, _SECOND, 0x39, 0x41})
"""Tags of both ids and both times, which a log record cannot have."""
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""Half a character: what cuts texts by UTF-16 leaves it, and no JSON may have it."""
_HEX = re.compile("[0-9a-fA-F]+")
_ELSEWHERE = re.compile(rb'"(spans|log_?records)"\s*:\s*\[\s*\{', re.IGNORECASE)
"""Spans under names that the JSON of OTLP has not: those of the fields of protobuf, or of former days."""
_PLACES = "`resourceSpans[].scopeSpans[].spans` or `resourceLogs[].scopeLogs[].logRecords`"

_IN_PARTS = "send it in parts, with a smaller size of batches"
_NO_SPAN_ID = "its span id is not 8 bytes, or all of them are 0"
_NO_TRACE_ID = "its trace id is not 16 bytes, or all of them are 0"
_BAD_PARENT_ID = "its parent span id is not 8 bytes"
_NO_SPAN = "it belongs to no span: it has no trace id and span id"
_TOO_MANY = f"it has more than {MOST_VALUES:,} values"
_IS_A_LOG = "it is a log record: those are sent to /v1/logs"
_IS_A_SPAN = "it is a span: those are sent to /v1/traces"
_UNREADABLE = "it cannot be parsed: a text is not UTF-8, or it is damaged, or nested too deeply"
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


def decode(body: bytes, signal: Signal, *, is_json: bool) -> Iterator[list[Received]]:
    """The spans, or log records, of a request, a slice of them decoded when it is asked for.

    The whole body is checked first, which takes a microsecond for each. Raises NotOtlp.
    """
    if is_json:
        return _slices(_json_items(_json_export(body, signal), signal))
    return _slices(_items(body, _scopes_of(body, signal), signal))


def _slices(found: Iterable[tuple[int, Received]]) -> Iterator[list[Received]]:
    """`found` has each with its bytes in the body."""
    items: list[Received] = []
    weight = 0
    for size, item in found:
        items.append(item)
        weight += size
        if isinstance(item, ReceivedSpan):
            weight += EVENT_WEIGHT * (len(item.events) + len(item.links))
        if weight >= SLICE_BYTES or len(items) >= SLICE:
            yield items
            items, weight = [], 0
    if items:
        yield items


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
            if (number := next(counted)) > MOST_SPANS:
                raise NotOtlp(f"the body has more than {MOST_SPANS:,} spans; {_IN_PARTS}")
            if not number % REST_EVERY:
                yield_to_others()
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


def _items(body: bytes, scopes: list[_ScopeFrame], signal: Signal) -> Iterator[tuple[int, Received]]:
    last: list[bytes] | None = None
    resource: dict[str, Any] | None = None
    for frame in scopes:
        if frame.resource is not last:
            last, resource = frame.resource, _resource(frame.resource)
        origin = None if resource is None else _origin(frame.scope, resource)
        for tag, start, end in _fields(body, frame.start, frame.end):
            if tag == _SECOND:
                yield_to_others()
                yield (
                    end - start,
                    Refused(_BAD_RESOURCE)
                    if origin is None
                    else _read_frame(body[start:end], origin, signal),
                )


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
    return f"the body is no message of OTLP: it is damaged, or cut off, at byte {at:,} of {len(data):,}"


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
    pending = [(_INSIDE[kind], 0, len(frame))] if len(frame) > LARGE_BYTES else []
    walked, counted = count(1), count(1)
    while pending:
        inside, start, end = pending.pop()
        for tag, inner_start, inner_end in _fields(frame, start, end):
            if (number := next(walked)) > FIELDS_OF_VALUE * MOST_VALUES:
                raise _BadValue(_TOO_MANY)
            if not number % REST_EVERY:
                yield_to_others()
            if tag in inside:
                if next(counted) > MOST_VALUES:
                    raise _BadValue(_TOO_MANY)
                pending.append((_INSIDE[inside[tag]], inner_start, inner_end))
    return frame


def _read_frame(frame: bytes, origin: _Origin, signal: Signal) -> Received:
    try:
        return _span(frame, origin) if signal == "traces" else _log(frame, origin)
    except _BadValue as error:
        reason = str(error)
    except _BROKEN:
        reason = _UNREADABLE
    others, misplaced = (_OF_A_LOG, _IS_A_LOG) if signal == "traces" else (_OF_A_SPAN, _IS_A_SPAN)
    try:
        first = islice(_fields(frame, 0, len(frame)), REST_EVERY)
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


def _id(value: bytes, size: int, reason: str) -> str:
    if len(value) != size or not any(value):
        raise _BadValue(reason)
    return value.hex()


def _span(frame: bytes, origin: _Origin) -> ReceivedSpan:
    span = Span.FromString(_bounded(frame, "traces"))
    parent_id, status = span.parent_span_id, span.status
    return ReceivedSpan(
        _id(span.trace_id, 16, _NO_TRACE_ID),
        _id(span.span_id, 8, _NO_SPAN_ID),
        _id(parent_id, 8, _BAD_PARENT_ID) if any(parent_id) else None,
        span.name,
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        status.code,
        status.message,
        _attributes(span.attributes),
        [SpanEvent(each.time_unix_nano, each.name, _attributes(each.attributes)) for each in span.events],
        [
            SpanLink(each.trace_id.hex(), each.span_id.hex(), _attributes(each.attributes))
            for each in span.links
        ],
        *origin,
        span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count,
    )


def _log(frame: bytes, origin: _Origin) -> ReceivedLog:
    record = LogRecord.FromString(_bounded(frame, "logs"))
    if not any(record.trace_id) and not any(record.span_id):
        raise _BadValue(_NO_SPAN)
    attributes = _attributes(record.attributes)
    return ReceivedLog(
        _id(record.trace_id, 16, _NO_TRACE_ID),
        _id(record.span_id, 8, _NO_SPAN_ID),
        record.time_unix_nano or record.observed_time_unix_nano,
        record.event_name or _event_name(attributes),
        _value(record.body),
        record.severity_number,
        attributes,
        *origin,
    )


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


def _event_name(attributes: dict[str, Any]) -> str:
    """The name of the event as records had it before there was a field for it."""
    name = attributes.get("event.name")
    return name if isinstance(name, str) else ""


# JSON

_NOTHING = msgspec.Raw(b"{}")
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_CODES = ("UNSET", "OK", "ERROR")
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_SEVERITIES = ("UNSPECIFIED", *(f"{level}{number}" for level in _LEVELS for number in ("", 2, 3, 4)))
"""The names of OTLP's enumerations, without the prefix of each."""


class _JsonScope(msgspec.Struct, rename="camel"):
    scope: msgspec.Raw = _NOTHING
    spans: list[msgspec.Raw] | None = None
    log_records: list[msgspec.Raw] | None = None


class _JsonResource(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = _NOTHING
    scope_spans: list[_JsonScope] | None = None
    scope_logs: list[_JsonScope] | None = None


class _JsonExport(msgspec.Struct, rename="camel"):
    resource_spans: list[_JsonResource] | None = None
    resource_logs: list[_JsonResource] | None = None


_read_export = msgspec.json.Decoder(_JsonExport).decode
_read_object = msgspec.json.Decoder(dict[str, Any] | None).decode
_NO_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _json_export(body: bytes, signal: Signal) -> list[_JsonResource]:
    if body.count(b",") > JSON_WEIGHT * MOST_SPANS:
        raise NotOtlp(f"the body has more than {JSON_WEIGHT * MOST_SPANS:,} values; {_IN_PARTS}")
    try:
        try:
            export = _read_export(body)
        except msgspec.DecodeError:
            export = _read_export(_HALF.sub(rb"\\ufffd", body))
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


def _json_items(resources: list[_JsonResource], signal: Signal) -> Iterator[tuple[int, Received]]:
    read = _json_span if signal == "traces" else _json_log
    for each in resources:
        resource = _read_raw(_pairs_of, each.resource)
        for scope in [*(each.scope_spans or ()), *(each.scope_logs or ())]:
            origin = resource
            if not isinstance(resource, Refused):
                origin = _read_raw(_json_origin, scope.scope, resource)
            spans, records = scope.spans or (), scope.log_records or ()
            wanted, others = (spans, records) if signal == "traces" else (records, spans)
            for raw in wanted:
                refused = Refused(_BAD_RESOURCE) if isinstance(origin, Refused) else None
                yield memoryview(raw).nbytes, refused or _read_raw(read, raw, origin)
            if others:
                yield 0, Refused(_IS_A_LOG if signal == "traces" else _IS_A_SPAN, len(others))


def _read_raw(read: Callable[..., Any], raw: msgspec.Raw, *beside: Any) -> Any:
    """What `read` makes of the object, or its refusal."""
    data = bytes(raw)
    if len(data) > LARGE_BYTES and weighs_more(data, JSON_WEIGHT * MOST_VALUES):
        return Refused(_TOO_MANY)
    try:
        return read(_read_object(data) or {}, *beside)
    except _BadValue as error:
        return Refused(str(error))
    except _NO_JSON:
        return Refused(_UNREADABLE)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return Refused("a field of it, or the value of an attribute, has the wrong type")


def _json_origin(scope: dict[str, Any], resource: dict[str, Any]) -> _Origin:
    return _Origin(_text(scope, "name"), _text(scope, "version"), resource)


def _json_span(span: dict[str, Any], origin: _Origin) -> ReceivedSpan:
    status = span.get("status") or {}
    parent_id = _text(span, "parentSpanId")
    return ReceivedSpan(
        _hex(span, "traceId", 32, _NO_TRACE_ID),
        _hex(span, "spanId", 16, _NO_SPAN_ID),
        _hex(span, "parentSpanId", 16, _BAD_PARENT_ID) if parent_id.strip("0") else None,
        _text(span, "name"),
        _enum(span.get("kind"), "SPAN_KIND_", _KINDS),
        _whole(span, "startTimeUnixNano"),
        _whole(span, "endTimeUnixNano"),
        _enum(status.get("code"), "STATUS_CODE_", _CODES),
        _text(status, "message"),
        _pairs_of(span),
        [
            SpanEvent(_whole(each, "timeUnixNano"), _text(each, "name"), _pairs_of(each))
            for each in span.get("events") or ()
        ],
        [
            SpanLink(_text(each, "traceId").lower(), _text(each, "spanId").lower(), _pairs_of(each))
            for each in span.get("links") or ()
        ],
        *origin,
        sum(_whole(span, f"dropped{what}Count") for what in ("Attributes", "Events", "Links")),
    )


def _json_log(record: dict[str, Any], origin: _Origin) -> ReceivedLog:
    if not record.get("traceId") and not record.get("spanId"):
        raise _BadValue(_NO_SPAN)
    attributes = _pairs_of(record)
    return ReceivedLog(
        _hex(record, "traceId", 32, _NO_TRACE_ID),
        _hex(record, "spanId", 16, _NO_SPAN_ID),
        _whole(record, "timeUnixNano") or _whole(record, "observedTimeUnixNano"),
        _text(record, "eventName") or _event_name(attributes),
        _json_value(record.get("body")),
        _enum(record.get("severityNumber"), "SEVERITY_NUMBER_", _SEVERITIES),
        attributes,
        *origin,
    )


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise _BadValue(f"`{name}` is no text")
    return value or ""


def _hex(found: dict[str, Any], name: str, digits: int, reason: str) -> str:
    text = _text(found, name)
    if len(text) != digits or not _HEX.fullmatch(text) or not text.strip("0"):
        raise _BadValue(f"{reason}; in JSON they are hexadecimal")
    return text.lower()


def _whole(found: dict[str, Any], name: str) -> int:
    """A number of 64 bits, which comes as a text or as a number."""
    try:
        value = int(found.get(name) or 0)
    except (ValueError, TypeError, OverflowError):
        value = -1
    if not 0 <= value < 1 << 64:
        raise _BadValue(f"`{name}` is no whole number of at most 64 bits")
    return value


def _enum(value: object, prefix: str, names: tuple[str, ...]) -> int:
    """The number of an enumeration, which comes as a number or by its name; 0 for an unknown one."""
    if isinstance(value, str):
        name = value.removeprefix(prefix)
        return names.index(name) if name in names else 0
    return value if isinstance(value, int) else 0


def _pairs_of(found: dict[str, Any]) -> dict[str, Any]:
    return _json_pairs(found.get("attributes"), 1)


def _json_pairs(pairs: Any, level: int) -> dict[str, Any]:
    """Attributes, which some senders have as a plain object."""
    if isinstance(pairs, dict):
        return {name: _json_value(value, level) for name, value in pairs.items()}
    return {_text(pair, "key"): _json_value(pair.get("value"), level) for pair in pairs or ()}


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
