"""The specification of a run, one segment of it, and the state in which it waits between two segments.

A run is walked in segments: one from start to end for most runs, one per call where the caller steps through
it or answers tool calls. Between two segments nothing of it is in memory: specification, checkpoints and
pause are in the store, so a paused run outlives its process.
"""

from typing import Any

import msgspec

from runglass.flows.flow import Flow, step_count
from runglass.log.trace import RunSummary
from runglass.wire.run_api import Attachment, CaptureFailed, CaptureMode, TraceContext


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The specification of a run, kept while it lives: a draft may change before the run is taken up again.

    `flow` has the overrides in it and `inputs` fit its schema; `given` are those before the flow's defaults
    were filled in, None where that changed nothing. `history` are the turns that go ahead of the
    prompt of the flow's first llm step, `attachments` what that prompt shows. `trace_context` is the trace of
    the caller that the run belongs to, `rerun_of` the run that it runs again.
    """

    flow: Flow
    version: int
    inputs: dict[str, Any]
    given: dict[str, Any] | None = None
    capture: CaptureMode
    capture_failed: CaptureFailed = "off"
    trigger_type: str
    history: list[dict[str, Any]] = []
    attachments: list[Attachment] = []
    trace_context: TraceContext | None = None
    rerun_of: str | None = None

    def summary(
        self, run_id: str, flow_id: str, session_id: str | None, started_by: str | None
    ) -> RunSummary:
        """The summary of a run that has not begun yet."""
        return RunSummary(
            id=run_id,
            flow_id=flow_id,
            status="pending",
            flow_slug=self.flow.slug,
            version=self.version,
            trigger_type=self.trigger_type,
            session_id=session_id,
            started_by=started_by,
            step_count=step_count(self.flow),
            trace_parent=None if self.trace_context is None else self.trace_context.parent,
            trace_state=None if self.trace_context is None else self.trace_context.state,
            rerun_of=self.rerun_of,
        )


class ToolOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's tools, in the OpenAI function format, and how the model is to choose among them."""

    tools: list[dict[str, Any]]
    choice: str | dict[str, Any] | None = None


class ToolLoopState(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of an llm step that waits for tool results.

    `tried` counts the attempts that `retry` counts: this one, and those before it that failed by themselves.
    """

    step_id: str
    attempt: int
    tried: int = 1
    messages: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    iterations_used: int
    offer: ToolOffer
    duration_ms: int


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run waits: `cursor` is the top-level step that comes next, `tool_loop` what it waits for there.

    `reached` is the farthest that any cursor of the run has been: steps before it have been run already.
    `iterations` are those that all of its loops have made.
    """

    cursor: int
    # Stored under its earlier name.
    tool_loop: ToolLoopState | None = msgspec.field(default=None, name="turns")
    reached: int = 0
    iterations: int = 0


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The part to be walked now: top-level steps from `first` to `last`, or to the end where that is None.

    `outputs` by step id stand over those that the run has kept, `input` over fields of the input of the first
    step, `step_inputs` by step id over fields of that step's input each time that it runs. `block_overrides`
    are those of the call, already in the specification's flow. `results` are the messages that answer the
    pending tool calls. `answers_call` says that content is kept for a call under an Idempotency-Key, which
    may be sent again.
    """

    first: int = 0
    last: int | None = None
    outputs: dict[str, Any] = {}
    input: dict[str, Any] | None = None
    step_inputs: dict[str, dict[str, Any]] = {}
    block_overrides: dict[str, dict[str, Any]] = {}
    offer: ToolOffer | None = None
    results: list[dict[str, Any]] = []
    answers_call: bool = False


class SegmentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A segment and the specification that it is walked by, as they are kept to go on from."""

    # Both are stored under their earlier names.
    spec: RunSpec = msgspec.field(name="plan")
    segment: Segment = msgspec.field(name="stretch")
