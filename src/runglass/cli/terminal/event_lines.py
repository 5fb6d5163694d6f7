"""One line of text for each event of a run."""

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

import msgspec
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.formatting import counted, duration, money
from runglass.cli.terminal.output import one_line
from runglass.errors import is_cancellation
from runglass.log import events
from runglass.log.span_state import SpanState

LIMIT = 400

PASSING = (
    events.LoopStarted,
    events.StepStarted,
    events.StepInput,
    events.StepProgress,
    events.StepModelReserved,
    events.StepModelCall,
    events.StepOutput,
)
"""Events of what goes on, each followed by one of its end."""


class EventLines:
    """Turns the events of one run into lines. Times are seconds since the run's first event."""

    def __init__(self) -> None:
        self._start: datetime | None = None

    def line(self, event: events.StreamEvent) -> Text:
        """The event on one line: its time, step, iteration and attempt, and what it says."""
        at = formatting.moment(event.at)
        self._start = self._start or at
        since = "–" if at is None or self._start is None else f"{(at - self._start).total_seconds():+.3f} s"
        mark, style, text = _line_parts(event)
        line = Text.assemble((f"{since:>10}  ", "dim"))
        line.append(f"{mark} ", style)
        if isinstance(event, events.StepEvent):
            line.append(f"{formatting.step_name(event):<18}  ", "bold")
        line.append(one_line(text, limit=LIMIT), style)
        return line


def _line_parts(event: events.StreamEvent) -> tuple[str, str, str]:
    """Mark, colour and text of a line."""
    match event:
        case events.RunStarted() if event.trace_id is not None:
            return "▶", "bold", f"recorded of trace {event.trace_id}"
        case events.RunStarted():
            version = f"version {event.version}" if event.version else "the draft"
            return "▶", "bold", f"run started: {counted(event.step_count, 'step')}, {version}"
        case events.RunInput():
            return "·", "dim", f"input of the run: {_excerpt(event.inputs)}"
        case events.OverridesApplied():
            return "·", "yellow", f"overridden by the call: {formatting.overrides(event.overridden)}"
        case events.StepStarted():
            return "▷", "cyan", _joined("started", _attempt(event.attempt))
        case events.StepInput():
            size = formatting.size(event.input_size_bytes)
            return "·", "dim", _joined(f"input of {size}", _attempt(event.attempt))
        case events.StepResumed():
            return "▷", "cyan", "resumed with tool results"
        case events.StepProgress():
            said = f"says {one_line(event.text, limit=60)!r}"
            return "·", "dim", _joined(said, _attempt(event.attempt))
        case events.StepOutput():
            return "·", "dim", _joined(f"output: {_excerpt(event.output_data)}", _attempt(event.attempt))
        case events.StepModelReserved():
            most = money(event.reservation.usd)
            return "·", "dim", f"asks {event.reservation.model} for at most {most}"
        case events.StepModelCall(model_call=call):
            failed = None if call.error_code is None else f"failed: {call.error_code}"
            end = failed or (call.finish_reason and formatting.finish(call.finish_reason))
            took = None if call.duration_ms is None else duration(call.duration_ms)
            return "·", "dim", _joined(f"{call.model_used or call.model} asked", took, end)
        case events.StepRecorded():
            return _recorded(event)
        case events.StepCompleted():
            cut = formatting.CUT if event.finish_reason == "length" else None
            took = f"completed in {duration(event.duration_ms)}"
            return "✓", "green", _joined(took, _attempt(event.attempt), *_spent(event), cut)
        case events.StepRetrying():
            wait = duration(event.delay_ms)
            return "↻", "yellow", f"attempt {event.attempt} failed, next in {wait}: {_error(event.error)}"
        case events.StepError() if is_cancellation(event.error):
            return "⊘", "dim", f"aborted on attempt {event.attempt}"
        case events.StepError():
            return "✗", "bold red", f"failed on attempt {event.attempt}: {_error(event.error)}"
        case events.StepSkipped():
            return "–", "dim", f"skipped: {event.reason}"
        case events.LoopStarted():
            return "▷", "cyan", f"loop started, {counted(event.iterations, 'iteration')}"
        case events.LoopCompleted():
            return "✓", "green", f"loop completed, {counted(event.iterations, 'iteration')}"
        case events.StepPaused():
            # Events of older logs have no step id, and their index is that of the next step.
            is_old = event.step_id is None
            where = f"before step {event.step_index}" if is_old else f"after step {event.step_id}"
            return "‖", "yellow", f"paused {where}"
        case events.StepPausedForToolCalls():
            calls = counted(len(event.tool_calls), "tool call")
            return "‖", "yellow", f"{event.step_id} is waiting for the results of {calls}"
        case events.ContentKept():
            left_out = f"{event.left_out} left out" if event.left_out else None
            return "·", "dim", _joined(f"keeps {counted(len(event.outputs), 'output')}", left_out)
        case events.FlowCompleted():
            known = event.summary if isinstance(event.summary, dict) else {}
            names = ("completed", "retried", "failed", "skipped")
            counts = [
                f"{known[name]:,} {name}"
                for name in names
                if isinstance(known.get(name), int) and known[name]
            ]
            return "■", "bold green", ": ".join(filter(None, ("run completed", ", ".join(counts))))
        case events.FlowFailed():
            where = f" in step {event.step_id}" if event.step_id else ""
            return "■", "bold red", f"run failed{where}: {formatting.error_text(event.error)}"
        case events.FlowCancelled():
            return "■", "bold", f"run {formatting.cancelled(event.reason)}"
        case events.UnknownEvent():
            return "?", "dim", f"{event.event_type} {_excerpt(event.data)}"
    assert_never(event)


def _joined(*parts: str | None) -> str:
    return ", ".join(filter(None, parts))


def _attempt(number: int) -> str | None:
    return f"attempt {number}" if number > 1 else None


def _error(error: object) -> str:
    return one_line(formatting.error_text(error), limit=160)


def _spent(of: events.StepCompleted | SpanState, *, name: str = "") -> Iterator[str | None]:
    """The model, tokens and cost, as far as they are known; a model that the name tells is not said again."""
    yield None if of.model_used is None or of.model_used in name else one_line(of.model_used, limit=60)
    yield None if of.tokens is None else counted(of.tokens.total, "token")
    yield None if of.cost_usd is None else money(of.cost_usd)


def _recorded(event: events.StepRecorded) -> tuple[str, str, str]:
    span = event.span
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    model, *spent = _spent(span, name=span.name or "")
    text = _joined(
        span.kind if span.name is None else f"{one_line(span.name, limit=80)} ({span.kind})",
        model,
        None if start is None or end is None else duration((int(end) - int(start)) // 1_000_000),
        *spent,
    )
    if span.status == "error":
        return "✗", "bold red", f"failed: {text}: {_error(span.error)}"
    return ("▷", "cyan", f"running: {text}") if end is None else ("✓", "green", text)


def _excerpt(data: object) -> str:
    text = data.get("text") if isinstance(data, dict) else None
    if isinstance(text, str):
        return repr(one_line(text, limit=60))
    return one_line(msgspec.json.encode(data).decode(), limit=120)
