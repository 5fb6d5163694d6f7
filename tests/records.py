"""Records for tests that need a run in a store and do not care what it is of."""

from typing import Any, TypeVar

from runglass.store.records import NewRecording, NewRun, RunRecord

T = TypeVar("T")
_ANYTHING: dict[str, Any] = {
    "id": "r",
    "version": 0,
    "trigger_type": "api",
    "capture": "full",
    "session_id": None,
    "request": b"{}",
    "summary": b"{}",
}


def run_record(**fields: Any) -> RunRecord:
    """A run as a store has it; `fields` are those that matter to the test."""
    anything = {key: value for key, value in _ANYTHING.items() if key != "request"}
    of_store = {"no": 1, "project_id": 1, "flow_id": "f", "status": "running", "head": 0, "fence": 1}
    return RunRecord(**{**anything, **of_store, "claims": 0, **fields})


def new_run(project_id: int, flow_id: str, **fields: Any) -> NewRun:
    """A run to create; `fields` are those that matter to the test."""
    return NewRun(project_id=project_id, flow_id=flow_id, **{**_ANYTHING, **fields})


def new_recording(project_id: int, flow_id: str, **fields: Any) -> NewRecording:
    """A recorded run to create, with its trigger, its `trace_id` and its `due_at` among the `fields`."""
    anything = {**_ANYTHING, "request": b"", "continues": None}
    return NewRecording(project_id=project_id, flow_id=flow_id, **{**anything, **fields})


def there(found: T | None) -> T:
    """What was looked for, which must be there."""
    assert found is not None
    return found
