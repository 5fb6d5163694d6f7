"""Exit codes: what a script may rely on, and the one place that turns an error into one."""

from enum import IntEnum

from runglass.config.settings import SettingsError
from runglass.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    CommitUncertain,
    FlowNotFoundError,
    PermissionDeniedError,
    RunglassError,
    StoreUnreachable,
    WrongStoreAddress,
)


class UsageError(RunglassError):
    """The command line asks for something that cannot be: a bad value, or a file that cannot be read."""


class Exit(IntEnum):
    """Exit code of a command; `MEANINGS` documents each."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DENIED = 5
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done; a run that was executed or followed has completed",
    Exit.FAILED: "the run failed or was cancelled, compared runs differ, the server refused, or a flow file"
    " is wrong or not there",
    Exit.USAGE: "the command line or a setting is wrong, or another file that it names cannot be read",
    Exit.NOT_FOUND: "no such project, flow, version, run, step, attempt, iteration or key",
    Exit.UNREACHABLE: "the server, or its PostgreSQL, cannot be reached or did not answer in time",
    Exit.DENIED: "the API key is missing, unknown or revoked, or its role forbids the action",
    Exit.INTERRUPTED: "stopped with Ctrl-C",
    Exit.PIPE_CLOSED: "the reader of the output went away, as `head` does",
    Exit.TERMINATED: "stopped with SIGTERM, unless the command is a server or a worker",
}


class NotFound(RunglassError):
    """The data folder does not hold what the command names."""


def exit_of(error: RunglassError) -> Exit:
    """The exit code that an error ends a command with."""
    match error:
        case FlowNotFoundError() | NotFound():
            return Exit.NOT_FOUND
        case AuthenticationError() | PermissionDeniedError():
            return Exit.DENIED
        case APIConnectionError() | APITimeoutError() | StoreUnreachable():
            return Exit.UNREACHABLE
        case CommitUncertain(__cause__=StoreUnreachable()):
            return Exit.UNREACHABLE
        case UsageError() | SettingsError() | WrongStoreAddress():
            return Exit.USAGE
        case _:
            return Exit.FAILED
