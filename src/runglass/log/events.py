"""The events of a run, as the log stores them, streams carry them and `live_trace()` yields them.

A tagged union on `eventType`; the wire contract (`docs/spec/wire.md`) lists each event's fields. Fields
beyond that list (`loopPath`, sizes, the cost of a failed attempt) are there because a trace must be the fold
of its events and of nothing else. Types that this version does not know decode as `UnknownEvent`, so an older
client can follow a newer server.

More than 300 lines: one list.
"""

from collections.abc import Callable
from typing import Any, get_args

import msgspec

from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall, ModelReservation, TokenBreakdown, written
from runglass.support.lazy_json import Json, JsonList, LazyStruct, decode_when_read


class Event(LazyStruct, frozen=True, kw_only=True, tag_field="eventType", eq=False):
    """The fields of every event: `seq` counts 1, 2, 3 … without gaps within `execution_id`; `at` is UTC."""

    execution_id: str
    seq: int = written(0)
    at: str = written("")

    @property
    def event_type(self) -> str:
        """The event's name on the wire, such as `step_completed`."""
        return str(self.__struct_config__.tag)

    def __hash__(self) -> int:
        return hash((self.execution_id, self.seq))


class RunStarted(Event, frozen=True, kw_only=True, eq=False, tag="run_started"):
    """First event of a run. `version` 0 is the draft; `trace_parent` and `trace_state` are W3C headers.

    `started_by` is the beginning of the API key that started the run, `rerun_of` the run that it reruns. A
    recorded run has its `trace_id`, and in `continues` the run with what came of the trace before.
    """

    run_id: str
    flow_id: str
    flow_slug: str | None = None
    step_count: int
    trigger_type: str
    version: int
    session_id: str | None = None
    started_by: str | None = None
    trace_parent: str | None = None
    trace_state: str | None = None
    rerun_of: str | None = None
    trace_id: str | None = None
    continues: str | None = None


class RunInput(Event, frozen=True, kw_only=True, eq=False, tag="run_input"):
    """The input of a run as its caller gave it, without the flow's defaults, if kept.

    It follows `run_started`, or precedes `flow_failed` if only failed runs keep their input. `inputs` are the
    parameters and the `message`, `messages` the turns before it; `input_preview` has at most 200 characters.
    """

    inputs: Json = None
    messages: JsonList = None
    attachments: JsonList = None
    input_size_bytes: int | None = None
    truncated: bool = written(False)
    input_preview: str | None = None


class OverridesApplied(Event, frozen=True, kw_only=True, eq=False, tag="overrides_applied"):
    """A call overrides fields of steps or their inputs for this run; values only if content is kept.

    `overridden` names them as `STEP.FIELD` and `STEP.input.FIELD`.
    """

    overridden: list[str]
    block_overrides: dict[str, Any] | None = None
    input_overrides: dict[str, Any] | None = None


class StepEvent(Event, frozen=True, kw_only=True, eq=False):
    """An event of one step. `loop_path` tells iterations of nested loops apart, outermost first."""

    step_id: str
    loop_index: int | None = None
    loop_path: tuple[int, ...] | None = None


class StepStarted(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_started"):
    """An attempt begins."""

    name: str | None = None
    step_index: int
    attempt: int
    input_size_bytes: int | None = None


class StepInput(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_input"):
    """The input of an attempt, if the capture mode keeps it or the attempt failed."""

    attempt: int = written(1)
    input_data: Json = None
    input_size_bytes: int | None = None
    truncated: bool = written(False)


class StepResumed(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_resumed"):
    """An attempt continues with the tool results that it waited for; `input_data` has them if kept."""

    step_index: int
    attempt: int
    input_data: Json = None


class StepProgress(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_progress"):
    """A part of the text of an attempt's model while it streams; it continues the part before it."""

    attempt: int
    text: str


class StepModelReserved(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_model_reserved"):
    """The most that a request to a model can cost was reserved in the project's budget; the request follows.

    The next `step_model_call` of the attempt, or the attempt's end, returns the rest.
    """

    attempt: int
    reservation: ModelReservation


class StepModelCall(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_model_call"):
    """A request to a language model was answered or failed."""

    attempt: int
    model_call: ModelCall


class StepOutput(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_output"):
    """The complete output of a completed attempt, if kept; both fields are equal."""

    attempt: int = written(1)
    output_data: Json = None
    output_context: Json = None


class StepCompleted(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_completed"):
    """An attempt completed. `output` is null if the capture mode keeps no snapshots."""

    name: str | None = None
    step_index: int
    attempt: int
    output: Json = None
    duration_ms: int
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    model_used: str | None = None
    output_size_bytes: int | None = None
    truncated: bool = written(False)
    finish_reason: str | None = None


class StepRetrying(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_retrying"):
    """An attempt failed and another follows after `delay_ms`."""

    attempt: int
    error: Json
    next_attempt: int
    delay_ms: int
    duration_ms: int | None = None
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    model_used: str | None = None


class StepError(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_error"):
    """The last attempt failed, and with it the step."""

    name: str | None = None
    step_index: int
    attempt: int
    error: Json
    duration_ms: int | None = None
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    model_used: str | None = None


class StepSkipped(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_skipped"):
    """The step is in a branch that was not taken."""

    attempt: int = written(1)
    reason: str


class LoopStarted(StepEvent, frozen=True, kw_only=True, eq=False, tag="loop_started"):
    """A loop begins, with `iterations` iterations unless one fails.

    `step_ids` are its leaf steps, in document order: each runs or is skipped once per iteration.
    """

    iterations: int
    step_ids: list[str]


class LoopCompleted(StepEvent, frozen=True, kw_only=True, eq=False, tag="loop_completed"):
    """A loop ended after `iterations` iterations."""

    iterations: int


class StepRecorded(StepEvent, frozen=True, kw_only=True, eq=False, tag="step_recorded"):
    """What is known of another program's span; it replaces what was known before.

    `loop_path` has one number: the step is the n-th of its `step_id`, from 0, in order of arrival.
    """

    span: SpanState


class StepPaused(Event, frozen=True, kw_only=True, eq=False, tag="step_paused"):
    """A step-through is waiting for its next call; `step_id` and `step_index` name the completed step."""

    step_id: str | None = None
    step_index: int


class StepPausedForToolCalls(Event, frozen=True, kw_only=True, eq=False, tag="step_paused_for_tool_calls"):
    """The run is waiting for the results of `tool_calls`; they are empty if no snapshots are kept.

    `tokens` and `cost_usd` add up the step's turns so far.
    """

    run_id: str
    step_id: str
    step_index: int
    iterations_used: int
    tool_call_messages: list[dict[str, Any]]
    tool_calls: list[dict[str, Any]]
    accumulated_outputs: dict[str, Any]
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    model_used: str | None = None


class FlowCompleted(Event, frozen=True, kw_only=True, eq=False, tag="flow_completed"):
    """Last event of a completed run: `result` is the output of `step_id`, the last top-level step.

    It is None if the capture mode keeps no snapshots, and cut if it is too large (`truncated`).
    `result_preview` is its beginning, at most 200 characters, for lists.
    """

    run_id: str
    step_id: str | None = None
    result: Json = None
    truncated: bool = False
    summary: Json = None
    result_preview: str | None = None


class KeptOutput(LazyStruct, frozen=True, kw_only=True, eq=False):
    """The output of a completed attempt."""

    step_id: str
    loop_index: int | None = None
    loop_path: tuple[int, ...] | None = None
    attempt: int = written(1)
    output: Json = None
    truncated: bool = written(False)

    def __hash__(self) -> int:
        return hash((self.step_id, self.loop_path, self.attempt))


MOST_KEPT = 1000
"""Of so many steps and iterations, those that began last, outputs are kept because the run fails."""


class ContentKept(Event, frozen=True, kw_only=True, eq=False, tag="content_kept"):
    """Outputs of completed attempts, kept because the run fails: `flow_failed` follows.

    `left_out` counts the attempts that ended well and whose output is not among them.
    """

    outputs: list[KeptOutput]
    left_out: int = written(0)


class FlowFailed(Event, frozen=True, kw_only=True, eq=False, tag="flow_failed"):
    """Last event of a failed run; `step_id` is the failed step, if any."""

    run_id: str
    error: Json
    step_id: str | None = None


class FlowCancelled(Event, frozen=True, kw_only=True, eq=False, tag="flow_cancelled"):
    """Last event of a cancelled run."""

    run_id: str
    reason: str


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type that this version does not know; `data` is the whole object, camelCase."""

    event_type: str
    execution_id: str
    seq: int
    at: str
    data: dict[str, Any]


decode_when_read(RunInput, ("inputs", "messages", "attachments"))
decode_when_read(StepInput, ("input_data",))
decode_when_read(StepResumed, ("input_data",))
decode_when_read(StepOutput, ("output_data", "output_context"))
decode_when_read(StepCompleted, ("output",))
decode_when_read(StepRetrying, ("error",))
decode_when_read(StepError, ("error",))
decode_when_read(KeptOutput, ("output",))
decode_when_read(FlowCompleted, ("result", "summary"))
decode_when_read(FlowFailed, ("error",))

KnownEvent = (
    RunStarted
    | RunInput
    | OverridesApplied
    | StepStarted
    | StepInput
    | StepResumed
    | StepProgress
    | StepModelReserved
    | StepModelCall
    | StepOutput
    | StepCompleted
    | StepRetrying
    | StepError
    | StepSkipped
    | LoopStarted
    | LoopCompleted
    | StepRecorded
    | StepPaused
    | StepPausedForToolCalls
    | ContentKept
    | FlowCompleted
    | FlowFailed
    | FlowCancelled
)
StreamEvent = KnownEvent | UnknownEvent

EVENT_TYPES: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in get_args(KnownEvent))
"""The types of events that this version knows."""

_TERMINAL = frozenset({FlowCompleted, FlowFailed, FlowCancelled})

TERMINAL_EVENTS: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in _TERMINAL)
"""Event types that nothing follows."""

_known: msgspec.json.Decoder[KnownEvent] = msgspec.json.Decoder(KnownEvent)


def decode_event(data: bytes) -> StreamEvent:
    """The event in one line of JSON.

    A type that is not known, or a known one whose fields have another shape, becomes `UnknownEvent`.
    Raises `msgspec.DecodeError` or UnicodeDecodeError for bytes that are not a JSON object.
    """
    try:
        return _known.decode(data)
    except msgspec.ValidationError:
        raw = msgspec.json.decode(data, type=dict[str, Any])
        return UnknownEvent(
            event_type=str(raw.get("eventType", "")),
            execution_id=str(raw.get("executionId", "")),
            seq=seq if type(seq := raw.get("seq")) is int else 0,
            at=str(raw.get("at", "")),
            data=raw,
        )


encode_event: Callable[[KnownEvent], bytes] = msgspec.json.Encoder().encode
"""Gives one line of JSON, camelCase, as it is stored and sent."""


def is_terminal(event: StreamEvent) -> bool:
    """Whether the run has ended with this event."""
    # This runs for each event of a stream. Computing the names of all types took longer than decoding an
    # event.
    kind = type(event)
    return kind in _TERMINAL or (kind is UnknownEvent and event.event_type in TERMINAL_EVENTS)


def event_type_of(data: bytes) -> str:
    """The type of an event that `encode_event` encoded, without decoding the rest: the tag comes first."""
    return data[14 : data.index(b'"', 14)].decode()
