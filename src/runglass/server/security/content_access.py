"""Which keys may have the content that a run's caller is owed, and that the log does not keep.

Under `full` every key that may read a run gets its content. Under every other mode only the key that started
the run gets it; the role of other keys does not matter.
"""

from runglass.errors import APIError, api_error
from runglass.server.security.authentication import MAY_EXECUTE
from runglass.store.records import ApiKey, RunRecord


def is_owed(key: ApiKey, run: RunRecord) -> bool:
    """Whether the key may have the whole content of the run."""
    if run.capture == "full":
        return True
    if run.key_id is None:
        # A run without a key was started by the terminal or an earlier version: keys that may start runs get
        # its content.
        return key.role in MAY_EXECUTE
    return run.key_id == key.id


def require_owed(key: ApiKey, run: RunRecord, *, what: str) -> None:
    """Raises FORBIDDEN where `what` is not for this key."""
    if not is_owed(key, run):
        raise not_owed(run, what=what)


def not_owed(run: RunRecord, *, what: str) -> APIError:
    """The error for other keys, with the status of the run, which is no secret."""
    who = "a key that may run flows" if run.key_id is None else f"key {run.key_id}, which started it"
    message = (
        f"{what} of run {run.id!r}, which is {run.status}, is only for {who}: its capture mode is"
        f" {run.capture!r}; with 'full' every key of the project may read it"
    )
    return api_error("FORBIDDEN", message, execution_id=run.id, details={"status": run.status})
