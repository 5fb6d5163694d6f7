"""Events to trace: a pure, incremental fold.

The log of events is the truth, and the trace follows from it. The recorder folds each event as it writes it
and stores the outcome beside it; a client that folds `live_trace()` arrives at the same trace, byte for byte.
Nothing here does I/O, asks the clock or makes up a value.

More than 300 lines: one state machine, whose transitions are read together.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

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
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
    UnknownEvent,
)
from runglass.log.money import ZERO, Spent, Totals, add_usd
from runglass.log.trace import RunError, RunSummary, StepTrace, Trace
from runglass.support.lazy_json import Json, encoded, json_bytes

ERROR_CHARS = 300
"""The most characters of an error's message in a run's summary, which stands in every list."""
PREVIEW_CHARS = 200
"""The most characters of a run's input or result in its summary."""
DAMAGE = (msgspec.MsgspecError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""What reading and folding a log raises that is damaged, or was made to do harm."""
MOST_LOOPS = 100
"""Loops that go on of which a run's summary tells; it is written with each append."""


class Address(NamedTuple):
    """A step in one iteration."""

    step_id: str
    loop_path: tuple[int, ...] | None


class StepChange(NamedTuple):
    """The new state of one step. `position` counts steps and iterations by their first start, from 1."""

    position: int
    step: StepTrace


class RunFold:
    """The state of a run that is needed to fold its next event: its summary and the steps that are open.

    Memory is bounded by the steps that run at one time, not by the length of the run.
    """

    def __init__(
        self, summary: RunSummary, *, open_steps: Iterable[StepChange] = (), last_position: int = 0
    ) -> None:
        self.last_position = last_position
        self._run = summary
        self._totals = Totals(summary.totals)
        self._summary: RunSummary | None = None
        self._open: dict[Address, StepChange] = {}
        self._reserved: dict[Address, Decimal] = {}
        for change in open_steps:
            self.reopen(change)

    @property
    def summary(self) -> RunSummary:
        """The run's present summary with its totals; the same object until it changes."""
        if self._summary is None:
            self._summary = replace(self._run, totals=self._totals.frozen())
        return self._summary

    @property
    def status(self) -> str:
        """The run's status."""
        return self._run.status

    @property
    def spent(self) -> Spent:
        """The cost and tokens of all model calls so far."""
        return self._totals.spent

    @property
    def reserved_usd(self) -> Decimal:
        """The most that the present requests to models can cost."""
        total = ZERO
        for usd in self._reserved.values():
            total = add_usd(total, usd)
        return total

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
            self._reserved[address] = Decimal(change.step.reservation.usd)

    def apply(self, event: StreamEvent) -> Sequence[StepChange]:
        """Takes one event in; returns the steps that it changed. `summary` is up to date afterwards.

        An event changes one step at most, except the last event, which also ends the attempts that still run,
        and `content_kept`, which changes those of its steps that were reopened.
        """
        if isinstance(event, StepEvent):
            change = self._apply_to_step(event)
            if self._run.status == "paused":
                self._set(status="running")
            return () if change is None else (change,)
        if not isinstance(event, UnknownEvent):
            self._apply_to_run(event)
        match event:
            case StepPausedForToolCalls() if (change := self._apply_turn(event)) is not None:
                return (change,)
            case ContentKept():
                return self._keep_outputs(event)
            case FlowCancelled():
                error = {"code": "CANCELLED", "message": event.reason}
                return self._cut_off(event.at, encoded(msgspec.json.encode(error)))
            case FlowFailed():
                return self._cut_off(event.at, json_bytes(event, "error"))
        return ()

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
                self._end_attempt("failed", step, step)
                cut_off.append(StepChange(position, step))
        self._open.clear()
        self._reserved.clear()
        return cut_off

    def _apply_turn(self, event: StepPausedForToolCalls) -> StepChange | None:
        address = Address(event.step_id, None)
        known = self._open.get(address)
        if known is None or known.step.model_calls:
            return None
        # A log without `step_model_call` events has its cost in each pause.
        step = replace(known.step, model_used=event.model_used, tokens=event.tokens, cost_usd=event.cost_usd)
        self._totals.add_growth(known.step, step)
        return self._keep(address, step)

    def _apply_call(self, known: StepChange, event: StepModelCall) -> StepChange:
        call, step = event.model_call, known.step
        self._totals.add_call(call)
        self._summary = None
        spent = Spent.read(step.tokens, step.cost_usd).plus(Spent.read(call.tokens, call.cost_usd))
        step = replace(
            step,
            model_used=call.model_used or step.model_used,
            tokens=spent.tokens,
            cost_usd=spent.cost_text,
            finish_reason=call.finish_reason,
            model_calls=(*step.model_calls, call),
            reservation=None,
        )
        address = Address(step.step_id, step.loop_path)
        self._reserved.pop(address, None)
        return self._keep(address, step)

    def _end_attempt(self, how: str, before: StepTrace, attempt: StepTrace) -> None:
        """Counts an attempt that has ended: `completed`, `failed` or `retried`."""
        if not attempt.model_calls:
            self._totals.add_growth(before, attempt)
        if how == "completed":
            self._totals.completed += 1
        elif how == "retried":
            self._totals.retried += 1
        else:
            self._totals.failed += 1
            error: Any = json_bytes(attempt, "error_context")
            self._totals.cancelled += error is not None and is_cancellation_json(bytes(error))
        if how != "completed":
            self._totals.add_failed(attempt)
        self._summary = None

    def _set(self, **fields: Any) -> None:
        self._run = replace(self._run, **fields)
        self._summary = None

    def _apply_to_run(self, event: StreamEvent) -> None:
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
            case RunInput():
                self._set(input_preview=_preview(event.input_preview))
            case OverridesApplied():
                # A call has resumed the run, so it waits no longer.
                overridden = sorted({*self._run.overridden, *event.overridden})
                self._set(status="running", overridden=overridden)
            case StepPaused() | StepPausedForToolCalls():
                self._set(status="paused")
            case FlowCompleted():
                self._set(result_preview=_preview(event.result_preview))
                self._end("completed", event.at)
            case FlowFailed():
                self._end("failed", event.at, error=_run_error(event.error, event.step_id))
            case FlowCancelled():
                reason = event.reason[:ERROR_CHARS]
                self._end("cancelled", event.at, error=RunError(code="CANCELLED", message=reason))

    def _end(self, status: str, at: str, *, error: RunError | None = None) -> None:
        self._set(
            status=status,
            completed_at=at,
            duration_ms=milliseconds_between(self._run.started_at or at, at),
            error=error,
        )

    def _apply_to_step(self, event: StepEvent) -> StepChange | None:
        address = Address(event.step_id, event.loop_path)
        match event:
            case StepStarted():
                step = StepTrace(
                    step_id=event.step_id,
                    attempt=event.attempt,
                    loop_index=event.loop_index,
                    loop_path=event.loop_path,
                    status="running",
                    started_at=event.at,
                    input_size_bytes=event.input_size_bytes,
                )
                if self._reserved:
                    self._reserved.pop(address, None)
                return self._keep(address, step)
            case StepSkipped():
                step = StepTrace(
                    step_id=event.step_id,
                    attempt=event.attempt,
                    loop_index=event.loop_index,
                    loop_path=event.loop_path,
                    status="skipped",
                )
                self._totals.skipped += 1
                self._summary = None
                change = self._keep(address, step)
                del self._open[address]
                return change
            case LoopStarted() | LoopCompleted():
                self._apply_to_loop(event)
                return None
        known = self._open.get(address)
        if known is None:
            return None
        match event:
            case StepInput():
                return self._keep(
                    address,
                    replace(
                        known.step,
                        input_context=json_bytes(event, "input_data"),
                        input_size_bytes=event.input_size_bytes,
                        truncated=known.step.truncated or event.truncated,
                    ),
                )
            case StepModelReserved():
                self._reserved[address] = Decimal(event.reservation.usd)
                return self._keep(address, replace(known.step, reservation=event.reservation))
            case StepModelCall():
                return self._apply_call(known, event)
            case StepCompleted() | StepRetrying() | StepError():
                if isinstance(event, StepCompleted):
                    how = "completed"
                    content = {
                        "output_context": json_bytes(event, "output"),
                        "output_size_bytes": event.output_size_bytes,
                        "truncated": known.step.truncated or event.truncated,
                    }
                else:
                    how = "failed" if isinstance(event, StepError) else "retried"
                    content = {"error_context": json_bytes(event, "error")}
                step = replace(
                    known.step,
                    status="completed" if how == "completed" else "failed",
                    completed_at=event.at,
                    duration_ms=event.duration_ms,
                    model_used=event.model_used,
                    tokens=event.tokens,
                    cost_usd=event.cost_usd,
                    reservation=None,
                    **content,
                )
                self._reserved.pop(address, None)
                change = self._keep(address, step)
                if how != "retried":
                    del self._open[address]
                self._end_attempt(how, known.step, step)
                return change
        return None

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

    def _keep(self, address: Address, step: StepTrace) -> StepChange:
        known = self._open.get(address)
        if known is None:
            self.last_position += 1
        change = StepChange(known.position if known else self.last_position, step)
        self._open[address] = change
        return change


class TraceFold:
    """The whole trace of a run, event by event: `trace()` is right after each of them."""

    def __init__(self) -> None:
        self._fold = RunFold(RunSummary(id="", flow_id="", status="pending"))
        self._steps: dict[int, StepTrace] = {}
        self._positions: dict[Address, int] = {}
        self._content: dict[str, Json] = {}

    def apply(self, event: StreamEvent) -> None:
        if isinstance(event, RunInput | FlowCompleted):
            self._content |= content_of_run(event)
        if isinstance(event, StepStarted | StepSkipped | ContentKept):
            for each in event.outputs if isinstance(event, ContentKept) else (event,):
                position = self._positions.get(Address(each.step_id, each.loop_path))
                if position is not None:
                    self._fold.reopen(StepChange(position, self._steps[position]))
        for change in self._fold.apply(event):
            self._steps[change.position] = change.step
            self._positions[Address(change.step.step_id, change.step.loop_path)] = change.position

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
