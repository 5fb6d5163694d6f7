"""Events to trace: a pure, incremental fold.

The log of events is the truth and the trace is what this file makes of it. The recorder folds each event as
it writes it and stores the outcome beside it; a reader who folds `live_trace()` arrives at the same trace,
byte for byte. Nothing here does I/O, asks the clock or makes up a value.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from runglass.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    RunStarted,
    StepCompleted,
    StepError,
    StepEvent,
    StepInput,
    StepPaused,
    StepPausedForToolCalls,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
    UnknownEvent,
)
from runglass.lazy import Json, encoded, json_bytes
from runglass.trace import RunSummary, StepTrace, Trace


class Address(NamedTuple):
    """Which step in which iteration."""

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
        self.summary = summary
        self.last_position = last_position
        self._open: dict[Address, StepChange] = {}
        for change in open_steps:
            self.reopen(change)

    @property
    def open_steps(self) -> list[StepChange]:
        """The steps whose last attempt has not ended well or for good, in order of first start."""
        return sorted(self._open.values(), key=lambda change: change.position)

    def reopen(self, change: StepChange) -> None:
        """Lets a further attempt of a step that had ended take the place that the step already has."""
        self._open[Address(change.step.step_id, change.step.loop_path)] = change

    def apply(self, event: StreamEvent) -> Sequence[StepChange]:
        """Takes one event in; returns the steps that it changed. `summary` is up to date afterwards.

        One event changes one step at most, but for the one that ends the run: it ends what still runs, too.
        """
        if isinstance(event, StepEvent):
            change = self._apply_to_step(event)
            if self.summary.status == "paused":
                self.summary = replace(self.summary, status="running")
            return () if change is None else (change,)
        if not isinstance(event, UnknownEvent):
            self._apply_to_run(event)
        match event:
            case StepPausedForToolCalls() if (change := self._apply_turn(event)) is not None:
                return (change,)
            case FlowCancelled():
                error = {"code": "CANCELLED", "message": event.reason}
                return self._cut_off(event.at, encoded(msgspec.json.encode(error)))
            case FlowFailed():
                return self._cut_off(event.at, json_bytes(event, "error"))
        return ()

    def _cut_off(self, at: str, error: Json) -> list[StepChange]:
        """Ends the attempts that still run, as the run has ended."""
        cut_off = [
            StepChange(
                change.position,
                replace(
                    change.step,
                    status="failed",
                    completed_at=at,
                    duration_ms=milliseconds_between(change.step.started_at or at, at),
                    error_context=error,
                ),
            )
            for change in self.open_steps
            if change.step.status == "running"
        ]
        self._open.clear()
        return cut_off

    def _apply_turn(self, event: StepPausedForToolCalls) -> StepChange | None:
        address = Address(event.step_id, None)
        known = self._open.get(address)
        if known is None:
            return None
        step = replace(known.step, model_used=event.model_used, tokens=event.tokens, cost_usd=event.cost_usd)
        return self._keep(address, step)

    def _apply_to_run(self, event: StreamEvent) -> None:
        match event:
            case RunStarted():
                self.summary = replace(
                    self.summary,
                    id=event.execution_id,
                    flow_id=event.flow_id,
                    status="running",
                    trigger_type=event.trigger_type,
                    started_at=event.at,
                    step_count=event.step_count,
                )
            case StepPaused() | StepPausedForToolCalls():
                self.summary = replace(self.summary, status="paused")
            case FlowCompleted():
                self._end("completed", event.at)
            case FlowFailed():
                self._end("failed", event.at)
            case FlowCancelled():
                self._end("cancelled", event.at)

    def _end(self, status: str, at: str) -> None:
        self.summary = replace(
            self.summary,
            status=status,
            completed_at=at,
            duration_ms=milliseconds_between(self.summary.started_at or at, at),
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
                return self._keep(address, step)
            case StepSkipped():
                step = StepTrace(
                    step_id=event.step_id,
                    attempt=event.attempt,
                    loop_index=event.loop_index,
                    loop_path=event.loop_path,
                    status="skipped",
                )
                change = self._keep(address, step)
                del self._open[address]
                return change
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
            case StepCompleted():
                step = replace(
                    known.step,
                    status="completed",
                    completed_at=event.at,
                    duration_ms=event.duration_ms,
                    model_used=event.model_used,
                    tokens=event.tokens,
                    cost_usd=event.cost_usd,
                    output_context=json_bytes(event, "output"),
                    output_size_bytes=event.output_size_bytes,
                    truncated=known.step.truncated or event.truncated,
                )
                del self._open[address]
                return StepChange(known.position, step)
            case StepRetrying() | StepError():
                step = replace(
                    known.step,
                    status="failed",
                    completed_at=event.at,
                    duration_ms=event.duration_ms,
                    model_used=event.model_used,
                    tokens=event.tokens,
                    cost_usd=event.cost_usd,
                    error_context=json_bytes(event, "error"),
                )
                change = self._keep(address, step)
                if isinstance(event, StepError):
                    del self._open[address]
                return change
        return None

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

    def apply(self, event: StreamEvent) -> None:
        if isinstance(event, StepStarted | StepSkipped):
            position = self._positions.get(Address(event.step_id, event.loop_path))
            if position is not None:
                self._fold.reopen(StepChange(position, self._steps[position]))
        for change in self._fold.apply(event):
            self._steps[change.position] = change.step
            self._positions[Address(change.step.step_id, change.step.loop_path)] = change.position

    def trace(self) -> Trace:
        return Trace(flow_run=self._fold.summary, steps=list(self._steps.values()))


def fold(events: Iterable[StreamEvent]) -> Trace:
    """The trace that these events, from the first on, add up to."""
    state = TraceFold()
    for event in events:
        state.apply(event)
    return state.trace()


def milliseconds_between(start: str, end: str) -> int:
    """Whole milliseconds between two ISO times, never below 0: clocks may be set back."""
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return max(0, round(seconds * 1000))
