"""Runglass: run LLM flows and look inside every run.

The public names, each loaded when it is first used: `import runglass` alone must stay cheap, and a program
that only wants the types must not pay for the HTTP library.
"""

import importlib

# Type checkers know the name, and `typing` would take longer to load than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from runglass.client import Client as Client
    from runglass.client import Flow as Flow
    from runglass.client import Job as Job
    from runglass.client import PausedResult as PausedResult
    from runglass.client import Run as Run
    from runglass.client import StepResult as StepResult
    from runglass.client import ToolCall as ToolCall
    from runglass.client.aio.client import AsyncClient as AsyncClient
    from runglass.client.aio.flows import AsyncFlow as AsyncFlow
    from runglass.client.aio.pauses import AsyncPausedResult as AsyncPausedResult
    from runglass.client.aio.runs import AsyncJob as AsyncJob
    from runglass.client.aio.runs import AsyncRun as AsyncRun
    from runglass.client.core.replay import Replay as Replay
    from runglass.client.core.session_run import SessionRun as SessionRun
    from runglass.client.core.sessions import Session as Session
    from runglass.client.core.sessions import SessionAsgiMiddleware as SessionAsgiMiddleware
    from runglass.client.core.sessions import SessionWsgiMiddleware as SessionWsgiMiddleware
    from runglass.client.core.sessions import current_session as current_session
    from runglass.diff.run_diff import Divergence as Divergence
    from runglass.diff.run_diff import FieldChange as FieldChange
    from runglass.diff.run_diff import RowDiff as RowDiff
    from runglass.diff.run_diff import RunDiff as RunDiff
    from runglass.diff.run_diff import ValueChange as ValueChange
    from runglass.errors import APIConnectionError as APIConnectionError
    from runglass.errors import APIError as APIError
    from runglass.errors import APITimeoutError as APITimeoutError
    from runglass.errors import AuthenticationError as AuthenticationError
    from runglass.errors import FlowExecutionError as FlowExecutionError
    from runglass.errors import FlowFileError as FlowFileError
    from runglass.errors import FlowNotFoundError as FlowNotFoundError
    from runglass.errors import InsufficientCreditsError as InsufficientCreditsError
    from runglass.errors import PermissionDeniedError as PermissionDeniedError
    from runglass.errors import RateLimitError as RateLimitError
    from runglass.errors import ReplayError as ReplayError
    from runglass.errors import ReplayMiss as ReplayMiss
    from runglass.errors import RequestError as RequestError
    from runglass.errors import RunglassError as RunglassError
    from runglass.errors import ToolCallLimitError as ToolCallLimitError
    from runglass.log.events import ContentKept as ContentKept
    from runglass.log.events import FlowCancelled as FlowCancelled
    from runglass.log.events import FlowCompleted as FlowCompleted
    from runglass.log.events import FlowFailed as FlowFailed
    from runglass.log.events import KeptOutput as KeptOutput
    from runglass.log.events import LoopCompleted as LoopCompleted
    from runglass.log.events import LoopStarted as LoopStarted
    from runglass.log.events import OverridesApplied as OverridesApplied
    from runglass.log.events import RunInput as RunInput
    from runglass.log.events import RunStarted as RunStarted
    from runglass.log.events import StepCompleted as StepCompleted
    from runglass.log.events import StepError as StepError
    from runglass.log.events import StepInput as StepInput
    from runglass.log.events import StepModelCall as StepModelCall
    from runglass.log.events import StepModelReserved as StepModelReserved
    from runglass.log.events import StepOutput as StepOutput
    from runglass.log.events import StepPaused as StepPaused
    from runglass.log.events import StepPausedForToolCalls as StepPausedForToolCalls
    from runglass.log.events import StepProgress as StepProgress
    from runglass.log.events import StepRecorded as StepRecorded
    from runglass.log.events import StepResumed as StepResumed
    from runglass.log.events import StepRetrying as StepRetrying
    from runglass.log.events import StepSkipped as StepSkipped
    from runglass.log.events import StepStarted as StepStarted
    from runglass.log.events import StreamEvent as StreamEvent
    from runglass.log.events import UnknownEvent as UnknownEvent
    from runglass.log.trace import ModelCall as ModelCall
    from runglass.log.trace import ModelReservation as ModelReservation
    from runglass.log.trace import ModelTotals as ModelTotals
    from runglass.log.trace import RunError as RunError
    from runglass.log.trace import RunSummary as RunSummary
    from runglass.log.trace import RunTotals as RunTotals
    from runglass.log.trace import StepAttempts as StepAttempts
    from runglass.log.trace import StepTrace as StepTrace
    from runglass.log.trace import TokenBreakdown as TokenBreakdown
    from runglass.log.trace import Trace as Trace
    from runglass.recorder.recorder import Recorder as Recorder
    from runglass.recorder.recorder import current_run as current_run
    from runglass.recorder.recorder import current_step as current_step
    from runglass.wire.run_api import Attachment as Attachment
    from runglass.wire.run_api import CompletedResult as CompletedResult
    from runglass.wire.run_api import JobState as JobState
    from runglass.wire.run_api import RunChange as RunChange
    from runglass.wire.run_api import RunPage as RunPage
    from runglass.wire.session import SessionExecution as SessionExecution
    from runglass.wire.session import SessionStep as SessionStep

__version__ = "0.1.0"

_HOMES = {
    "client": "Client Flow Job PausedResult Run StepResult ToolCall",
    "client.aio.client": "AsyncClient",
    "client.aio.flows": "AsyncFlow",
    "client.aio.pauses": "AsyncPausedResult",
    "client.aio.runs": "AsyncJob AsyncRun",
    "client.core.session_run": "SessionRun",
    "client.core.replay": "Replay",
    "client.core.sessions": "Session SessionAsgiMiddleware SessionWsgiMiddleware current_session",
    "diff.run_diff": "Divergence FieldChange RowDiff RunDiff ValueChange",
    "errors": (
        "APIConnectionError APIError APITimeoutError AuthenticationError FlowExecutionError FlowFileError "
        "FlowNotFoundError InsufficientCreditsError PermissionDeniedError RateLimitError ReplayError "
        "ReplayMiss RequestError RunglassError ToolCallLimitError"
    ),
    "log.events": (
        "ContentKept KeptOutput "
        "FlowCancelled FlowCompleted FlowFailed LoopCompleted LoopStarted OverridesApplied RunInput "
        "RunStarted StepCompleted StepError StepInput StepModelCall StepModelReserved StepOutput StepPaused "
        "StepPausedForToolCalls StepProgress StepRecorded StepResumed StepRetrying StepSkipped StepStarted "
        "StreamEvent UnknownEvent"
    ),
    "recorder.recorder": "Recorder current_run current_step",
    "wire.run_api": "Attachment CompletedResult JobState RunChange RunPage",
    "wire.session": "SessionExecution SessionStep",
    "log.trace": (
        "ModelCall ModelReservation ModelTotals RunError RunSummary RunTotals StepAttempts StepTrace "
        "TokenBreakdown Trace"
    ),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names.split()}


# Type checkers read the imports above, and would take any name for good if they saw this.
if not TYPE_CHECKING:
    __all__ = sorted([*_HOME, "__version__"])

    def __getattr__(name):
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value  # the next use finds the name without this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
