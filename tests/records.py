"""Records for tests that need a run in a store and do not care what it is of."""

from typing import Any

from runglass.store.base import NewRun


def new_run(project_id: int, flow_id: str, **fields: Any) -> NewRun:
    """A run to create; `fields` are those that matter to the test."""
    anything: dict[str, Any] = {
        "id": "r",
        "version": 0,
        "trigger_type": "api",
        "capture": "full",
        "session_id": None,
        "request": b"{}",
        "summary": b"{}",
    }
    return NewRun(project_id=project_id, flow_id=flow_id, **{**anything, **fields})
