"""The state of a step-through: its position, its next call, and the results in its events.

No I/O: `api/pauses.py` performs the calls. The server leaves the cursor to its caller, and this file keeps
it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from runglass.client.core.requests import RequestSpec
from runglass.client.core.run_requests import StepThrough
from runglass.client.core.stream_cursor import STREAM_HEADERS
from runglass.errors import api_error
from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    RunStarted,
    StepCompleted,
    StepError,
    StepPaused,
    StepPausedForToolCalls,
    StepStarted,
    StreamEvent,
)
from runglass.log.trace import TokenBreakdown
from runglass.wire.run_api import ToolCallsRequired

_PASSED_ON = frozenset({"BYOK_KEY_REJECTED", "CREDITS_EXHAUSTED", "TOOL_ITERATION_LIMIT"})
"""Codes of a failed step that `execute` passes on as they are; any other becomes STEP_FAILED."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """The result of one step. `step_index` is the position among the flow's top-level steps, from 0.

    A step inside a loop comes once per iteration. `output` is None where the server keeps it back.
    """

    execution_id: str
    step_id: str
    name: str | None
    step_index: int
    attempt: int
    loop_index: int | None
    output: dict[str, Any] | None
    duration_ms: int
    tokens: TokenBreakdown | None
    cost_usd: str | None
    model_used: str | None
    _replace: Callable[[str, dict[str, Any]], None] = field(repr=False, compare=False)

    def replace_output(self, output: Mapping[str, Any]) -> None:
        """Lets the steps that follow see this output instead, the next one as its input.

        For top-level steps; the new output of a step in a branch is seen only through `steps` in templates.
        To be called before the next step is asked for: raises ValueError afterwards, and for a step inside a
        loop.
        """
        if self.loop_index is not None:
            raise ValueError(
                f"the output of step {self.step_id!r} cannot be replaced: it is inside a loop, "
                f"and what follows gets the loop's"
            )
        self._replace(self.step_id, dict(output))


class StepSession:
    """One run, stepped through call by call, until `ended`.

    `waiting` is the pause that must be answered before the next call, where a model has called tools.
    """

    def __init__(self, asked: StepThrough) -> None:
        self.asked = asked
        self.ended = False
        self.waiting: ToolCallsRequired | None = None
        self._execution_id = ""
        self._flow_id = ""
        self._step_count = 0
        self._edits: dict[str, Any] = {}
        self._calls_made = 0
        self._starts_at: int | None = None
        self._offset = 0
        self._last: StreamEvent | None = None

    def next_call(self) -> RequestSpec[None]:
        """The call that comes next; outputs of steps before it can no longer be replaced."""
        self._calls_made += 1
        self._starts_at = None
        self._offset = 0
        self._last = None
        request = self.asked.request
        if self._edits:
            # Replaced outputs take precedence over the outputs that a pause for tools lists.
            outputs = {**(request.accumulated_outputs or {}), **self._edits}
            self.asked = replace(self.asked, request=replace(request, accumulated_outputs=outputs))
        return self.asked.call(headers=STREAM_HEADERS)

    def read(self, event: StreamEvent) -> StreamEvent:
        """Takes in an event; returns it with its `step_index` counted from the flow's first step."""
        self._execution_id = event.execution_id or self._execution_id
        match event:
            case RunStarted():
                self._flow_id, self._step_count = event.flow_id, event.step_count
            case StepStarted() | StepCompleted() | StepError() | StepPausedForToolCalls():
                # Some servers count from the call's first step, which is then 0 though it is a later step of
                # the flow.
                if self._starts_at is None:
                    self._offset = self._asked_index if event.step_index == 0 else 0
                    self._starts_at = event.step_index + self._offset
                if self._offset:
                    event = replace(event, step_index=event.step_index + self._offset)
            case StepPaused():
                event = replace(event, step_index=self._first_index)
            case FlowCompleted() | FlowFailed() | FlowCancelled():
                self.ended = True
        self._last = event
        return event

    def result_of(self, event: StepCompleted) -> StepResult:
        """The result in the event of a completed step, for the caller of the step-through."""
        call = self._calls_made

        def replace_output(step_id: str, output: dict[str, Any]) -> None:
            if call != self._calls_made or self.ended or self.asked.request.run_remaining:
                raise ValueError(
                    f"the output of step {step_id!r} cannot be replaced any more: what follows it has been "
                    f"asked for, or nothing does"
                )
            self._edits[step_id] = output

        return StepResult(
            execution_id=self._execution_id,
            step_id=event.step_id,
            name=event.name,
            step_index=event.step_index,
            attempt=event.attempt,
            loop_index=event.loop_index,
            output=event.output,
            duration_ms=event.duration_ms,
            tokens=event.tokens,
            cost_usd=event.cost_usd,
            model_used=event.model_used,
            _replace=replace_output,
        )

    def conclude(self) -> None:
        """Ends the call, whose answer is complete, and prepares the next one.

        Raises FlowExecutionError, or InsufficientCreditsError, where the run has not ended well.
        """
        match self._last:
            case StepError(error=error, step_id=step_id) | FlowFailed(error=error, step_id=step_id):
                error = error or {}
                code, message = error.get("code"), error.get("message")
                what = "the run" if step_id is None else f"step {step_id!r}"
                other = "INTERNAL_ERROR" if step_id is None else "STEP_FAILED"
                raise api_error(
                    code if code in _PASSED_ON else other,
                    f"{what} failed: {message} ({code})",
                    execution_id=self._execution_id,
                    step_id=step_id,
                    details={"error": dict(error)},
                )
            case FlowCancelled(reason=reason):
                message = f"the run was cancelled: {reason}"
                raise api_error("STEP_FAILED", message, execution_id=self._execution_id)
            case StepPausedForToolCalls() as pause:
                self.waiting = ToolCallsRequired(
                    execution_id=self._execution_id,
                    paused_at_step=pause.step_id,
                    iterations_used=pause.iterations_used,
                    tool_call_messages=pause.tool_call_messages,
                    tool_calls=pause.tool_calls,
                    accumulated_outputs=pause.accumulated_outputs,
                    flow_id=self._flow_id,
                    block_count=self._step_count,
                )
                self._prepare(pause.step_index)
            case _:
                self._prepare(self._first_index + 1)

    def answer(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Puts these messages, the answers to the pending tool calls, into the next call."""
        pause = self.waiting
        if pause is None:
            raise ValueError(f"run {self._execution_id!r} does not wait for tool results")
        self.waiting = None
        self._prepare(
            self._asked_index,
            iterations_used=pause.iterations_used,
            tool_call_messages=[*pause.tool_call_messages, *map(dict, results)],
            accumulated_outputs=pause.accumulated_outputs,
        )

    def _prepare(self, step_index: int, **results: Any) -> None:
        fresh: dict[str, Any] = {
            "input_overrides": None,
            "iterations_used": None,
            "tool_call_messages": [],
            "accumulated_outputs": None,
        }
        request = replace(
            self.asked.request,
            execution_id=self._execution_id,
            step_index=step_index,
            **{**fresh, **results},
        )
        self.asked = replace(self.asked, request=request)

    @property
    def _asked_index(self) -> int:
        return self.asked.request.step_index or 0

    @property
    def _first_index(self) -> int:
        """The top-level step at which the call began."""
        return self._asked_index if self._starts_at is None else self._starts_at
