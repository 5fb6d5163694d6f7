"""A log record that belongs to a span, as what it adds to the state of that."""

from typing import Any

from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall
from runglass.recording.dialects.attributes import Attributes, SpanHead
from runglass.recording.dialects.content import read_content
from runglass.recording.dialects.messages import response_of
from runglass.recording.dialects.readers import finish_reasons, name
from runglass.recording.dialects.span_events import (
    CHOICE,
    DETAILS,
    ROLES,
    MessageEvents,
    choice,
    sent_message,
)
from runglass.recording.received import ReceivedLog


def interpret_log(log: ReceivedLog) -> SpanState:
    """What is known of its span by this record alone, whose `name` is None. Never raises.

    Messages that come one by one have the time `at` which they came, in nanoseconds since 1970.
    """
    left, at = dict(log.attributes), str(log.at_ns)
    event = log.name or left.get("event.name") or ""
    if left.get("event.name") == event:
        del left["event.name"]
    fields: dict[str, Any] = {"kind": "llm", "is_gen_ai": True}
    is_first = not (isinstance(log.body, dict) and log.body.get("index"))
    if event in DETAILS:
        attributes = Attributes(left)
        if isinstance(log.body, dict):
            attributes.add(log.body)
        fields = read_content(attributes, MessageEvents(attributes), SpanHead(log.scope, log.at_ns))
        fields["notes"] = tuple(fields["notes"])
        left = attributes.unused()
    elif event in ROLES or (event == CHOICE and is_first):
        attributes = Attributes(left)
        told: dict[str, Any] = {"provider": attributes.pop_word("provider")}
        if event == CHOICE:
            told["response"], reasons = response_of([choice(log.body)])
            found = finish_reasons(reasons)
            told["finish_reason"] = found[0] if found else None
        else:
            messages = sent_message(ROLES[event], log.body)
            told["request"] = {"messages": [message | {"at": at} for message in messages]}
        fields["model_calls"] = (ModelCall(number=1, model="", **told),)
        left = attributes.unused()
    else:
        record = {"at": at, "name": event, "body": log.body, "severity": log.severity or None}
        record["attributes"] = left or None
        fields = {"is_gen_ai": event.startswith("gen_ai.")}
        fields["events"] = [{key: value for key, value in record.items() if value is not None}]
        left = {}
    return SpanState(
        span_id=log.span_id,
        service=name(log.resource.get("service.name")),
        resource=log.resource or None,
        attributes=left or None,
        **fields,
    )
