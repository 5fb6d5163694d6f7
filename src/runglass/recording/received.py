"""What a sender says: spans and log records, as values that know nothing of protobuf, JSON and HTTP."""

from typing import Any, NamedTuple


class SpanEvent(NamedTuple):
    """An event of a span, at nanoseconds since 1970."""

    at_ns: int
    name: str
    attributes: dict[str, Any]


class SpanLink(NamedTuple):
    """A link of a span to another one; ids are hexadecimal."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class ReceivedSpan(NamedTuple):
    """A span. Ids are hexadecimal in lower case and good; times are nanoseconds since 1970, 0 where not told.

    `kind` and `status` are OTLP's numbers. Values of attributes are those of JSON, and bytes as base64;
    `resource` is shared by all spans of one. `dropped` counts attributes, events and links that the sender
    had dropped itself.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    status_message: str
    attributes: dict[str, Any]
    events: list[SpanEvent]
    links: list[SpanLink]
    scope: str
    scope_version: str
    resource: dict[str, Any]
    dropped: int = 0


class ReceivedLog(NamedTuple):
    """A log record that belongs to a span. `name` is its event name, empty where it has none."""

    trace_id: str
    span_id: str
    at_ns: int
    name: str
    body: Any
    severity: int
    attributes: dict[str, Any]
    scope: str
    scope_version: str
    resource: dict[str, Any]


class Refused(NamedTuple):
    """A span or log record that is not taken in, and why: a sentence for whoever runs the sender."""

    reason: str
    times: int = 1
