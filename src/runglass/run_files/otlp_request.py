"""A run as requests of OTLP in protobuf, for those who receive spans over HTTP.

Messages of protobuf that stand one behind the other are one message with the parts of all: so requests of
several runs are sent together by joining their bytes.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from runglass.log.trace import RunSummary, StepTrace
from runglass.outlines.outline import TreeRow
from runglass.run_files.gen_ai import Attribute
from runglass.run_files.otlp import SERVICE, RunSpan, RunSpans


class OtlpRequests:
    """Writes one run: each part is a request by itself. Rows come as to `RunSpans`.

    `resource` is told of all spans; `spans` counts those that are written.
    """

    def __init__(self, run: RunSummary, *, version: str, resource: Sequence[Attribute]) -> None:
        self.spans = 0
        self._of_run = RunSpans(run)
        self._root: list[RunSpan] = []
        of_flow = [] if run.flow_slug is None else [("runglass.flow", run.flow_slug)]
        self._resource = [("service.name", SERVICE), ("service.version", version), *of_flow, *resource]
        self._version = version

    def opening(self) -> bytes:
        """Nothing: the span of the run goes with the first rows."""
        self._root = list(self._of_run.root())
        return b""

    def rows(self, rows: Iterable[tuple[TreeRow, StepTrace | None]]) -> bytes:
        """The spans of rows."""
        return self._request(self._of_run.of_rows(rows))

    def closing(self) -> bytes:
        """The span of a run that has no rows."""
        return self._request(())

    def _request(self, spans: Iterable[RunSpan]) -> bytes:
        encoded = [_encoded(span) for span in (*self._root, *spans)]
        self._root = []
        if not encoded:
            return b""
        self.spans += len(encoded)
        of_scope = ScopeSpans(spans=encoded)
        of_scope.scope.name, of_scope.scope.version = SERVICE, self._version
        of_resource = ResourceSpans(scope_spans=[of_scope])
        of_resource.resource.attributes.extend(_key_values(self._resource))
        data: bytes = ExportTraceServiceRequest(resource_spans=[of_resource]).SerializeToString()
        return data


def refused_spans(answer: bytes) -> tuple[int, str]:
    """How many spans a receiver that took the request has rejected, and why. Raises ValueError."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return partial.rejected_spans, partial.error_message


def _encoded(span: RunSpan) -> Span:
    status = None
    if span.error is not None:
        status = Status(code=Status.StatusCode.STATUS_CODE_ERROR, message=span.error)
    return Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=b"" if span.parent_id is None else bytes.fromhex(span.parent_id),
        name=span.name,
        kind=cast("Span.SpanKind.ValueType", span.kind),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_key_values(span.attributes),
        status=status,
    )


def _key_values(attributes: Iterable[Attribute]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any_value(value)) for name, value in attributes]


def _any_value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if -(2**63) <= value < 2**63:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(_any_value, value)))
    return AnyValue(string_value=str(value))
