"""Runglass: run LLM flows and look inside every run.

The public names, each loaded when it is first used: `import runglass` alone must stay cheap, and a program
that only wants the types must not pay for the HTTP library.
"""

import importlib

# Type checkers know the name, and `typing` would take longer to load than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from runglass.client import (
        AsyncJob,
        AsyncPausedResult,
        AsyncRun,
        Client,
        Flow,
        Job,
        PausedResult,
        Run,
        StepResult,
        ToolCall,
    )
    from runglass.client.api.async_client import AsyncClient
    from runglass.client.api.async_flows import AsyncFlow
    from runglass.diff.run_diff import Divergence, FieldChange, RowDiff, RunDiff, ValueChange
    from runglass.errors import (
        APIConnectionError,
        APIError,
        APITimeoutError,
        AuthenticationError,
        FlowExecutionError,
        FlowFileError,
        FlowNotFoundError,
        InsufficientCreditsError,
        PermissionDeniedError,
        RateLimitError,
        RequestError,
        RunglassError,
        ToolCallLimitError,
    )
    from runglass.log.events import (
        ContentKept,
        FlowCancelled,
        FlowCompleted,
        FlowFailed,
        KeptOutput,
        LoopCompleted,
        LoopStarted,
        OverridesApplied,
        RunInput,
        RunStarted,
        StepCompleted,
        StepError,
        StepInput,
        StepModelCall,
        StepModelReserved,
        StepOutput,
        StepPaused,
        StepPausedForToolCalls,
        StepProgress,
        StepResumed,
        StepRetrying,
        StepSkipped,
        StepStarted,
        StreamEvent,
        UnknownEvent,
    )
    from runglass.log.trace import (
        ModelCall,
        ModelReservation,
        ModelTotals,
        RunError,
        RunSummary,
        RunTotals,
        StepAttempts,
        StepTrace,
        TokenBreakdown,
        Trace,
    )
    from runglass.wire.run_api import Attachment, CompletedResult, JobState, RunChange, RunPage
    from runglass.wire.session import SessionExecution, SessionStep

__version__ = "0.1.0"

__all__ = [
    "APIConnectionError",
    "APIError",
    "APITimeoutError",
    "AsyncClient",
    "AsyncFlow",
    "AsyncJob",
    "AsyncPausedResult",
    "AsyncRun",
    "Attachment",
    "AuthenticationError",
    "Client",
    "CompletedResult",
    "ContentKept",
    "Divergence",
    "FieldChange",
    "Flow",
    "FlowCancelled",
    "FlowCompleted",
    "FlowExecutionError",
    "FlowFailed",
    "FlowFileError",
    "FlowNotFoundError",
    "InsufficientCreditsError",
    "Job",
    "JobState",
    "KeptOutput",
    "LoopCompleted",
    "LoopStarted",
    "ModelCall",
    "ModelReservation",
    "ModelTotals",
    "OverridesApplied",
    "PausedResult",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestError",
    "RowDiff",
    "Run",
    "RunChange",
    "RunDiff",
    "RunError",
    "RunInput",
    "RunPage",
    "RunStarted",
    "RunSummary",
    "RunTotals",
    "RunglassError",
    "SessionExecution",
    "SessionStep",
    "StepAttempts",
    "StepCompleted",
    "StepError",
    "StepInput",
    "StepModelCall",
    "StepModelReserved",
    "StepOutput",
    "StepPaused",
    "StepPausedForToolCalls",
    "StepProgress",
    "StepResult",
    "StepResumed",
    "StepRetrying",
    "StepSkipped",
    "StepStarted",
    "StepTrace",
    "StreamEvent",
    "TokenBreakdown",
    "ToolCall",
    "ToolCallLimitError",
    "Trace",
    "UnknownEvent",
    "ValueChange",
    "__version__",
]

_HOMES = {
    "client": "AsyncJob AsyncPausedResult AsyncRun Client Flow Job PausedResult Run StepResult ToolCall",
    "client.api.async_client": "AsyncClient",
    "client.api.async_flows": "AsyncFlow",
    "diff.run_diff": "Divergence FieldChange RowDiff RunDiff ValueChange",
    "errors": (
        "APIConnectionError APIError APITimeoutError AuthenticationError FlowExecutionError FlowFileError "
        "FlowNotFoundError InsufficientCreditsError PermissionDeniedError RateLimitError RequestError "
        "RunglassError ToolCallLimitError"
    ),
    "log.events": (
        "ContentKept KeptOutput "
        "FlowCancelled FlowCompleted FlowFailed LoopCompleted LoopStarted OverridesApplied RunInput "
        "RunStarted StepCompleted StepError StepInput StepModelCall StepModelReserved StepOutput StepPaused "
        "StepPausedForToolCalls StepProgress StepResumed StepRetrying StepSkipped StepStarted "
        "StreamEvent UnknownEvent"
    ),
    "wire.run_api": "Attachment CompletedResult JobState RunChange RunPage",
    "wire.session": "SessionExecution SessionStep",
    "log.trace": (
        "ModelCall ModelReservation ModelTotals RunError RunSummary RunTotals StepAttempts StepTrace "
        "TokenBreakdown Trace"
    ),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # type checkers would take any name for good if they saw this

    def __getattr__(name):
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value  # the next use finds the name without this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
