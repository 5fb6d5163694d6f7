"""One line of text for each event of a run."""

from datetime import datetime
from typing import assert_never

import msgspec
from rich.cells import cell_len
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import one_line
from runglass.errors import is_cancellation
from runglass.log.events import (
    ContentKept,
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    LoopCompleted,
    LoopStarted,
    OverridesApplied,
    RunInput,
    RunStarted,
    StepCompleted,
    StepError,
    StepEvent,
    StepInput,
    StepModelCall,
    StepModelReserved,
    StepOutput,
    StepPaused,
    StepPausedForToolCalls,
    StepProgress,
    StepRecorded,
    StepResumed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
    UnknownEvent,
)
from runglass.log.trace import ModelCall

LIMIT = 400

PASSING = (LoopStarted, StepStarted, StepInput, StepProgress, StepModelReserved, StepModelCall, StepOutput)
"""Events of what goes on, each followed by one of its end."""

LineParts = tuple[str, str, str]
"""Mark, colour and text of a line."""


class EventLines:
    """Turns the events of one run into lines. Times are seconds since the run's first event."""

    def __init__(self) -> None:
        self._start: datetime | None = None
        self._step_width = 18

    def line(self, event: StreamEvent) -> Text:
        """The event on one line: its time, step, iteration and attempt, and what it says."""
        if self._start is None:
            self._start = formatting.moment(event.at)
        mark, style, text = _line_parts(event)
        line = Text.assemble((f"{formatting.offset(self._start, event.at):>10}  ", "dim"))
        line.append(f"{mark} ", style)
        if isinstance(event, StepEvent):
            where, iteration = one_line(event.step_id, limit=64), formatting.iteration(event)
            where += f" [{iteration}]" if iteration else ""
            # The steps to come are not known, so the column is as wide as the longest name so far.
            cells = cell_len(where)
            self._step_width = min(40, max(self._step_width, cells))
            line.append(where + " " * (self._step_width - cells) + "  ", "bold")
        line.append(one_line(text, limit=LIMIT), style)
        return line


def _line_parts(event: StreamEvent) -> LineParts:
    match event:
        case RunStarted() if event.trace_id is not None:
            return "▶", "bold", f"recorded of trace {event.trace_id}"
        case RunStarted():
            version = f"version {event.version}" if event.version else "the draft"
            return "▶", "bold", f"run started: {formatting.counted(event.step_count, 'step')}, {version}"
        case RunInput():
            return "·", "dim", f"input of the run: {_excerpt(event.inputs)}"
        case OverridesApplied():
            names = one_line(formatting.overrides(event.overridden))
            return "·", "yellow", f"overridden by the call: {names}"
        case StepStarted():
            return "▷", "cyan", f"started, attempt {event.attempt}" if event.attempt > 1 else "started"
        case StepInput():
            return "·", "dim", f"input of {formatting.size(event.input_size_bytes)}{_attempt(event.attempt)}"
        case StepResumed():
            return "▷", "cyan", "resumed with tool results"
        case StepProgress():
            return "·", "dim", f"says {one_line(event.text, limit=60)!r}{_attempt(event.attempt)}"
        case StepOutput():
            return "·", "dim", f"output: {_excerpt(event.output_data)}{_attempt(event.attempt)}"
        case StepModelReserved():
            most = formatting.money(event.reservation.usd)
            return "·", "dim", f"asks {one_line(event.reservation.model)} for at most {most}"
        case StepModelCall():
            return "·", "dim", _model_call(event.model_call)
        case StepRecorded():
            return _recorded(event)
        case StepCompleted():
            return "✓", "green", _completed(event)
        case StepRetrying():
            error = one_line(formatting.error_text(event.error), limit=120)
            wait = formatting.duration(event.delay_ms)
            return "↻", "yellow", f"attempt {event.attempt} failed, next in {wait}: {error}"
        case StepError() if is_cancellation(event.error):
            return "⊘", "dim", f"aborted on attempt {event.attempt}"
        case StepError():
            error = one_line(formatting.error_text(event.error), limit=160)
            return "✗", "bold red", f"failed on attempt {event.attempt}: {error}"
        case StepSkipped():
            return "–", "dim", f"skipped: {one_line(event.reason)}"
        case LoopStarted():
            return "▷", "cyan", f"loop started, {formatting.counted(event.iterations, 'iteration')}"
        case LoopCompleted():
            return "✓", "green", f"loop completed, {formatting.counted(event.iterations, 'iteration')}"
        case StepPaused():
            # Events of older logs have no step id, and their index is that of the next step.
            where = (
                f"before step {event.step_index}" if event.step_id is None else f"after step {event.step_id}"
            )
            return "‖", "yellow", f"paused {where}"
        case StepPausedForToolCalls():
            calls = formatting.counted(len(event.tool_calls), "tool call")
            return "‖", "yellow", f"{event.step_id} is waiting for the results of {calls}"
        case ContentKept():
            left_out = f", {event.left_out} left out" if event.left_out else ""
            return "·", "dim", f"keeps {formatting.counted(len(event.outputs), 'output')}{left_out}"
        case FlowCompleted():
            return "■", "bold green", f"run completed{_summary(event.summary)}"
        case FlowFailed():
            where = f" in step {event.step_id}" if event.step_id else ""
            return "■", "bold red", f"run failed{where}: {one_line(formatting.error_text(event.error))}"
        case FlowCancelled():
            return "■", "bold", one_line(f"run {formatting.cancelled(event.reason)}")
        case UnknownEvent():
            data = msgspec.json.encode(event.data).decode()
            return "?", "dim", f"{one_line(event.event_type)} {one_line(data, limit=120)}"
    assert_never(event)


def _attempt(number: int) -> str:
    return f" (attempt {number})" if number > 1 else ""


def _completed(event: StepCompleted) -> str:
    parts = [f"completed in {formatting.duration(event.duration_ms)}"]
    if event.attempt > 1:
        parts.append(f"attempt {event.attempt}")
    if event.model_used is not None:
        parts.append(one_line(event.model_used, limit=60))
    if event.tokens is not None:
        parts.append(formatting.counted(event.tokens.total, "token"))
    if event.cost_usd is not None:
        parts.append(formatting.money(event.cost_usd))
    if event.finish_reason == "length":
        parts.append(formatting.CUT)
    return ", ".join(parts)


def _recorded(event: StepRecorded) -> LineParts:
    span = event.span
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    parts = [span.kind if span.name is None else f"{one_line(span.name, limit=80)} ({span.kind})"]
    if span.model_used is not None and span.model_used not in (span.name or ""):
        parts.append(one_line(span.model_used, limit=60))
    if start is not None and end is not None:
        parts.append(formatting.duration((int(end) - int(start)) // 1_000_000))
    if span.tokens is not None:
        parts.append(formatting.counted(span.tokens.total, "token"))
    if span.cost_usd is not None:
        parts.append(formatting.money(span.cost_usd))
    if span.status == "error":
        error = one_line(formatting.error_text(span.error), limit=160)
        return "✗", "bold red", f"failed: {', '.join(parts)}: {error}"
    return ("▷", "cyan", f"running: {', '.join(parts)}") if end is None else ("✓", "green", ", ".join(parts))


def _model_call(call: ModelCall) -> str:
    parts = [f"{one_line(call.model_used or call.model, limit=60)} asked"]
    if call.duration_ms is not None:
        parts[0] += f", {formatting.duration(call.duration_ms)}"
    if call.error_code is not None:
        parts.append(f"failed: {one_line(call.error_code, limit=60)}")
    elif call.finish_reason is not None:
        parts.append(formatting.finish(call.finish_reason))
    return ", ".join(parts)


def _excerpt(data: object) -> str:
    text = data.get("text") if isinstance(data, dict) else None
    if isinstance(text, str):
        return repr(one_line(text, limit=60))
    return one_line(msgspec.json.encode(data).decode(), limit=60)


def _summary(summary: object) -> str:
    if not isinstance(summary, dict):
        return ""
    names = ("completed", "retried", "failed", "skipped")
    counts = [
        f"{summary[name]:,} {name}" for name in names if isinstance(summary.get(name), int) and summary[name]
    ]
    return f": {', '.join(counts)}" if counts else ""
