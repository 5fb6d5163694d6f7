"""What the decoder of OTLP must find in a body, by the library of protobuf, which reads it as a whole.

Of Runglass only the decoder is imported, so that a fuzzer can run this in an environment of its own.
"""

from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from runglass.recording.otlp import NotOtlp, Received, Signal, decode
from runglass.recording.received import ReceivedLog, ReceivedSpan, Refused

MESSAGES: dict[Signal, Any] = {"traces": TracesData, "logs": LogsData}


def check(body: bytes) -> None:
    """Raises AssertionError, or what the decoder raised, where it departs from what it should do."""
    for signal, message in MESSAGES.items():
        for is_json in (False, True):
            _found(body, signal, is_json=is_json)
        try:
            whole = message.FromString(body)
        except DecodeError:
            continue
        # What the library does not know it keeps, groups too, which the decoder takes for damage.
        whole.DiscardUnknownFields()
        found = _found(whole.SerializeToString(), signal, is_json=False)
        assert found is not None, f"{signal} of {body!r} are refused"
        ids = [(each.trace_id.hex(), each.span_id.hex()) for each in _sent(whole, signal)]
        assert sum(each.times if isinstance(each, Refused) else 1 for each in found) == len(ids), body
        for each, sent in zip(found, ids, strict=True):
            assert isinstance(each, Refused) or (each.trace_id, each.span_id) == sent, body


def items_of(body: bytes, signal: Signal, *, is_json: bool) -> list[Received]:
    """All that is in the body. Raises NotOtlp."""
    return list(decode(body, signal, is_json=is_json))


def _found(body: bytes, signal: Signal, *, is_json: bool) -> list[Received] | None:
    """None where the whole body is refused."""
    try:
        found = items_of(body, signal, is_json=is_json)
    except NotOtlp:
        return None
    for each in found:
        assert isinstance(each, ReceivedSpan | ReceivedLog | Refused)
    return found


def _sent(whole: Any, signal: Signal) -> list[Any]:
    if signal == "traces":
        return [span for each in whole.resource_spans for scope in each.scope_spans for span in scope.spans]
    return [log for each in whole.resource_logs for scope in each.scope_logs for log in scope.log_records]
