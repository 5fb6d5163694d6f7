"""Who may have what a caller is owed: content that the store keeps for a while, and the log does not.

Under `full` whoever may read a run may read its content, and gets it. Under every other mode it is for the
key that started the run and for nobody else, whatever their role.
"""

from runglass.errors import APIError, api_error
from runglass.server.security.authentication import MAY_EXECUTE
from runglass.store.records import ApiKey, RunRecord


def is_owed(key: ApiKey, run: RunRecord) -> bool:
    """Whether the key may have the whole content of the run."""
    if run.capture == "full":
        return True
    if run.key_id is None:
        # Started by no key, or by an earlier version, which kept none: by whoever may start runs.
        return key.role in MAY_EXECUTE
    return run.key_id == key.id


def require_owed(key: ApiKey, run: RunRecord, *, what: str) -> None:
    """Raises FORBIDDEN where `what` is not for this key."""
    if not is_owed(key, run):
        raise not_owed(run, what=what)


def not_owed(run: RunRecord, *, what: str) -> APIError:
    """What other keys are told, and how far the run is, which is no secret."""
    who = "a key that may run flows" if run.key_id is None else f"key {run.key_id}, which started it"
    message = (
        f"{what} of run {run.id!r}, which is {run.status}, is only for {who}: its capture mode is"
        f" {run.capture!r}; with 'full' every key of the project may read it"
    )
    return api_error("FORBIDDEN", message, execution_id=run.id, details={"status": run.status})
