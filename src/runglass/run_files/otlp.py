"""A run as spans of OpenTelemetry: for each container, iteration, step, attempt, model call and tool.

What has not ended is no span yet. `OtlpWriter` writes them as OTLP/JSON for a file, `OtlpRequests` as
protobuf for those who receive spans over HTTP. Messages of protobuf that stand one behind the other are one
message with the parts of all: so requests of several runs are sent together by joining their bytes.

More than 300 lines: the spans of a run, in two encodings.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from runglass.log.span_state import NO_CODE
from runglass.log.span_words import differing
from runglass.log.trace import ModelCall, Recording, RunSummary, StepTrace
from runglass.outlines.outline import TreeRow
from runglass.run_files.gen_ai import Attribute, call_attributes, model_name, tool_attributes
from runglass.wire.run_api import read_trace_context

_INTERNAL, _CLIENT = 1, 3
_ERROR = 2
_LAST_NS = (1 << 64) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROOT = -1
_OPENINFERENCE_KINDS = {
    "retrieval": "RETRIEVER",
    **{kind: kind.upper() for kind in ("llm", "tool", "embedding", "agent", "chain", "guardrail")},
}
_MEMBERS = {"at": "timeUnixNano", "name": "name", "traceId": "traceId", "spanId": "spanId"}
"""Of events and links: what they are called here, and in OTLP."""
SERVICE = "runglass"
"""The name of the service, and of the scope, of our spans."""


class RunSpan(NamedTuple):
    """A span. Ids are hexadecimal, times nanoseconds since 1970, and `error` says what went wrong."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: list[Attribute]
    error: str | None
    events: Sequence[Any] = ()
    links: Sequence[Any] = ()


class RunSpans:
    """The spans of one run. `rows` come in pre-order, each with the data of its attempt where it has one."""

    def __init__(self, run: RunSummary) -> None:
        self._run = run
        self._started_ns = 0 if run.started_at is None else _ns(run.started_at)
        # Those of the call that started the run, where it had any.
        context = None if run.trace_parent is None else read_trace_context([run.trace_parent], [])
        self._trace_id, self._parent_id = run.id.replace("-", ""), None
        if context is not None:
            _, self._trace_id, self._parent_id, _ = context.parent.split("-")

    def root(self) -> Iterator[RunSpan]:
        """That of the run as a whole, if it has ended. A recorded run has the spans of its sender alone."""
        run = self._run
        if run.recording is not None or run.started_at is None or run.completed_at is None:
            return
        attributes: Sequence[Attribute] = (
            ("gen_ai.operation.name", "invoke_workflow"),
            ("gen_ai.workflow.name", run.flow_slug),
            ("gen_ai.conversation.id", run.session_id),
            ("runglass.kind", "run"),
            ("runglass.flow.id", run.flow_id),
            ("runglass.flow.slug", run.flow_slug),
            ("runglass.flow.version", run.version),
            ("runglass.trigger", run.trigger_type),
            ("runglass.status", run.status),
            ("runglass.cost_usd", None if run.totals is None else run.totals.cost_usd),
            ("session.id", run.session_id),
            ("runglass.input", _kept(run.input)),
            ("runglass.output", _kept(run.result)),
            ("error.type", None if run.error is None else run.error.code),
        )
        is_bad = run.status != "completed"
        yield self._span(
            self._span_id(_ROOT),
            self._parent_id,
            f"invoke_workflow {run.flow_slug}" if run.flow_slug else "invoke_workflow",
            self._started_ns,
            _ns(run.completed_at),
            attributes,
            error=run.error.message or run.error.code if is_bad and run.error is not None else None,
        )

    def of_rows(self, rows: Iterable[tuple[TreeRow, StepTrace | None]]) -> Iterator[RunSpan]:
        """Those of rows, each with those of its model calls behind it."""
        for row, step in rows:
            if self._run.recording is None:
                yield from self._of_row(row, step)
            elif step is not None and step.completed_at is not None:
                yield _recorded(self._run.recording, step, _ns(step.completed_at))

    def _of_row(self, row: TreeRow, step: StepTrace | None) -> Iterator[RunSpan]:
        if row.start is None or row.end is None:
            return
        parent = _ROOT if row.parent < 0 else row.parent
        failed = row.status == "failed" or (row.kind == "attempt" and row.status == "retried")
        error = _error_of(step) if failed else None
        attributes: list[Attribute] = [
            ("runglass.kind", row.kind),
            ("runglass.name", row.name),
            ("runglass.status", row.status),
            ("runglass.iteration", row.iteration if row.kind == "iteration" else None),
        ]
        if step is not None:
            attributes += [
                ("runglass.step.id", step.step_id),
                ("runglass.attempt", step.attempt),
                ("runglass.loop_path", list(step.loop_path) if step.loop_path else None),
                ("runglass.cost_usd", step.cost_usd),
                ("runglass.input", _kept(step.input_context)),
                ("runglass.output", _kept(step.output_context)),
                ("error.type", None if error is None else error[0]),
            ]
        yield self._span(
            self._span_id(row.number),
            self._span_id(parent),
            f"{row.name} {row.label}" if row.kind == "attempt" else row.label,
            self._started_ns + row.start * 1_000_000,
            self._started_ns + row.end * 1_000_000,
            attributes,
            error=None if not failed else (error[1] if error else "a step inside failed"),
        )
        before: ModelCall | None = None
        for call in () if step is None else step.model_calls:
            start_ns, end_ns = self._times_of(row, call)
            if before is not None:
                # The caller's tools: they began when the model had asked for them, and have ended by now.
                asked_ns = self._times_of(row, before)[1]
                for place, told in enumerate(tool_attributes(before, call)):
                    yield self._span(
                        self._span_id(row.number, before.number, place),
                        self._span_id(row.number),
                        f"execute_tool {dict(told)['gen_ai.tool.name']}",
                        asked_ns,
                        max(asked_ns, start_ns),
                        told,
                        error=None,
                    )
            yield self._span(
                self._span_id(row.number, call.number),
                self._span_id(row.number),
                f"chat {model_name(call)}",
                start_ns,
                end_ns,
                # The models without a provider are ours.
                call_attributes(call, call.provider or SERVICE),
                kind=_CLIENT,
                error=call.error_code,
            )
            before = call

    def _times_of(self, row: TreeRow, call: ModelCall) -> tuple[int, int]:
        start_ns = self._started_ns + (row.start or 0) * 1_000_000
        if call.started_at is not None:
            start_ns = _ns(call.started_at)
        return start_ns, start_ns + (call.duration_ms or 0) * 1_000_000

    def _span(
        self,
        span_id: str,
        parent_id: str | None,
        name: str,
        start_ns: int,
        end_ns: int,
        attributes: Iterable[Attribute],
        *,
        kind: int = _INTERNAL,
        error: str | None,
    ) -> RunSpan:
        # Whoever receives a span knows by this whose it is, also where it comes back to where the run is.
        told = [("runglass.run.id", self._run.id), *attributes]
        kept = [(name, value) for name, value in told if value is not None]
        # An imported run may tell of times that OTLP has no number for.
        start_ns, end_ns = (min(max(0, each), _LAST_NS) for each in (start_ns, end_ns))
        return RunSpan(self._trace_id, span_id, parent_id, name, kind, start_ns, end_ns, kept, error)

    def _span_id(self, *numbers: int) -> str:
        """The id of a row, or of a call of its attempt: the same in each export of a run that has ended."""
        text = f"{self._run.id}/{'.'.join(map(str, numbers))}"
        return blake2b(text.encode(), digest_size=8).hexdigest()


class OtlpWriter:
    """Writes one run as OTLP/JSON: ids are hexadecimal and times are texts. Rows come as to `RunSpans`."""

    def __init__(self, run: RunSummary, *, version: str) -> None:
        self._spans = RunSpans(run)
        self._resource: list[Attribute] = [("service.name", SERVICE)]
        if (told := run.recording) is not None:
            self._resource = [("service.name", told.service or SERVICE)]
            for name, field, word in (
                ("service.version", "release", told.release),
                ("deployment.environment.name", "environment", told.environment),
            ):
                # It is said of all spans, so none may have said otherwise, nor be of another service.
                if {differing("service"), differing(field)}.isdisjoint(told.notes):
                    self._resource.append((name, word))
        self._version = version
        self._is_first = True

    def opening(self) -> bytes:
        """All that comes before the spans of rows."""
        resource = {"attributes": _json_attributes(self._resource)}
        scope = {"name": SERVICE, "version": self._version}
        before = b'{"resourceSpans":[{"resource":%b,"scopeSpans":[{"scope":%b,"spans":[' % (
            msgspec.json.encode(resource),
            msgspec.json.encode(scope),
        )
        return before + self._joined(self._spans.root())

    def rows(self, rows: Iterable[tuple[TreeRow, StepTrace | None]]) -> bytes:
        """The spans of rows."""
        return self._joined(self._spans.of_rows(rows))

    def closing(self) -> bytes:
        """All that comes behind the spans."""
        return b"\n]}]}]}\n"

    def _joined(self, spans: Iterable[RunSpan]) -> bytes:
        parts = []
        for span in spans:
            parts.append((b"\n" if self._is_first else b",\n") + msgspec.json.encode(_json_span(span)))
            self._is_first = False
        return b"".join(parts)


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


def _recorded(run: Recording, step: StepTrace, end_ns: int) -> RunSpan:
    """A span as it was received, but for what the attributes are called that Runglass has read."""
    error: Any = step.error_context if isinstance(step.error_context, dict) else {}
    operation = "embeddings" if step.kind == "embedding" else "chat"
    attributes: list[Attribute] = [
        *(step.attributes or {}).items(),
        *(
            each
            for call in step.model_calls
            for each in call_attributes(call, call.provider, operation=operation)
        ),
        ("openinference.span.kind", _OPENINFERENCE_KINDS.get(step.kind or "")),
        ("input.value", _kept(step.input_context)),
        ("output.value", _kept(step.output_context)),
        ("error.type", None if (code := error.get("code")) == NO_CODE else code),
        ("exception.stacktrace", error.get("traceback")),
    ]
    if step.tokens is not None and not step.model_calls:
        attributes += [
            ("gen_ai.usage.input_tokens", step.tokens.prompt),
            ("gen_ai.usage.output_tokens", step.tokens.completion),
            ("gen_ai.response.model", step.model_used),
            ("runglass.cost_usd", step.cost_usd),
        ]
    if step.span_id == run.entry_span_id:
        attributes += [("session.id", run.session), ("user.id", run.user)]
        attributes += [("runglass.tags", list(run.tags) or None)]
    # Its end is known in milliseconds.
    start_ns = int(step.start_time_unix_nano or 0)
    return RunSpan(
        run.trace_id,
        step.span_id or "",
        step.parent_span_id,
        step.name or step.step_id,
        _CLIENT if step.model_calls else _INTERNAL,
        start_ns,
        max(start_ns, end_ns),
        list({name: value for name, value in attributes if value is not None}.items()),
        (_error_of(step) or ("", "it failed"))[1] if step.status == "failed" else None,
        step.events or (),
        step.links or (),
    )


def _error_of(step: StepTrace | None) -> tuple[str, str] | None:
    """Code and message of an attempt's error."""
    error = None if step is None else step.error_context
    if not isinstance(error, dict):
        return None
    code = str(error.get("code", "INTERNAL_ERROR"))
    return code, str(error.get("message") or code)


def _kept(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _ns(time: str) -> int:
    return (datetime.fromisoformat(time) - _EPOCH) // timedelta(microseconds=1) * 1000


def _json_span(span: RunSpan) -> dict[str, Any]:
    told: dict[str, Any] = {"traceId": span.trace_id, "spanId": span.span_id}
    if span.parent_id is not None:
        told["parentSpanId"] = span.parent_id
    told |= {
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _json_attributes(span.attributes),
    }
    for name, parts in (("events", span.events), ("links", span.links)):
        if parts:
            told[name] = [_json_part(each) for each in parts if isinstance(each, dict)]
    return told if span.error is None else told | {"status": {"code": _ERROR, "message": span.error}}


def _json_part(part: dict[str, Any]) -> dict[str, Any]:
    """An event, or a link; what OTLP has no member for is an attribute."""
    members = {theirs: part[ours] for ours, theirs in _MEMBERS.items() if ours in part}
    more = {name: value for name, value in part.items() if name not in _MEMBERS}
    if isinstance(told := more.get("attributes"), dict):
        more = {**more, **told, "attributes": told.get("attributes")}
    return members | {"attributes": _json_attributes(more.items())}


def _json_attributes(attributes: Iterable[Attribute]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _json_value(value)} for name, value in attributes if value is not None]


def _json_value(value: Any) -> dict[str, Any]:
    type_, value = _typed(value)
    if type_ == "array":
        value = {"values": list(map(_json_value, value))}
    return {f"{type_}Value": str(value) if type_ == "int" else value}


def _encoded(span: RunSpan) -> Span:
    status = None
    if span.error is not None:
        status = Status(code=Status.StatusCode.STATUS_CODE_ERROR, message=span.error)
    return Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id or ""),
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
    type_, value = _typed(value)
    value = ArrayValue(values=map(_any_value, value)) if type_ == "array" else value
    return AnyValue(**{f"{type_}_value": value})


def _typed(value: Any) -> tuple[str, Any]:
    """The value with what OTLP calls its type."""
    match value:
        case bool():
            return "bool", value
        case int() if -(2**63) <= value < 2**63:
            return "int", value
        case float():
            return "double", value
        case list():
            return "array", value
        case str():
            return "string", value
    return "string", msgspec.json.encode(value).decode()
