"""A span of any emitter, or a log record that belongs to one, as what is recorded of the span.

Every attribute is either used or stays one: nothing is lost, and what is odd is noted. Messages may come as
events of a span or as log records, in the way of the conventions up to 1.36: `gen_ai.user.message` and its
like have the message in their attributes, or in their body. `gen_ai.client.inference.operation.details` has
what newer spans have as attributes.
"""

from typing import Any, Literal

from runglass.log.span_state import NO_CODE, SpanState
from runglass.log.trace import ModelCall
from runglass.recording.dialects.attributes import Attributes, SpanHead
from runglass.recording.dialects.content import read_content
from runglass.recording.dialects.messages import messages_of, response_of
from runglass.recording.dialects.readers import finish_reasons, json, text
from runglass.recording.received import ReceivedLog, ReceivedSpan, SpanEvent

_STATUS: dict[int, Literal["ok", "error"]] = {1: "ok", 2: "error"}
_ROLES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_CHOICE = "gen_ai.choice"
_DETAILS = frozenset(
    {"gen_ai.client.inference.operation.details", "gen_ai.content.prompt", "gen_ai.content.completion"}
)
_TRACEBACK = "exception.stacktrace"
_ABOUT = ("gen_ai.system", "gen_ai.provider.name", "event.name")


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
    events, told = _told_by_events(attributes, span.events) if span.events else ([], {})
    if status == 0 and attributes.rest.get("langfuse.observation.level") == "ERROR":
        status = 2
    error = _error(attributes, span, events) if status == 2 else None
    code = None if error is None else error["code"]
    head = SpanHead(span.scope, span.start_ns, span.name, span.kind, span.start_ns, end_ns, code)
    fields = read_content(attributes, head)
    if left := [event for slot, those in told.items() if slot in attributes.found for event in those]:
        events = sorted([*events, *left], key=lambda event: event.at_ns)
    if resource:
        fields.setdefault("release", text(resource.get("service.version")))
        environment = resource.get("deployment.environment.name", resource.get("deployment.environment"))
        fields.setdefault("environment", text(environment))
    fields["notes"] = tuple(sorted(notes + fields["notes"]))
    return SpanState(
        span_id=span_id,
        parent_span_id=parent_id,
        name=span.name,
        start_time_unix_nano=str(span.start_ns) if span.start_ns else None,
        end_time_unix_nano=str(end_ns) if end_ns else None,
        status=_STATUS.get(status, "unset"),
        error=error,
        service=text(resource.get("service.name")),
        scope=f"{span.scope} {span.scope_version}".strip() or None,
        resource=resource or None,
        attributes=attributes.unused() or None,
        events=[_with({"at": str(at_ns), "name": name}, more) for at_ns, name, more in events] or None,
        links=[_with({"traceId": trace, "spanId": id}, more) for trace, id, more in span.links] or None,
        **fields,
    )


def interpret_log(log: ReceivedLog) -> SpanState:
    """What is known of its span by this record alone, whose `name` is None. Never raises.

    Messages that come one by one have the time `at` which they came, in nanoseconds since 1970.
    """
    sent, at, body = dict(log.attributes), str(log.at_ns), log.body
    event = log.name
    if sent.get("event.name") == event:
        del sent["event.name"]
    fields: dict[str, Any] = {"kind": "llm", "is_gen_ai": True}
    attributes = Attributes({})
    if event in _DETAILS:
        attributes.add(sent)
        attributes.add(body if isinstance(body, dict) else {})
        fields = read_content(attributes, SpanHead(log.scope, log.at_ns))
        fields["notes"] = tuple(fields["notes"])
    elif event in _ROLES or (event == _CHOICE and not (isinstance(body, dict) and body.get("index"))):
        attributes.add(sent)
        call: dict[str, Any] = {"provider": attributes.take_word("provider")}
        if event == _CHOICE:
            call["response"], reasons = response_of([_choice(body)])
            call["finish_reason"] = next(iter(finish_reasons(reasons) or ()), None)
        else:
            messages = messages_of([_asked(_ROLES[event], body)])
            call["request"] = {"messages": [each | {"at": at} for each in messages]}
        fields["model_calls"] = (ModelCall(number=1, model="", **call),)
    else:
        record = {"at": at, "name": event, "body": body, "severity": log.severity or None}
        record["attributes"] = sent or None
        fields = {"is_gen_ai": event.startswith("gen_ai.")}
        fields["events"] = [{key: value for key, value in record.items() if value is not None}]
    return SpanState(
        span_id=log.span_id,
        service=text(log.resource.get("service.name")),
        resource=log.resource or None,
        attributes=attributes.unused() or None,
        **fields,
    )


def _told_by_events(
    attributes: Attributes, events: list[SpanEvent]
) -> tuple[list[SpanEvent], dict[str, list[SpanEvent]]]:
    """The events that say no more than that, and those whose messages are in `attributes.found` now."""
    others: list[SpanEvent] = []
    told: dict[str, list[SpanEvent]] = {}
    for event in events:
        if event.name in _DETAILS:
            attributes.add(event.attributes)
        elif event.name in _ROLES or event.name == _CHOICE:
            told.setdefault("received" if event.name == _CHOICE else "sent", []).append(event)
        else:
            others.append(event)
    attributes.is_gen_ai = attributes.is_gen_ai or len(others) < len(events)
    for slot, those in list(told.items()):
        if slot in attributes.found:
            others += told.pop(slot)
        elif slot == "sent":
            attributes.found[slot] = [_asked(_ROLES[each.name], _shaped(each.attributes)) for each in those]
        else:
            attributes.found[slot] = [_choice(_shaped(each.attributes)) for each in those]
    return others, told


def _shaped(sent: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an event without the emitter's name, and with objects in place of JSON texts."""
    return {
        key: json(value) if key in ("content", "message", "tool_calls") else value
        for key, value in sent.items()
        if key not in _ABOUT
    }


def _asked(role: str, body: Any) -> dict[str, Any]:
    """The message of an event or a log record; the id of a tool's answer is there without a prefix."""
    if not isinstance(body, dict):
        return {"role": role} if body is None else {"role": role, "content": body}
    if role == "tool" and "id" in body:
        body = {"tool_call_id" if name == "id" else name: value for name, value in body.items()}
    return {"role": role, **body}


def _choice(body: Any) -> Any:
    """A choice as a message with its `finish_reason`."""
    if not isinstance(body, dict):
        return body
    body = {name: value for name, value in body.items() if name != "index" or value}
    message: Any = body.pop("message", None)
    if isinstance(message, dict):
        return message | body
    return body if message is None else {"role": "assistant", "content": message} | body


def _error(attributes: Attributes, span: ReceivedSpan, events: list[SpanEvent]) -> dict[str, Any]:
    at = next((at for at in reversed(range(len(events))) if events[at].name == "exception"), None)
    raised: dict[str, Any] = {} if at is None else events[at].attributes
    code = attributes.found.pop("error_type", None) or text(raised.get("exception.type")) or NO_CODE
    message = span.status_message or attributes.found.pop("error_message", None)
    message = message or text(raised.get("exception.message"))
    traceback = attributes.found.pop("error_traceback", None)
    if at is not None and traceback in (None, told := text(raised.get(_TRACEBACK))):
        # It is long, and is kept once.
        rest = {key: value for key, value in raised.items() if key != _TRACEBACK}
        traceback, events[at] = told, events[at]._replace(attributes=rest)
    error = {"code": code, "message": message, "traceback": traceback}
    return {name: value for name, value in error.items() if value}


def _with(told: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    return told | {"attributes": attributes} if attributes else told
