"""A run as OTLP/JSON: a span for the run, for each container, iteration, step, attempt and model call.

Ids are hexadecimal and times are texts of nanoseconds, as OTLP has them in JSON. What has not ended is no
span yet.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from runglass.log.trace import ModelCall, RunSummary, StepTrace
from runglass.outlines.outline import TreeRow
from runglass.run_files.gen_ai import Attribute, call_attributes, model_name
from runglass.wire.run_api import read_trace_context

_INTERNAL, _CLIENT = 1, 3
_ERROR = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROOT = -1


class OtlpWriter:
    """Writes one run. `rows` come in pre-order, each with the data of its attempt where it has one.

    `version` is that of the program which writes.
    """

    def __init__(self, run: RunSummary, *, version: str) -> None:
        self._run = run
        self._version = version
        self._started_ns = 0 if run.started_at is None else _ns(run.started_at)
        # Those of the call that started the run, where it had any.
        context = None if run.trace_parent is None else read_trace_context([run.trace_parent], [])
        self._trace_id, self._parent_id = run.id.replace("-", ""), None
        if context is not None:
            _, self._trace_id, self._parent_id, _ = context.parent.split("-")
        self._is_first = True

    def opening(self) -> bytes:
        """All that comes before the spans of rows."""
        resource = {"attributes": _attributes([("service.name", "runglass")])}
        scope = {"name": "runglass", "version": self._version}
        before = b'{"resourceSpans":[{"resource":%b,"scopeSpans":[{"scope":%b,"spans":[' % (
            msgspec.json.encode(resource),
            msgspec.json.encode(scope),
        )
        return before + self._joined(self._root())

    def rows(self, rows: Iterable[tuple[TreeRow, StepTrace | None]]) -> bytes:
        """The spans of rows."""
        return self._joined(span for row, step in rows for span in self._of_row(row, step))

    def closing(self) -> bytes:
        """All that comes behind the spans."""
        return b"\n]}]}]}\n"

    def _joined(self, spans: Iterable[dict[str, Any]]) -> bytes:
        parts = []
        for span in spans:
            parts.append((b"\n" if self._is_first else b",\n") + msgspec.json.encode(span))
            self._is_first = False
        return b"".join(parts)

    def _root(self) -> Iterator[dict[str, Any]]:
        run = self._run
        if run.started_at is None or run.completed_at is None:
            return
        attributes: Sequence[Attribute] = (
            ("runglass.run.id", run.id),
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
            run.flow_slug or "run",
            self._started_ns,
            _ns(run.completed_at),
            attributes,
            error=run.error.message or run.error.code if is_bad and run.error is not None else None,
        )

    def _of_row(self, row: TreeRow, step: StepTrace | None) -> Iterator[dict[str, Any]]:
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
        for call in () if step is None else step.model_calls:
            yield self._of_call(row, call)

    def _of_call(self, row: TreeRow, call: ModelCall) -> dict[str, Any]:
        start_ns = self._started_ns + (row.start or 0) * 1_000_000
        if call.started_at is not None:
            start_ns = _ns(call.started_at)
        return self._span(
            self._span_id(row.number, call.number),
            self._span_id(row.number),
            f"chat {model_name(call)}",
            start_ns,
            start_ns + (call.duration_ms or 0) * 1_000_000,
            call_attributes(call),
            kind=_CLIENT,
            error=call.error_code,
        )

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
    ) -> dict[str, Any]:
        span: dict[str, Any] = {"traceId": self._trace_id, "spanId": span_id}
        if parent_id is not None:
            span["parentSpanId"] = parent_id
        span |= {
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(start_ns),
            "endTimeUnixNano": str(end_ns),
            "attributes": _attributes(attributes),
        }
        return span if error is None else span | {"status": {"code": _ERROR, "message": error}}

    def _span_id(self, *numbers: int) -> str:
        """The id of a row, or of a call of its attempt: the same in each export of a run that has ended."""
        text = f"{self._run.id}/{'.'.join(map(str, numbers))}"
        return blake2b(text.encode(), digest_size=8).hexdigest()


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


def _attributes(attributes: Iterable[Attribute]) -> list[dict[str, Any]]:
    """Attributes as OTLP has them; what there is none of is left out."""
    return [{"key": name, "value": _any_value(value)} for name, value in attributes if value is not None]


def _any_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_any_value(each) for each in value]}}
    return {"stringValue": str(value)}
