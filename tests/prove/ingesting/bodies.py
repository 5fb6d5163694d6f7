"""Requests as exporters send them: spans in protobuf, made of a few numbers."""

from collections.abc import Iterable
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BEGAN_NS = 1_790_000_000_000_000_000
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind. "


class Sent(NamedTuple):
    """A span of a proof: numbers for its trace, itself and its parent, 0 for none."""

    trace: int
    number: int
    parent: int = 0
    name: str = "step"
    model: str = ""
    prompt_tokens: int = 0
    text: str = SENTENCE


def trace_id(trace: int) -> str:
    """In hexadecimal."""
    return f"{trace:032x}"


def span_id(number: int) -> str:
    """In hexadecimal."""
    return f"{number:016x}"


def body(spans: Iterable[Sent], *, service: str = "prove") -> bytes:
    """An `ExportTraceServiceRequest`: each span has begun at its number, in milliseconds, and ended."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    _put(of_resource.resource.attributes, "service.name", service)
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = "prove"
    for sent in spans:
        span = of_scope.spans.add()
        span.trace_id = sent.trace.to_bytes(16, "big")
        span.span_id = sent.number.to_bytes(8, "big")
        if sent.parent:
            span.parent_span_id = sent.parent.to_bytes(8, "big")
        span.name = sent.name
        span.kind = 1
        span.start_time_unix_nano = BEGAN_NS + sent.number * 1_000_000
        span.end_time_unix_nano = span.start_time_unix_nano + 900_000
        if sent.model:
            _put(span.attributes, "gen_ai.operation.name", "chat")
            _put(span.attributes, "gen_ai.request.model", sent.model)
            _put(span.attributes, "gen_ai.usage.input_tokens", sent.prompt_tokens)
            _put(span.attributes, "gen_ai.usage.output_tokens", 1)
        else:
            _put(span.attributes, "gen_ai.operation.name", "execute_tool")
            _put(span.attributes, "gen_ai.tool.name", "look up")
        _put(span.attributes, "input.value", sent.text)
        _put(span.attributes, "output.value", sent.text)
    return bytes(request.SerializeToString())


def _put(attributes: object, key: str, value: str | int) -> None:
    attribute = attributes.add()  # type: ignore[attr-defined]  # of a container that protobuf makes
    attribute.key = key
    if isinstance(value, str):
        attribute.value.string_value = value
    else:
        attribute.value.int_value = value
