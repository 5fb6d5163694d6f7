"""The bodies of the execution endpoints: requests that run a flow, and their responses.

Plain values shared by client and server. Responses are camelCase; request bodies are read in both spellings
(`accept_both_spellings`).
"""

import re
from typing import Annotated, Any, Literal

import msgspec

from runglass.log.trace import RunSummary

Version = int | Literal["production", "draft"]
"""A published version's number (0 is the draft) or one of the two names."""

CaptureMode = Literal["off", "metadata_only", "redacted", "full"]
CaptureFailed = Literal["off", "redacted", "full"]
"""How outputs are kept of a run that fails, where its capture mode is `metadata_only`."""

ExportFormat = Literal["json", "jsonl", "otlp", "perfetto"]
"""The formats of files with a run."""


class TraceContext(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The W3C headers `traceparent` and `tracestate`: the trace of the caller that a run belongs to."""

    parent: str
    state: str | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image that llm steps are to see: an https URL and its MIME type."""

    url: str
    mime_type: str
    kind: str = "url"
    filename: str | None = None


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The fields of every request that runs a flow. `trace=True` asks for full snapshots of this one run.

    `messages` are turns of `{role, content, toolCalls?, toolCallId?, name?}` and exclude `message`.
    """

    message: str | None = None
    messages: list[dict[str, Any]] | None = None
    parameters: dict[str, Any] = {}
    block_overrides: dict[str, dict[str, Any]] = {}
    attachments: list[Attachment] = []
    trace: bool = False


class ToolRequest(RunRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A request that may offer tools and resume a run with their results."""

    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None
    execution_id: str | None = None
    iterations_used: int | None = None
    tool_call_messages: list[dict[str, Any]] = []
    accumulated_outputs: dict[str, dict[str, Any] | None] | None = None


class ExecuteRequest(ToolRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Body of `POST …/execute`; with `execution_id` it answers the tool calls of a paused run."""

    paused_at_step: str | int | None = None


class StepRequest(ToolRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Body of `POST …/step`; the caller carries the cursor, `step_index`. None is the position of the run."""

    step_index: int | None = None
    input_overrides: dict[str, Any] | None = None
    run_remaining: bool = False


class JobRequest(RunRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Body of `POST …/jobs`. The tool fields are known so that they can be refused by name."""

    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None


class RerunRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Body of `POST …/rerun`. `version` is a number, 0 the draft, or one of the two names."""

    version: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | Literal["same", "production"] = "same"
    block_overrides: dict[str, dict[str, Any]] = {}


class CompletedResult(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    tag_field="status",
    tag="completed",
):
    """The run ended well: `result` is the last step's output."""

    result: dict[str, Any] | None
    flow_id: str
    block_count: int
    execution_id: str
    session_id: str | None = None


class ToolCallsRequired(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    tag_field="status",
    tag="tool_calls_required",
):
    """The run is paused until the results of `tool_calls` come in.

    They go back as messages appended to `tool_call_messages`, with everything else here unchanged.
    """

    execution_id: str
    paused_at_step: str | int
    iterations_used: int
    tool_call_messages: list[dict[str, Any]]
    tool_calls: list[dict[str, Any]]
    accumulated_outputs: dict[str, Any]
    flow_id: str
    block_count: int
    session_id: str | None = None


ExecuteAnswer = CompletedResult | ToolCallsRequired


class JobAccepted(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A job is queued; its run can be read from now on. `rerun_of` is the run that it runs again, if any."""

    execution_id: str
    status: str
    flow_id: str
    block_count: int
    rerun_of: str | None = None
    session_id: str | None = None


class JobState(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How far a job is: pending, running, completed or failed, with its result or error."""

    execution_id: str
    status: str
    result: Any = None
    error: Any = None


class JobSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A job as it stands in a list: its state without the result, and its times, ISO 8601 in UTC."""

    execution_id: str
    status: str
    version: int | None = None
    created_at: str
    started_at: str | None = None
    completed_at: str | None = None
    error: str | None = None


class JobPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of a flow's jobs, newest first. `next_cursor` is None on the last page."""

    jobs: list[JobSummary]
    next_cursor: str | None = None


class RunPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of runs, newest first. `next_cursor` is None on the last page.

    A page of a query that takes long to search for may have few runs, or none, and not be the last one.
    `last_change` is the number after which a stream of the list has every change that the page has not.
    """

    runs: list[RunSummary]
    next_cursor: str | None = None
    last_change: int | None = None


class RunChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run that was created, or whose status has changed, as `client.live_runs()` tells it.

    `number` is that of the change: who passes it as `after` goes on behind it. `run` is the run as it is now;
    None for one that met the query before and does not any more; with `after`, for one that may have.
    """

    number: int
    run_id: str
    run: RunSummary | None = None


class RunsCreated(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs were created in an interval of time, and how many of these have failed."""

    runs: int
    failed: int


class RunHistogram(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"from_": "from", "bucket_ms": "bucketMs", "counted_from": "countedFrom"},
):
    """Runs by when they were created, in intervals of `bucket_ms` each. Times are ISO 8601 in UTC.

    Where there were too many to count, older ones than `counted_from` are not in it.
    """

    from_: str
    to: str
    bucket_ms: int
    buckets: list[RunsCreated]
    counted_from: str | None = None


def accept_both_spellings(body: Any, shape: type[msgspec.Struct]) -> Any:
    """`body` with the top-level members of `shape` in camelCase, from either of the two spellings.

    Members that `shape` does not know, and everything below the top level, stay as they are. A member given
    in both spellings is left alone, so that decoding cannot silently prefer one.
    """
    if not isinstance(body, dict):
        return body
    wire = dict(zip(shape.__struct_fields__, shape.__struct_encode_fields__, strict=True))
    return {
        wire[name] if name in wire and wire[name] not in body else name: value for name, value in body.items()
    }


MAX_STATE = 512
"""Characters of `tracestate` that are kept; the recommendation asks for no more."""

_MAX_MEMBERS = 32
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER = re.compile(
    r"(?P<key>[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=(?P<value>[ -+\--<>-~]{0,255}[!-+\--<>-~])",
    re.ASCII,
)


def read_trace_context(parents: list[str], states: list[str]) -> TraceContext | None:
    """The context in the values of the two headers, each with as many as were sent; None without a good one.

    Tracing must never make a call fail, so a malformed header counts as not sent, as W3C recommends.
    `tracestate` counts only beside a good `traceparent`. A `tracestate` that is too long is cut at its end,
    in whole members, as the latest are in front.
    """
    if len(parents) != 1:
        return None
    found = _PARENT.fullmatch(parents[0].strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    # Later versions may have further fields; version 00 has none, and ff is no version.
    if version == "ff" or (version == "00" and more) or not (int(trace_id, 16) and int(parent_id, 16)):
        return None
    return TraceContext(parent=f"{version}-{trace_id}-{parent_id}-{flags}", state=_state(states))


def _state(states: list[str]) -> str | None:
    members = [member for state in states for part in state.split(",") if (member := part.strip(" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match["key"] for match in found if match}
    if not keys or len(keys) < len(members) or len(members) > _MAX_MEMBERS:
        return None
    kept = ""
    for member in members:
        longer = f"{kept},{member}" if kept else member
        if len(longer) > MAX_STATE:
            break
        kept = longer
    return kept or None
