"""Every exception of Runglass, and the one table that ties code, exception and HTTP status together.

    RunglassError
    ├── APIError                     the server answered with an error
    │   ├── AuthenticationError      401
    │   ├── InsufficientCreditsError 402
    │   ├── PermissionDeniedError    403
    │   ├── FlowNotFoundError        404: flow, version, run, step, attempt or iteration
    │   ├── RateLimitError           429
    │   └── FlowExecutionError       everything else
    │       └── RequestError         400, 409, 410, 413, 422 and the like: nothing was started
    ├── APIConnectionError           no usable response: network down, stream lost for good
    ├── APITimeoutError              the caller's timeout passed
    ├── ToolCallLimitError           a model called tools in more rounds than the caller allowed
    ├── ReplayError                  a replay is off, incomplete, or was asked for what it does not do
    │   └── ReplayMiss               no run of the session answers the call
    ├── FlowFileError                a flow file is wrong; carries located problems
    ├── RunFileError                 a file cannot be imported as a run
    ├── RunUnreadable                the stored data of a run cannot be decoded
    ├── KeyLimitReached              the project has as many keys as it may have
    ├── StepFailure                  an attempt failed (engine only, recorded as an event)
    └── StoreError                   the store rejected a write or cannot be reached
        ├── DuplicateIdempotencyKey  the Idempotency-Key was used before
        ├── ImportConflict           the run, or its flow, conflicts with what exists
        ├── StoreWentBack            the store was restarted or replaced, and may lack recent commits
        ├── RunPurged                the run was deleted while it was read
        ├── StoreFull                the store's disk has no room
        ├── CommitUncertain          the commit failed: its rows may be stored or not
        ├── WrongExpectedVersion     another writer appended first, or this one lost its lease
        ├── WrongStoreAddress        the address of the store is invalid, or its file is missing
        └── PermanentStoreError      the store would reject the same again
            └── ValueTooLarge        a value is larger than the store can hold

Server and client raise the same exceptions: the server builds an `APIError` by code with `api_error` and
sends it in the shape of the wire contract (`docs/spec/wire.md`); the client builds the same one from the
response.

More than 300 lines: one list of classes and one table.
"""

import copyreg
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

Failed = TypeVar("Failed", bound=BaseException)


class RunglassError(Exception):
    """Root of every error that Runglass raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Pools of processes pickle errors. Python's own way calls the class with the message alone.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class APIError(RunglassError):
    """The server answered with an error.

    `code` is the stable name (`RUN_NOT_FOUND`), `status` the HTTP status, `details` the other fields
    that the server sent beside code and message.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        execution_id: str | None = None,
        step_id: str | None = None,
        request_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.execution_id = execution_id
        self.step_id = step_id
        self.request_id = request_id
        self.details = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class AuthenticationError(APIError):
    """The API key is missing, unknown or revoked."""


class InsufficientCreditsError(APIError):
    """The project's budget is spent."""


class PermissionDeniedError(APIError):
    """The key may see this, but its role forbids the action."""


class FlowNotFoundError(APIError):
    """No such flow, version, run, step, attempt or iteration, or none that this key may see."""


class RateLimitError(APIError):
    """Too many requests; `retry_after_s` says how many seconds to wait, where the server said so."""

    retry_after_s: float | None = None


class FlowExecutionError(APIError):
    """The run or the server failed, or the request was rejected (RequestError); `code` says why."""


class RequestError(FlowExecutionError):
    """The request was rejected, and nothing was started or changed; `code` says why."""


class APIConnectionError(RunglassError):
    """The server could not be reached, or its response was aborted and could not be resumed.

    `may_have_begun` is true if the call may have started or resumed a run.
    """

    may_have_begun: bool = False


class APITimeoutError(RunglassError):
    """The call took longer than its `timeout`; the run itself may still be active."""


class ToolCallLimitError(RunglassError):
    """A model called tools in more rounds than `max_tool_rounds`.

    The run is still paused. `paused`, a PausedResult (of AsyncClient an AsyncPausedResult), can resume it.
    """

    def __init__(self, message: str, *, paused: Any) -> None:
        super().__init__(message)
        self.paused = paused


class ReplayError(RunglassError):
    """Replays are not switched on, or this one differs from what the session was; the message says how."""


class ReplayMiss(ReplayError):
    """No run of the session answers the call; the message names the call and the nearest run."""


class Problem(NamedTuple):
    """One error in a flow file: `path` is the place in the tree, `line` and `column` count from 1."""

    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None

    def located(self, file: str) -> str:
        """`FILE:LINE:COLUMN: message at path`."""
        place = ":".join(str(part) for part in (file, self.line, self.column) if part is not None)
        where = f" at {self.path}" if self.path else ""
        return f"{place}: {self.message}{where}"


class FlowFileError(RunglassError):
    """A flow file cannot be used; `problems` lists every error found, in order of appearance.

    `warnings` leave the file usable.
    """

    def __init__(
        self, problems: list[Problem], *, file: str = "<flow>", warnings: Sequence[Problem] = ()
    ) -> None:
        self.problems = problems
        self.warnings = list(warnings)
        self.file = file
        super().__init__("\n".join(problem.located(file) for problem in problems))


RETRY_AFTER = "retryAfterMs"
"""Of a recorded error: the wait that a provider asked for."""


class StepFailure(RunglassError):
    """An attempt failed.

    `code` is a key of `STEP_CODES`; `may_retry` is false if another attempt cannot end differently. The
    `details` join the recorded error; `RETRY_AFTER` in them is the wait that a provider asked for.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        may_retry: bool = True,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.may_retry = may_retry
        self.details = dict(details or {})

    def as_json(self) -> dict[str, Any]:
        """The error as it is recorded."""
        return {"code": self.code, "message": self.message, **self.details}


class RunFileError(RunglassError):
    """A file cannot be imported as a run; the message says where and why."""


class RunUnreadable(RunglassError):
    """The stored data of the run `run_id` cannot be decoded; `runglass data export-raw` hands it out."""

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(f"what is stored of run {run_id!r} cannot be read: {why}")
        self.run_id = run_id


class KeyLimitReached(RunglassError):
    """The project has its maximum number of keys; the message says how to raise it."""


class FlowRecorded(RunglassError):
    """The flow has runs of other programs: it can be neither pushed nor published."""

    code = "FLOW_RECORDED"

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"flow {slug!r} has runs recorded from another program, so it cannot be pushed or published; give"
            " the flow file another slug"
        )


class StoreError(RunglassError):
    """The store cannot be reached, is full, or rejected a write."""


class StoreUnreachable(StoreError):
    """The database does not answer, or cannot be connected to."""


class UpgradeRequired(StoreError):
    """The database is of an older version; the message says which command upgrades it."""


class StoreWentBack(StoreError):
    """The store was restarted or replaced, and may lack what was read of it before."""


class DuplicateIdempotencyKey(StoreError):
    """The Idempotency-Key was used before."""


class ImportConflict(StoreError):
    """The run, or its flow, conflicts with what exists; `code` is the response's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RunPurged(StoreError):
    """The run was deleted while it was read."""


class CommitUncertain(StoreError):
    """The commit failed: its rows may be stored or not."""


class StoreFull(StoreError):
    """The disk of the store has no room; nothing was written."""


class WrongExpectedVersion(StoreError):
    """Another writer appended to the run's log, or this writer's lease is gone."""


class WrongStoreAddress(StoreError):
    """The address of the store is invalid, or names an unreadable file."""


class PermanentStoreError(StoreError):
    """The store would reject the same again: a retry is useless."""

    code = "INTERNAL_ERROR"
    """The code of a run that fails since it cannot be recorded."""


class ValueTooLarge(PermanentStoreError):
    """A value is larger than the store can hold."""

    code = "OUTPUT_TOO_LARGE"


_EXCEPTIONS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: FlowNotFoundError,
    429: RateLimitError,
    **dict.fromkeys((400, 405, 408, 409, 410, 413, 416, 422, 431), RequestError),
}
_RUN_FAILED = frozenset({"TOOL_ITERATION_LIMIT"})
"""Codes of runs that failed, though their status is one of a refused request."""

PASSED_ON = frozenset({"BYOK_KEY_REJECTED", "CREDITS_EXHAUSTED", "TOOL_ITERATION_LIMIT"})
"""Codes of a failed step that `execute` answers with as they are; any other becomes STEP_FAILED."""


def exception_for(status: int, code: str | None) -> type[APIError]:
    """The class of the exception that an answer with this HTTP status and code becomes.

    An answer without a code is none of ours, and does not say that nothing was started.
    """
    kind = _EXCEPTIONS.get(status, FlowExecutionError)
    return FlowExecutionError if kind is RequestError and (code is None or code in _RUN_FAILED) else kind


class Code(NamedTuple):
    """HTTP status and meaning of an error code."""

    status: int
    meaning: str


CODES: dict[str, Code] = {
    "MISSING_MESSAGE": Code(400, "neither `message` nor `messages` was given and the flow needs one"),
    "INVALID_VERSION": Code(400, "this version cannot be used here"),
    "INVALID_STEP_INDEX": Code(400, "`stepIndex` points outside the flow"),
    "INVALID_FIRST_CALL": Code(400, "the first call of a step-through must start at step 0"),
    "INVALID_TREE": Code(400, "the flow's tree of steps cannot be run"),
    "NO_STEPS": Code(400, "the flow has no steps"),
    "TOOLS_INVALID": Code(400, "`tools` is not a list of function tools"),
    "TOOL_NAME_INVALID": Code(400, "a tool's name is not [A-Za-z0-9_-]{1,64}"),
    "TOOLS_NOT_ENABLED": Code(400, "no step of the flow takes a caller's tools"),
    "TOOLS_IN_NON_SEQUENTIAL_STEP": Code(400, "all llm steps are inside loops, branches or parallel parts"),
    "TOOL_RESULTS_MISMATCH": Code(400, "the tool results do not answer the pending tool calls"),
    "PAUSED_STEP_INVALID": Code(400, "`pausedAtStep` is not the step at which the run waits"),
    "EXECUTION_ID_INVALID": Code(400, "an `executionId` or session id is not a UUID"),
    "PARAMETER_NAME_RESERVED": Code(400, "`parameters` may not use the name `attachments`"),
    "MESSAGES_ROLE_INVALID": Code(400, "a message's role is not allowed at its place"),
    "INVALID_ATTACHMENT": Code(400, "an attachment breaks the rules for its URL, name or type"),
    "MODEL_NOT_SUPPORTED": Code(400, "no provider is known for this model string"),
    "PROVIDER_KEY_MISSING": Code(400, "the process that executes runs has no key for a model's provider"),
    "TOOLS_REQUIRE_SYNC_EXECUTE": Code(400, "tools need `execute`; a job cannot pause for them"),
    "UNAUTHENTICATED": Code(401, "the API key is missing, unknown or revoked"),
    "INSUFFICIENT_CREDITS": Code(402, "the project's budget is spent; nothing was started"),
    "CREDITS_EXHAUSTED": Code(402, "the run crossed the project's budget and was ended"),
    "FORBIDDEN": Code(403, "the key may not do or see this, or create another key"),
    "FLOW_NOT_FOUND": Code(404, "no such flow, or none that this key may see"),
    "VERSION_NOT_FOUND": Code(404, "the flow has no such version"),
    "RUN_NOT_FOUND": Code(404, "no such run, or none that this key may see"),
    "STEP_NOT_FOUND": Code(404, "the run has no such step, attempt or iteration"),
    "CONTENT_NOT_KEPT": Code(404, "this input, output or error was not kept"),
    "SESSION_NOT_FOUND": Code(404, "no such session, or none that this key may see"),
    "KEY_NOT_FOUND": Code(404, "the project has no such API key"),
    "NOT_FOUND": Code(404, "no such path"),
    "METHOD_NOT_ALLOWED": Code(405, "the path exists, but not with this method"),
    "STALE_TREE": Code(409, "the flow changed under a step-through"),
    "RUN_NOT_PAUSED": Code(409, "the run is not waiting for this call"),
    "INPUT_NOT_KEPT": Code(409, "the run cannot be rerun: its input was not kept, or was truncated"),
    "RUN_ENDED": Code(409, "the run has ended and can no longer be cancelled"),
    "RUN_RECORDED": Code(409, "another program executes the run, or all runs of the flow"),
    "RUN_EXISTS": Code(409, "the run to import already exists"),
    "FLOW_RECORDED": Code(409, "the flow has recorded runs, and cannot be pushed or published"),
    "FLOW_IN_USE": Code(409, "the flow to delete has runs that have not ended"),
    "FLOW_CONFLICT": Code(409, "the project has another flow with the slug of the run to import"),
    "IDEMPOTENCY_MISMATCH": Code(409, "the Idempotency-Key was used for another request"),
    "TOOL_ITERATION_LIMIT": Code(409, "the model called tools more often than allowed"),
    "SESSION_EXPIRED": Code(410, "the session is no longer kept"),
    "ANSWER_EXPIRED": Code(410, "the response or result is no longer kept"),
    "MESSAGES_TOO_LARGE": Code(413, "`messages` is larger than 1 MB"),
    "REQUEST_TOO_LARGE": Code(413, "the request is larger than the server accepts"),
    "INVALID_REQUEST": Code(422, "the body or a query parameter is invalid; the message names the field"),
    "RATE_LIMITED": Code(429, "too many requests for this key or its project"),
    "STEP_FAILED": Code(500, "a step of the flow failed"),
    "BYOK_KEY_REJECTED": Code(500, "the model provider rejected the configured key"),
    "INTERNAL_ERROR": Code(500, "a server error; find it in the log by the request id"),
    "UNAVAILABLE": Code(503, "the store cannot be reached, or too many runs wait; nothing was started"),
}
"""The errors of the HTTP server. The rows of the wire contract, and more (decision 0002)."""

STEP_CODES: dict[str, str] = {
    "TEMPLATE_ERROR": "a template or `input` uses an unknown name, or is malformed",
    "CODE_ERROR": "the step's code, or an expression, raised an exception",
    "SANDBOX_LIMIT": "the step's code exceeded its time, memory or recursion limit",
    "SCHEMA_LIMIT": "validating a value against the step's schema took too much time or memory",
    "INVALID_INPUT": "the step's input has the wrong shape",
    "INVALID_OUTPUT": "the step's output is not an object, or does not match `output_schema`",
    "OUTPUT_TOO_LARGE": "an output, or the run's summary, is larger than the store can hold; or a provider's"
    " response exceeds its limit",
    "RUN_LIMIT": "the run exceeds its limit of iterations, outputs or log, or memory is full",
    "STEP_TIMEOUT": "the attempt took longer than its `timeout_ms`",
    "RATE_LIMITED": "the model provider asked to slow down",
    "PROVIDER_UNAVAILABLE": "the model provider failed, or its response was incomplete",
    "PROVIDER_KEY_MISSING": "the process that executes the run has no key for the model's provider",
    "PROVIDER_ERROR": "the model provider rejected the request",
    "BYOK_KEY_REJECTED": "the model provider rejected the configured key",
    "MODEL_NOT_SUPPORTED": "no provider is known for this model string",
    "CREDITS_EXHAUSTED": "the project's budget was spent during the run",
    "TOOL_ITERATION_LIMIT": "the model called tools more often than allowed",
    "WORKER_LOST": "the process that executed the attempt died",
    "CANCELLED": "the attempt was aborted because the run or a sibling ended",
    "INTERNAL_ERROR": "a bug in Runglass; the server's log has the details",
}
"""The values of `code` in the error of a step attempt or of a failed run."""


def is_cancellation(error: object) -> bool:
    """Whether the error of an attempt tells that it was cut off, and did not fail by itself."""
    return isinstance(error, dict) and error.get("code") == "CANCELLED"


class _Coded(msgspec.Struct, frozen=True):
    code: msgspec.Raw = msgspec.Raw()


_coded = msgspec.json.Decoder(_Coded).decode


def is_cancellation_json(error: bytes) -> bool:
    """As `is_cancellation`, of an error as JSON, of which nothing but the code is decoded."""
    if b'"CANCELLED"' not in error:
        return False
    try:
        return bytes(_coded(error).code) == b'"CANCELLED"'
    except (msgspec.ValidationError, RecursionError):
        # It is a text or a list, or deeper than any error of our own.
        return False


def api_error(
    code: str,
    message: str,
    *,
    execution_id: str | None = None,
    step_id: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> APIError:
    """The exception that belongs to `code`, ready to raise. Raises KeyError for a code not in `CODES`."""
    row = CODES[code]
    return exception_for(row.status, code)(
        message,
        code=code,
        status=row.status,
        execution_id=execution_id,
        step_id=step_id,
        details=details,
    )


def run_failed(
    run_id: str, error: Mapping[str, Any], step_id: str | None, *, is_cancelled: bool = False
) -> APIError:
    """The failure of a run as the caller of `execute` gets it; `error` is that of the log."""
    code, message = error.get("code"), error.get("message")
    details = {"error": error}
    if is_cancelled:
        said = f"the run was cancelled: {message}"
        return api_error("STEP_FAILED", said, execution_id=run_id, details=details)
    answered = str(code) if code in PASSED_ON else "STEP_FAILED"
    if step_id is not None:
        said = f"step {step_id!r} failed: {message} ({code})"
        return api_error(answered, said, execution_id=run_id, step_id=step_id, details=details)
    if answered == "STEP_FAILED":
        return api_error("INTERNAL_ERROR", f"the run failed: {message}", execution_id=run_id)
    return api_error(answered, str(message), execution_id=run_id, details=details)


def rate_limited(
    message: str, *, retry_after_s: float = 1.0, details: Mapping[str, Any] | None = None
) -> RateLimitError:
    """The error for a caller who may ask again after so many seconds."""
    error = RateLimitError(message, code="RATE_LIMITED", status=429, details=details)
    error.retry_after_s = retry_after_s
    return error


def without_traceback(error: Failed) -> Failed:
    """The error as a value that is kept: without the frames of itself and of its causes.

    Frames hold all values of a step, and most of them hold the error in turn, so that only the garbage
    collector would free them.
    """
    pending: list[BaseException] = [error]
    while pending:
        each = pending.pop()
        if each.__traceback__ is not None:
            each.__traceback__ = None
            pending += [other for other in (each.__cause__, each.__context__) if other is not None]
            if isinstance(each, BaseExceptionGroup):
                pending += each.exceptions
    return error
