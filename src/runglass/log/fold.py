"""Events to trace: a pure, incremental fold.

The log of events is the truth, and the trace follows from it. The run writer folds each event as it writes it
and stores the outcome beside it; a client that folds `live_trace()` arrives at the same trace, byte for byte.
Nothing here does I/O, asks the clock or makes up a value.

More than 300 lines: one state machine, whose transitions are read together.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from re import compile as pattern
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import msgspec
from msgspec.structs import replace

from runglass.errors import is_cancellation_json
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
    StepPaused,
    StepPausedForToolCalls,
    StepRecorded,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
)
from runglass.log.money import ZERO, Spent, Totals, add_usd
from runglass.log.span_state import SpanState
from runglass.log.span_tree import Address as Address
from runglass.log.span_tree import SpanTree
from runglass.log.trace import (
    ModelCall,
    ModelReservation,
    Recording,
    RunError,
    RunSummary,
    StepTrace,
    Trace,
)
from runglass.support.clock import iso_ms
from runglass.support.lazy_json import Json, encoded, json_bytes

ERROR_CHARS = 300
"""The most characters of an error's message in a run's summary, which stands in every list."""
PREVIEW_CHARS = 200
"""The most characters of a run's input or result in its summary."""
DAMAGE = (msgspec.MsgspecError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""What reading and folding a log raises that is damaged, or was made to do harm."""
MOST_LOOPS = 100
"""Loops that go on of which a run's summary tells; it is written with each append."""
_UUID = pattern(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class StepChange(NamedTuple):
    """The new state of one step. `position` counts steps and iterations by their first start, from 1."""

    position: int
    step: StepTrace


class RunFold:
    """The state of a run that is needed to fold its next event: its summary and the steps that are open.

    Memory is bounded by the steps that run at one time, not by the length of the run. Of a recorded run
    `tree` has a few numbers for each span; its fold is made anew by folding its events.
    """

    __slots__ = (
        "_is_counted",
        "_open",
        "_reserved",
        "_run",
        "last_position",
        "reserved_usd",
        "status",
        "totals",
        "tree",
    )

    def __init__(
        self, summary: RunSummary, *, open_steps: Iterable[StepChange] = (), last_position: int = 0
    ) -> None:
        self.last_position = last_position
        self.status = summary.status
        """The run's status."""
        self.totals = Totals(summary.totals)
        """What its attempts and model calls add up to so far."""
        self.reserved_usd = ZERO
        """The most that the present requests to models can cost."""
        self.tree: SpanTree | None = None
        """The spans of a recorded run, from its first event on."""
        self._run = summary
        self._is_counted = False
        self._open: dict[Address, StepChange] = {}
        self._reserved: dict[Address, Decimal] = {}
        for change in open_steps:
            self.reopen(change)

    @property
    def summary(self) -> RunSummary:
        """The run's present summary with its totals; the same object until it changes."""
        if not self._is_counted:
            if self.tree is None:
                self._run = replace(self._run, totals=self.totals.frozen())
            else:
                self._run = _with_spans(self._run, self.tree)
            self._is_counted = True
        return self._run

    def open_step(self, step_id: str, loop_path: tuple[int, ...] | None) -> StepTrace | None:
        """The latest attempt of a step that is open, in one iteration."""
        change = self._open.get(Address(step_id, loop_path))
        return None if change is None else change.step

    @property
    def open_steps(self) -> list[StepChange]:
        """The steps whose last attempt has not ended well or for good, in order of first start."""
        return sorted(self._open.values(), key=lambda change: change.position)

    @property
    def open_count(self) -> int:
        """How many steps are open."""
        return len(self._open)

    def reopen(self, change: StepChange) -> None:
        """Opens a step that had ended, which keeps its position: for a further attempt, or for its output."""
        address = Address(change.step.step_id, change.step.loop_path)
        self._open[address] = change
        if change.step.reservation is not None:
            self._reserve(address, change.step.reservation)

    def apply(self, event: StreamEvent) -> Sequence[StepChange]:
        """Takes one event in; returns the steps that it changed. `summary` is up to date afterwards.

        An event changes one step at most, except the last event, which also ends the attempts that still run,
        and `content_kept`, which changes those of its steps that were reopened.
        """
        if not isinstance(event, StepEvent):
            return self._apply_to_run(event)
        if self.tree is not None and isinstance(event, StepRecorded):
            return (self._record(event),)
        if self.status == "paused":
            self._set(status="running")
        address = Address(event.step_id, event.loop_path)
        match event:
            case StepStarted():
                if self._reserved:
                    self._reserve(address, None)
                step = StepTrace(
                    step_id=event.step_id,
                    attempt=event.attempt,
                    loop_index=event.loop_index,
                    loop_path=event.loop_path,
                    status="running",
                    started_at=event.at,
                    input_size_bytes=event.input_size_bytes,
                )
                return (self._begin(address, step),)
            case StepSkipped():
                step = StepTrace(
                    step_id=event.step_id,
                    attempt=event.attempt,
                    loop_index=event.loop_index,
                    loop_path=event.loop_path,
                    status="skipped",
                )
                self.totals.skipped += 1
                self._is_counted = False
                skipped = self._begin(address, step)
                del self._open[address]
                return (skipped,)
            case LoopStarted() | LoopCompleted():
                self._apply_to_loop(event)
                return ()
        known = self._open.get(address)
        if known is None:
            return ()
        match event:
            case StepInput():
                step = replace(
                    known.step,
                    input_context=json_bytes(event, "input_data"),
                    input_size_bytes=event.input_size_bytes,
                    truncated=known.step.truncated or event.truncated,
                )
            case StepModelReserved():
                self._reserve(address, event.reservation)
                step = replace(known.step, reservation=event.reservation)
            case StepModelCall():
                step = self._with_call(known.step, event.model_call)
                if self._reserved:
                    self._reserve(address, None)
            case StepCompleted() | StepRetrying() | StepError():
                step = self._ended(known.step, event)
                if self._reserved:
                    self._reserve(address, None)
                if not isinstance(event, StepRetrying):
                    del self._open[address]
                    return (StepChange(known.position, step),)
            case _:
                return ()
        change = self._open[address] = StepChange(known.position, step)
        return (change,)

    def _record(self, event: StepRecorded) -> StepChange:
        """Takes in the state of a span."""
        [number] = event.loop_path or (0,)
        step = recorded_step(event.span, event.step_id, event.loop_path)
        return StepChange(self.take_span(event.span, event.step_id, number, step), step)

    def take_span(self, span: SpanState, step_id: str, number: int, step: StepTrace | None) -> int:
        """Takes in the state of a span of a recorded run, as `apply` does; returns its position.

        The content of the span is not asked for, and its `step` only where it has not ended.
        """
        assert self.tree is not None
        position = self.tree.add(span, step_id, number, position=self.last_position + 1)
        self.last_position = max(self.last_position, position)
        self._is_counted = False
        if step is not None and step.status == "running":
            # By the id of the span: its address can change, as long as only its logs have come.
            self._open[Address(span.span_id, None)] = StepChange(position, step)
        elif self._open:
            self._open.pop(Address(span.span_id, None), None)
        return position

    def _keep_outputs(self, event: ContentKept) -> list[StepChange]:
        changes = []
        for kept in event.outputs:
            address = Address(kept.step_id, kept.loop_path)
            known = self._open.get(address)
            if known is not None and known.step.status == "completed":
                del self._open[address]
                output, is_cut = json_bytes(kept, "output"), known.step.truncated or kept.truncated
                changes.append(
                    StepChange(known.position, replace(known.step, output_context=output, truncated=is_cut))
                )
        return changes

    def _cut_off(self, at: str, error: Json) -> list[StepChange]:
        """Ends the attempts that still run, as the run has ended."""
        cut_off = []
        for position, running in self.open_steps:
            if running.status == "running":
                step = replace(
                    running,
                    status="failed",
                    completed_at=at,
                    duration_ms=milliseconds_between(running.started_at or at, at),
                    error_context=error,
                    reservation=None,
                )
                if self.tree is not None and step.span_id is not None:
                    at_us = round(datetime.fromisoformat(at).timestamp() * 1_000_000)
                    self.tree.fail(step.span_id, at_us)
                else:
                    self._end_attempt("failed", step, step)
                cut_off.append(StepChange(position, step))
        self._open.clear()
        self._reserved.clear()
        self.reserved_usd = ZERO
        return cut_off

    def _apply_turn(self, event: StepPausedForToolCalls) -> Sequence[StepChange]:
        address = Address(event.step_id, None)
        known = self._open.get(address)
        if known is None or known.step.model_calls:
            return ()
        # A log without `step_model_call` events has its cost in each pause.
        step = replace(known.step, model_used=event.model_used, tokens=event.tokens, cost_usd=event.cost_usd)
        if step.model_used is not None:
            self.totals.add_growth(step.model_used, known.step, step)
        change = self._open[address] = StepChange(known.position, step)
        return (change,)

    def _with_call(self, step: StepTrace, call: ModelCall) -> StepTrace:
        """The attempt with one more request to its model, which is counted."""
        of_call = Spent.read(call.tokens, call.cost_usd)
        self.totals.add_call(call, of_call)
        self._is_counted = False
        spent = Spent.read(step.tokens, step.cost_usd).plus(of_call)
        return replace(
            step,
            model_used=call.model_used or step.model_used,
            tokens=spent.tokens,
            cost_usd=spent.cost_text,
            finish_reason=call.finish_reason,
            model_calls=(*step.model_calls, call),
            reservation=None,
        )

    def _ended(self, before: StepTrace, event: StepCompleted | StepRetrying | StepError) -> StepTrace:
        """The attempt as it has ended, which is counted."""
        ended = {
            "completed_at": event.at,
            "duration_ms": event.duration_ms,
            "model_used": event.model_used,
            "tokens": event.tokens,
            "cost_usd": event.cost_usd,
            "reservation": None,
        }
        if isinstance(event, StepCompleted):
            step = replace(
                before,
                **ended,
                status="completed",
                output_context=json_bytes(event, "output"),
                output_size_bytes=event.output_size_bytes,
                truncated=before.truncated or event.truncated,
            )
            self._end_attempt("completed", before, step)
        else:
            step = replace(before, **ended, status="failed", error_context=json_bytes(event, "error"))
            self._end_attempt("failed" if isinstance(event, StepError) else "retried", before, step)
        return step

    def _end_attempt(self, how: str, before: StepTrace, attempt: StepTrace) -> None:
        """Counts an attempt that has ended: `completed`, `failed` or `retried`."""
        if attempt.model_used is not None and not attempt.model_calls:
            self.totals.add_growth(attempt.model_used, before, attempt)
        if how == "completed":
            self.totals.completed += 1
        elif how == "retried":
            self.totals.retried += 1
        else:
            self.totals.failed += 1
            error: Any = json_bytes(attempt, "error_context")
            self.totals.cancelled += error is not None and is_cancellation_json(bytes(error))
        if how != "completed":
            self.totals.add_failed(attempt)
        self._is_counted = False

    def _reserve(self, address: Address, reservation: ModelReservation | None) -> None:
        """Notes what a request to a model can cost, or that there is none any more."""
        if reservation is None:
            self._reserved.pop(address, None)
        else:
            self._reserved[address] = Decimal(reservation.usd)
        total = ZERO
        for usd in self._reserved.values():
            total = add_usd(total, usd)
        self.reserved_usd = total

    def _set(self, **fields: Any) -> None:
        self._run = replace(self._run, **fields)
        self.status = self._run.status
        self._is_counted = False

    def _apply_to_run(self, event: StreamEvent) -> Sequence[StepChange]:
        match event:
            case RunStarted():
                self._set(
                    id=event.execution_id,
                    flow_id=event.flow_id,
                    status="running",
                    flow_slug=event.flow_slug,
                    version=event.version,
                    trigger_type=event.trigger_type,
                    session_id=event.session_id,
                    started_by=event.started_by,
                    started_at=event.at,
                    step_count=event.step_count,
                    trace_parent=event.trace_parent,
                    trace_state=event.trace_state,
                    rerun_of=event.rerun_of,
                )
                if event.trace_id is not None:
                    self.tree = SpanTree()
                    self._set(recording=Recording(trace_id=event.trace_id, continues=event.continues))
            case RunInput():
                self._set(input_preview=_preview(event.input_preview))
            case OverridesApplied():
                # A call has resumed the run, so it waits no longer.
                overridden = sorted({*self._run.overridden, *event.overridden})
                self._set(status="running", overridden=overridden)
            case StepPaused():
                self._set(status="paused")
            case StepPausedForToolCalls():
                self._set(status="paused")
                return self._apply_turn(event)
            case ContentKept():
                return self._keep_outputs(event)
            case FlowCompleted():
                self._set(result_preview=_preview(event.result_preview))
                self._end("completed", event.at)
            case FlowFailed():
                self._end("failed", event.at, error=_run_error(event.error, event.step_id))
                return self._cut_off(event.at, json_bytes(event, "error"))
            case FlowCancelled():
                reason = event.reason[:ERROR_CHARS]
                self._end("cancelled", event.at, error=RunError(code="CANCELLED", message=reason))
                error = {"code": "CANCELLED", "message": event.reason}
                return self._cut_off(event.at, encoded(msgspec.json.encode(error)))
        return ()

    def _end(self, status: str, at: str, *, error: RunError | None = None) -> None:
        self._set(
            status=status,
            completed_at=at,
            duration_ms=milliseconds_between(self._run.started_at or at, at),
            error=error,
        )

    def _begin(self, address: Address, attempt: StepTrace) -> StepChange:
        """Opens the step for an attempt, in the position that it has already or else in the next one."""
        known = self._open.get(address)
        if known is None:
            self.last_position += 1
        change = StepChange(self.last_position if known is None else known.position, attempt)
        self._open[address] = change
        return change

    def _apply_to_loop(self, event: LoopStarted | LoopCompleted) -> None:
        if isinstance(event, LoopStarted):
            # Until now each step inside was expected once.
            expected = self._run.expected_steps
            if expected is None:
                expected = self._run.step_count or 0
            self._set(expected_steps=expected + (event.iterations - 1) * len(event.step_ids))
        if event.loop_path is not None:
            return
        loops = self._run.loops
        if isinstance(event, LoopCompleted):
            if event.step_id in loops:
                self._set(loops={step_id: loops[step_id] for step_id in loops if step_id != event.step_id})
        elif event.step_id in loops or len(loops) < MOST_LOOPS:
            self._set(loops=loops | {event.step_id: event.iterations})


class TraceFold:
    """The whole trace of a run, event by event: `trace()` is right after each of them.

    `kept` is what stays of each step's state, for whoever needs no trace and has no room for one.
    """

    def __init__(self, kept: Callable[[StepTrace], StepTrace] | None = None) -> None:
        self._fold = RunFold(RunSummary(id="", flow_id="", status="pending"))
        self._kept = kept
        self._steps: dict[int, StepTrace] = {}
        self._positions: dict[Address, int] = {}
        self._content: dict[str, Json] = {}

    def apply(self, event: StreamEvent) -> Sequence[StepChange]:
        """Takes one event in; returns the steps that it changed."""
        if isinstance(event, RunInput | FlowCompleted):
            self._content |= content_of_run(event)
        if isinstance(event, StepStarted | StepSkipped | ContentKept):
            for each in event.outputs if isinstance(event, ContentKept) else (event,):
                position = self._positions.get(Address(each.step_id, each.loop_path))
                if position is not None:
                    self._fold.reopen(StepChange(position, self._steps[position]))
        changes = self._fold.apply(event)
        for position, step in changes:
            self._steps[position] = step if self._kept is None else self._kept(step)
            self._positions[Address(step.step_id, step.loop_path)] = position
        return changes

    @property
    def summary(self) -> RunSummary:
        """The run's summary as a store keeps it, without its input and result."""
        return self._fold.summary

    def trace(self) -> Trace:
        run = replace(self._fold.summary, **self._content)
        return Trace(flow_run=run, steps=list(self._steps.values()))


def fold(events: Iterable[StreamEvent]) -> Trace:
    """The trace that these events, from the first on, add up to."""
    state = TraceFold()
    for event in events:
        state.apply(event)
    return state.trace()


def content_of_run(event: StreamEvent) -> dict[str, Json]:
    """The fields `input` and `result` of the run's summary in a trace, as far as this event has them."""
    match event:
        case RunInput() if (inputs := json_bytes(event, "inputs")) is not None:
            members = {name: json_bytes(event, name) for name in ("messages", "attachments")}
            given = {name: value for name, value in members.items() if value is not None}
            return {"input": encoded(msgspec.json.encode({"inputs": inputs, **given}))}
        case FlowCompleted() if (result := json_bytes(event, "result")) is not None:
            return {"result": result}
    return {}


def _with_spans(run: RunSummary, tree: SpanTree) -> RunSummary:
    """The summary of a recorded run with what its spans tell."""
    told: dict[str, Any] = {"totals": tree.totals(), "step_count": tree.received}
    if run.recording is not None:
        told["recording"] = recording = tree.recording(run.recording)
        if (session := recording.session) is not None:
            told["session_id"] = session_id_of(session)
    if tree.is_gen_ai:
        told["trigger_type"] = "recorded"
    if (start := tree.first_start_us) is not None:
        told["started_at"] = iso_ms(start // 1000)
        if run.completed_at is not None and (end := tree.last_end_us) is not None:
            told["completed_at"] = iso_ms(max(start, end) // 1000)
            told["duration_ms"] = max(0, round((end - start) / 1000))
    return replace(run, **told)


def session_id_of(session: str) -> str:
    """The id of a session of another program, in our form."""
    lowered = session.lower()
    return lowered if _UUID.fullmatch(lowered) else str(uuid5(NAMESPACE_URL, session))


def recorded_status(span: SpanState) -> str:
    """The status of the step of a span."""
    if span.name is None:
        # What is known of it has come; nothing says that it goes on.
        return "completed"
    if span.end_time_unix_nano is None:
        return "running"
    return "failed" if span.status == "error" else "completed"


def recorded_step(span: SpanState, step_id: str = "", loop_path: tuple[int, ...] | None = None) -> StepTrace:
    """The step of a span."""
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    duration_ms = None
    if span.name is not None and start is not None and end is not None:
        duration_ms = max(0, round((int(end) - int(start)) / 1_000_000))
    calls = span.model_calls
    events: Any = json_bytes(span, "events")
    links: Any = json_bytes(span, "links")
    return StepTrace(
        step_id=step_id,
        loop_path=loop_path,
        status=recorded_status(span),
        started_at=None if start is None else iso_ms(int(start) // 1_000_000),
        completed_at=None if end is None else iso_ms(int(end) // 1_000_000),
        duration_ms=duration_ms,
        model_used=span.model_used,
        tokens=span.tokens,
        cost_usd=span.cost_usd,
        input_context=json_bytes(span, "input"),
        output_context=json_bytes(span, "output"),
        error_context=json_bytes(span, "error"),
        input_size_bytes=span.input_size_bytes,
        output_size_bytes=span.output_size_bytes,
        truncated=span.truncated,
        finish_reason=calls[-1].finish_reason if calls else None,
        name=span.name,
        kind=span.kind,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        start_time_unix_nano=start,
        scope=span.scope,
        attributes=json_bytes(span, "attributes"),
        events=events,
        links=links,
        notes=span.notes,
        model_calls=calls,
    )


def _preview(told: str | None) -> str | None:
    # It stands in every list, and an imported log may have anything.
    return None if told is None else told[:PREVIEW_CHARS]


def _run_error(error: object, step_id: str | None) -> RunError:
    error = error if isinstance(error, dict) else {}
    code, message = error.get("code"), error.get("message")
    return RunError(
        code=code if isinstance(code, str) else "INTERNAL_ERROR",
        message=message[:ERROR_CHARS] if isinstance(message, str) else None,
        step_id=step_id,
    )


def milliseconds_between(start: str, end: str) -> int:
    """Whole milliseconds between two ISO times, never below 0: clocks may be set back."""
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return max(0, round(seconds * 1000))
