"""The requests that run a flow, with checked arguments: execute, resume, step through, queue.

Arguments are checked here, before anything is sent. No I/O. Every call that starts or resumes a run has an
Idempotency-Key of its own, the same for all its attempts.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import msgspec

from runglass.client.core.connection import session_header
from runglass.client.core.requests import HALF, IDEMPOTENCY_KEY, FlowAddress, RequestSpec, is_count
from runglass.flows.diagnostics import path_text
from runglass.support.safe_text import half_text
from runglass.wire.run_api import (
    Attachment,
    CompletedResult,
    ExecuteAnswer,
    ExecuteRequest,
    JobAccepted,
    JobRequest,
    RerunRequest,
    RunRequest,
    StepRequest,
    ToolCallsRequired,
    Version,
    accept_both_spellings,
    read_trace_context,
)

T = TypeVar("T")

SessionId = str | uuid.UUID | None
Parameters = Mapping[str, Any]
Overrides = Mapping[str, Mapping[str, Any]]
Messages = Sequence[Mapping[str, Any]]
Attachments = Sequence[Attachment | Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]
ToolChoice = str | Mapping[str, Any]
TraceHeaders = Mapping[str, str]


class RunOptions(TypedDict, total=False):
    """What every way to run a flow takes."""

    message: str | None
    messages: Messages | None
    parameters: Parameters | None
    attachments: Attachments | None
    block_overrides: Overrides | None
    trace: bool
    version: Version
    session_id: SessionId
    trace_context: TraceHeaders | None


class ExecuteOptions(RunOptions, total=False):
    """The arguments of `Flow.execute` that do not decide what it returns, for its overloads."""

    tool_choice: ToolChoice | None
    max_tool_rounds: int
    timeout: float | None


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A request to run a flow at `path`, with the data to resume the run later."""

    path: str
    request: ExecuteRequest
    headers: dict[str, str]

    def call(self) -> RequestSpec[CompletedResult | ToolCallsRequired]:
        """Run it to its end, or until it needs tool results."""
        answer: Any = ExecuteAnswer
        return _post(f"{self.path}/execute", self.request, self.headers, answer=answer)

    def resumed(self, pause: ToolCallsRequired, results: Sequence[Mapping[str, Any]]) -> "Execution":
        """The request that resumes the run after `pause` with these messages."""
        request = msgspec.structs.replace(
            self.request,
            execution_id=pause.execution_id,
            paused_at_step=pause.paused_at_step,
            iterations_used=pause.iterations_used,
            tool_call_messages=[*pause.tool_call_messages, *map(dict, results)],
            accumulated_outputs=pause.accumulated_outputs,
        )
        return msgspec.structs.replace(self, request=request)


class StepThrough(msgspec.Struct, frozen=True, kw_only=True):
    """A request to run a flow step by step; `request` is the body of the next call."""

    path: str
    request: StepRequest
    headers: dict[str, str]

    def call(self, *, headers: Mapping[str, str]) -> RequestSpec[None]:
        """Run the next step, or all that are left."""
        call: RequestSpec[None] = _post(
            f"{self.path}/step", self.request, {**self.headers, **headers}, answer=type(None)
        )
        return call

    def as_execution(self) -> Execution:
        """The rest of the run as one request."""
        fields = (*RunRequest.__struct_fields__, "tools", "tool_choice")
        same = {name: getattr(self.request, name) for name in fields}
        return Execution(path=self.path, request=ExecuteRequest(**same), headers=self.headers)


def execution(
    flow: FlowAddress,
    *,
    tools: Tools | None = None,
    tool_choice: ToolChoice | None = None,
    **options: Unpack[RunOptions],
) -> Execution:
    """Run a flow. Raises ValueError for invalid arguments."""
    request = ExecuteRequest(**_inputs(options), **_offer(tools, tool_choice))
    return Execution(path=_at(flow, options), request=request, headers=_headers(options))


def step_through(
    flow: FlowAddress,
    *,
    input_overrides: Mapping[str, Any] | None = None,
    run_remaining: bool = False,
    tools: Tools | None = None,
    tool_choice: ToolChoice | None = None,
    **options: Unpack[RunOptions],
) -> StepThrough:
    """Run a flow step by step. Raises ValueError for invalid arguments."""
    path, version = _at(flow, options), options.get("version")
    if version in ("draft", 0):
        raise ValueError(
            f"version may not be {version!r} here: only published versions can be stepped through, "
            f"so publish the flow first"
        )
    request = StepRequest(
        **_inputs(options),
        **_offer(tools, tool_choice),
        input_overrides=None if input_overrides is None else _object("input_overrides", input_overrides),
        run_remaining=run_remaining,
    )
    return StepThrough(path=path, request=request, headers=_headers(options))


def job(flow: FlowAddress, **options: Unpack[RunOptions]) -> RequestSpec[JobAccepted]:
    """Queue a run. Raises ValueError for invalid arguments."""
    path, request = f"{_at(flow, options)}/jobs", JobRequest(**_inputs(options))
    return _post(path, request, _headers(options), answer=JobAccepted)


def rerun(
    run: str,
    *,
    version: int | Literal["same", "production"] = "same",
    block_overrides: Overrides | None = None,
    session_id: SessionId = None,
    idempotency_key: str | None = None,
) -> RequestSpec[JobAccepted]:
    """Run the run at path `run` again. Raises ValueError for invalid arguments."""
    if version not in ("same", "production") and not is_count(version, 0):
        raise ValueError(f"version must be 'same', 'production' or a number from 0 on, not {version!r}")
    request = RerunRequest(version=version, block_overrides=_overrides(block_overrides))
    headers = session_header(session_id)
    key: Any = idempotency_key
    if key is not None:
        if not (isinstance(key, str) and key.isascii() and key.isprintable() and key == key.strip()):
            raise ValueError(
                f"idempotency_key must be printable ASCII without outer spaces, not {key!r:.100}"
            )
        headers[IDEMPOTENCY_KEY] = key
    return _post(f"{run}/rerun", request, headers, answer=JobAccepted)


def _post(
    path: str, request: RunRequest | RerunRequest, headers: Mapping[str, str], *, answer: type[T]
) -> RequestSpec[T]:
    try:
        body = msgspec.json.encode(request)
    except UnicodeEncodeError as error:
        half = half_text(msgspec.to_builtins(request))
        if half is None:
            raise
        text, path_of_text = half
        raise ValueError(f"{path_text(path_of_text)} may not be {text!r:.200}: {HALF}") from error
    own = {"Content-Type": "application/json", IDEMPOTENCY_KEY: str(uuid.uuid4())}
    return RequestSpec(method="POST", path=path, answer=answer, headers={**own, **headers}, body=body)


def _headers(options: RunOptions) -> dict[str, str]:
    headers = session_header(options.get("session_id"))
    told: Any = options.get("trace_context") or {}
    # The headers of a web framework's request may be no Mapping.
    if not hasattr(told, "items"):
        raise ValueError(f"trace_context must be headers and their values, not {told!r:.100}")
    given = {str(name).lower(): str(value) for name, value in told.items() if value is not None}
    parent, state = given.get("traceparent"), given.get("tracestate")
    # Without an active span OpenTelemetry injects nothing, and no header is sent.
    if parent is None:
        return headers
    context = read_trace_context([parent], [] if state is None else [state])
    if context is None:
        raise ValueError(f"trace_context has no W3C traceparent: {parent!r:.100}")
    if context.state is not None:
        headers["tracestate"] = context.state
    return {**headers, "traceparent": context.parent}


def _inputs(options: RunOptions) -> dict[str, Any]:
    messages = options.get("messages")
    if messages is not None and options.get("message") is not None:
        raise ValueError(
            "message and messages exclude each other: the last of messages is the current message"
        )
    return {
        "message": options.get("message"),
        "messages": None
        if messages is None
        else [_object(f"messages[{at}]", turn) for at, turn in enumerate(_list("messages", messages))],
        "parameters": _object("parameters", options.get("parameters") or {}),
        "attachments": [*map(_attachment, _list("attachments", options.get("attachments") or ()))],
        "block_overrides": _overrides(options.get("block_overrides")),
        "trace": options.get("trace", False),
    }


def _overrides(given: Overrides | None) -> dict[str, dict[str, Any]]:
    named = _object("block_overrides", given or {})
    return {step: _object(f"block_overrides[{step!r}]", fields) for step, fields in named.items()}


def _list(name: str, value: object) -> Iterable[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list, not {value!r:.100}")
    return value


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be names and their values, not {value!r:.100}")
    return dict(value)


def _attachment(given: Attachment | Mapping[str, Any]) -> Attachment:
    if isinstance(given, Attachment):
        return given
    try:
        return msgspec.convert(accept_both_spellings(_object("attachment", given), Attachment), Attachment)
    except msgspec.ValidationError as error:
        raise ValueError(f"attachment {given!r} cannot be used: {error}") from error


def _offer(tools: Tools | None, choice: ToolChoice | None) -> dict[str, Any]:
    if tools is not None and (isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence)):
        raise ValueError(f"tools must be a list of tools in the OpenAI function format, not {tools!r:.100}")
    return {
        "tools": [_object(f"tools[{at}]", tool) for at, tool in enumerate(tools or ())],
        "tool_choice": dict(choice) if isinstance(choice, Mapping) else choice,
    }


def _at(flow: FlowAddress, options: RunOptions) -> str:
    version = options.get("version", "production")
    if version == "production":
        return flow.path()
    if version == "draft":
        return f"{flow.path()}/v0"
    if not is_count(version, 0):
        raise ValueError(f"version must be 'production', 'draft' or a number from 0 on, not {version!r}")
    return f"{flow.path()}/v{version}"
