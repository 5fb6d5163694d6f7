"""The row of a run, as the statements of several files select it."""

from typing import Any

from runglass.store.records import RunRecord

RUN = (
    "SELECT no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, head, fence,"
    " claims, summary, key_id, log_bytes, open_bytes, resume_head, cancel_reason FROM run"
)


def run_of(row: Any) -> RunRecord:
    return RunRecord(**dict(zip(RunRecord.__struct_fields__, row, strict=True)))
