"""A span of any emitter as the state that is recorded of it.

Every attribute is either used or stays one: nothing is lost, and what is odd is noted.
"""

from typing import Any, Literal

from runglass.log.span_state import SpanState
from runglass.recording.dialects import readers
from runglass.recording.dialects.attributes import Attributes, SpanHead
from runglass.recording.dialects.content import read_content
from runglass.recording.dialects.span_events import MessageEvents
from runglass.recording.received import ReceivedSpan, SpanEvent, SpanLink

_STATUS: dict[int, Literal["ok", "error"]] = {1: "ok", 2: "error"}


def interpret(span: ReceivedSpan) -> SpanState:
    """What is known by this span alone. Never raises."""
    span_id, parent_id, end_ns, status = span.span_id, span.parent_id, span.end_ns, span.status
    sent, resource, notes = span.attributes, span.resource, []
    if sent.get("logfire.span_type") == "pending_span":
        # Logfire tells that a span has begun by another one, inside of it.
        sent = dict(sent)
        real_parent = sent.pop("logfire.pending_parent_id", None)
        del sent["logfire.span_type"]
        is_id = type(real_parent) is str and len(real_parent) == 16 and real_parent.strip("0")
        span_id, parent_id, end_ns, status = parent_id or span_id, real_parent if is_id else None, 0, 0
    if 0 < end_ns < span.start_ns:
        notes.append(f"the span ends {span.start_ns - end_ns} ns before it begins")
    if span.dropped:
        notes.append(f"the sender dropped {span.dropped} of the attributes, events and links")
    attributes = Attributes(sent)
    told = MessageEvents(attributes)
    events = [event for event in span.events if not told.take(event)] if span.events else []
    if status == 0 and attributes.rest.get("langfuse.observation.level") == "ERROR":
        status = 2
    error = _error(attributes, span, events) if status == 2 else None
    code = None if error is None else error["code"]
    head = SpanHead(span.scope, span.start_ns, span.name, span.kind, span.start_ns, end_ns, code)
    fields = read_content(attributes, told, head)
    if told.unused:
        events = sorted([*events, *told.unused], key=lambda event: event.at_ns)
    if resource:
        fields.setdefault("release", readers.name(resource.get("service.version")))
        environment = resource.get("deployment.environment.name", resource.get("deployment.environment"))
        fields.setdefault("environment", readers.name(environment))
    if notes or fields["notes"]:
        fields["notes"] = sorted([*notes, *fields["notes"]])
    fields["notes"] = tuple(fields["notes"])
    return SpanState(
        span_id=span_id,
        parent_span_id=parent_id,
        name=span.name,
        start_time_unix_nano=str(span.start_ns) if span.start_ns else None,
        end_time_unix_nano=str(end_ns) if end_ns else None,
        status=_STATUS.get(status, "unset"),
        error=error,
        service=readers.name(resource.get("service.name")),
        scope=f"{span.scope} {span.scope_version}".strip() or None,
        resource=resource or None,
        attributes=attributes.unused() or None,
        events=[_event(event) for event in events] or None,
        links=[_link(link) for link in span.links] or None,
        **fields,
    )


def _error(attributes: Attributes, span: ReceivedSpan, events: list[SpanEvent]) -> dict[str, Any]:
    raised: dict[str, Any] = next(
        (event.attributes for event in reversed(events) if event.name == "exception"), {}
    )
    code = attributes.found.pop("error_type", None) or readers.text(raised.get("exception.type")) or "ERROR"
    message = span.status_message or attributes.found.pop("error_message", None)
    message = message or readers.text(raised.get("exception.message"))
    return {"code": code, "message": message} if message else {"code": code}


def _event(event: SpanEvent) -> dict[str, Any]:
    told = {"at": str(event.at_ns), "name": event.name}
    return told | {"attributes": event.attributes} if event.attributes else told


def _link(link: SpanLink) -> dict[str, Any]:
    told = {"traceId": link.trace_id, "spanId": link.span_id}
    return told | {"attributes": link.attributes} if link.attributes else told
