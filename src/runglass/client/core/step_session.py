"""The state of a step-through: its position, its next call and the stream that answers it, and its results.

No I/O: `api/pauses.py` performs the calls. The server leaves the cursor to its caller, and this file keeps
it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from msgspec.structs import replace

from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import ENDED_EARLY, ConnectionLost, Outcome, Retries, finish
from runglass.client.core.run_requests import StepThrough
from runglass.client.core.stream_cursor import STREAM_HEADERS, no_stream, read_frame, read_frames
from runglass.errors import APIConnectionError, APIError, run_failed
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
from runglass.wire.sse import Decoder


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """The result of one step. `step_index` is the position among the flow's top-level steps, from 0.

    A step inside a loop comes once per iteration. `output` is None where the server keeps it back.
    """

    execution_id: str
    session_id: str | None
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
        self._session_id: str | None = None
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
                self._session_id = event.session_id
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
            session_id=self._session_id,
            _replace=replace_output,
            **{each.name: getattr(event, each.name) for each in fields(StepResult)[2:-1]},
        )

    def conclude(self) -> None:
        """Ends the call, whose answer is complete, and prepares the next one.

        Raises FlowExecutionError, or InsufficientCreditsError, where the run has not ended well.
        """
        if (failure := failure_of(self._execution_id, self._last)) is not None:
            raise failure
        match self._last:
            case StepPausedForToolCalls() as pause:
                self.waiting = required_calls(
                    pause,
                    execution_id=self._execution_id,
                    flow_id=self._flow_id,
                    block_count=self._step_count,
                    session_id=self._session_id,
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


ENDS = (StepPaused, StepPausedForToolCalls, FlowCompleted, FlowFailed, FlowCancelled)
"""The events with which the answer to a call ends."""


def failure_of(run_id: str, event: StreamEvent | None) -> APIError | None:
    """The failure that an event tells, as the caller of `execute` gets it; None where it tells none."""
    match event:
        case StepError(error=error, step_id=step_id) | FlowFailed(error=error, step_id=step_id):
            return run_failed(run_id, error or {}, step_id)
        case FlowCancelled(reason=reason):
            error = {"code": "CANCELLED", "message": reason}
            return run_failed(run_id, error, None, is_cancelled=True)
    return None


def required_calls(pause: StepPausedForToolCalls, **run: Any) -> ToolCallsRequired:
    """What the caller of `execute` gets where a run pauses; `run` are the facts of the run."""
    return ToolCallsRequired(
        paused_at_step=pause.step_id,
        iterations_used=pause.iterations_used,
        tool_call_messages=pause.tool_call_messages,
        tool_calls=pause.tool_calls,
        accumulated_outputs=pause.accumulated_outputs,
        **run,
    )


class StepStream:
    """Follows the answer to `call` over any number of attempts; each event comes once."""

    def __init__(self, call: RequestSpec[None], max_retries: int) -> None:
        self.ended = False
        self.gap: ConnectionLost | None = None
        self._call = call
        self._retries = Retries(call, max_retries)
        self._farthest = (0, 0)
        self._last: StreamEvent | None = None
        self.opened()

    def call(self) -> RequestSpec[None]:
        """The request for the events; each attempt has the same key, so that the step is not run twice."""
        return self._call

    def opened(self) -> None:
        """Begins a new stream, as a connection has been made."""
        self._decoder = Decoder()
        self._position = (0, 0)

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The new events that end in these bytes. Raises APIConnectionError for bytes that cannot be read."""
        for frame in read_frames(self._decoder, chunk, self):
            event, seq = read_frame(frame, self)
            if self._last is not None and event.execution_id != self._last.execution_id:
                raise APIConnectionError(
                    f"{self}: its response was aborted in run {self._last.execution_id!r} and began again in"
                    f" run {event.execution_id!r}: the server does not honour Idempotency-Keys here"
                )
            number, beside = self._position
            if seq > number:
                self._position = (seq, 0)
            elif event.seq == 0:
                # An event without a number is none of the run's log, and known by its distance from the last
                # numbered one, whose number the decoder has given to its frame.
                self._position = (number, beside + 1)
            else:
                continue
            if self._position > self._farthest:
                # It has not come on an earlier connection.
                self._farthest, self._last = self._position, event
                yield event

    def lost(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the call is made again, None where its answer is complete.

        Raises as `responses.finish` does where the call has failed for good.
        """
        if isinstance(outcome, ConnectionLost):
            # A failed step ends the answer as well, unless the flow continues on errors.
            ends = (*ENDS, StepError) if outcome == ENDED_EARLY else ENDS
            if isinstance(self._last, ends):
                return None
        elif 200 <= outcome.status < 300:
            raise no_stream(str(self), outcome)
        wait_s = self._retries.wait_s(outcome, left_s=math.inf)
        if wait_s is None:
            finish(self._call, outcome, attempts=self._retries.attempts, sent_before=self._retries.sent)
        return wait_s

    def __str__(self) -> str:
        return str(self._call)
