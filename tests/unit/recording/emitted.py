"""Spans and log records as the decoder of OTLP gives them."""

from typing import Any

from runglass.recording.received import ReceivedLog, ReceivedSpan, SpanEvent

START_NS = 1_790_000_000_000_000_000
NOW = START_NS + 250_000_000


def span(
    attributes: dict[str, Any], *events: tuple[str, dict[str, Any]], scope: str = "", **fields: Any
) -> ReceivedSpan:
    told: dict[str, Any] = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "parent_id": "00f067aa0ba902b7",
        "name": "a span",
        "kind": 1,
        "start_ns": START_NS,
        "end_ns": START_NS + 1_500_000_000,
        "status": 0,
        "status_message": "",
        "attributes": attributes,
        "events": [SpanEvent(NOW, name, said) for name, said in events],
        "links": [],
        "scope": scope,
        "scope_version": "",
        "resource": {},
    }
    return ReceivedSpan(**(told | fields))


def log(name: str, body: Any = None, attributes: dict[str, Any] | None = None, **fields: Any) -> ReceivedLog:
    told: dict[str, Any] = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "at_ns": NOW,
        "name": name,
        "body": body,
        "severity": 9,
        "attributes": attributes or {},
        "scope": "",
        "scope_version": "",
        "resource": {},
    }
    return ReceivedLog(**(told | fields))
