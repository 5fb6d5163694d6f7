"""How the SQLite store performs the work that both kinds of store share, and what only it has to ask.

Rows are shaped inside the work, and so in the thread that reads them, never on the event loop.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from runglass.store.statements import COUNT_BYTES, COUNT_KEPT, COUNT_OPEN, Ask, Work

Shape = TypeVar("Shape")


def perform(work: Work[Shape], db: sqlite3.Connection) -> Shape:
    """The result of work that both kinds of store share."""
    result: Shape
    if isinstance(work, Ask):
        result = work.result(_rows_of(db, work.sql, work.values))
        return result
    # A generator is made with each try.
    steps, rows = work(), None
    try:
        while True:
            step: Any = steps.send(rows)
            if isinstance(step, Ask):
                rows = step.result(_rows_of(db, step.sql, step.values))
            else:
                rows = _rows_of(db, step[0], step[1:]) if isinstance(step, tuple) else step(db)
    except StopIteration as end:
        result = end.value
    return result


def _rows_of(db: sqlite3.Connection, sql: str, values: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    if (function := _FUNCTIONS.get(sql)) is not None:
        function(db, *(values.values() if isinstance(values, Mapping) else values))
        return []
    sql, has_lists = _in_sqlite(sql)
    if has_lists:
        if isinstance(values, Mapping):
            values = {name: _as_json(value) for name, value in values.items()}
        else:
            values = list(map(_as_json, values))
    return db.execute(sql, values).fetchall()


def _as_json(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


@lru_cache(maxsize=512)
def _in_sqlite(sql: str) -> tuple[str, bool]:
    """The statement as SQLite has it, and whether there are lists among its values."""
    # Whoever writes is alone, and locks nothing.
    sql = re.sub(r" FOR (NO KEY UPDATE|UPDATE|SHARE)( SKIP LOCKED)?", "", sql)
    sql = sql.replace("now()", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
    sql, lists = re.subn(r"= ANY \((\?\d+|:\w+)\)", r"IN (SELECT value FROM json_each(\1))", sql)
    return sql, lists > 0


def first_rows(
    db: sqlite3.Connection,
    sql: str,
    *values: Any,
    limit_bytes: int,
    size_of: Callable[[Any], int] = len,
) -> list[Any]:
    """The first rows, each with its data at the end: one at least if there is one, about `limit_bytes`."""
    rows = db.execute(sql, values)
    found, size = [], 0
    for row in rows:
        found.append(row)
        size += size_of(row[-1])
        if size >= limit_bytes:
            break
    # An unfinished SELECT would hold its read transaction open, and with it the WAL; nor could a table be
    # deleted from that it reads.
    rows.close()
    return found


def now_text() -> str:
    """The time as the store keeps it: ISO, UTC, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count_bytes(db: sqlite3.Connection, project_id: int, size: int) -> None:
    """Adds to the counted bytes of the runs of a project; less than 0 subtracts."""
    db.execute("UPDATE project SET data_bytes = data_bytes + ? WHERE id = ?", (size, project_id))


def count_new_run(db: sqlite3.Connection, project_id: int, size: int) -> None:
    """Adds a run to what is counted of a project: its bytes, and that it was created."""
    sql = "UPDATE project SET data_bytes = data_bytes + ?, run_changes = run_changes + 1 WHERE id = ?"
    db.execute(sql, (size, project_id))


def count_open(db: sqlite3.Connection, run_no: int, size: int) -> None:
    """Adds to the counted bytes of a run beside its log; less than 0 subtracts."""
    sql = "UPDATE run SET open_bytes = open_bytes + ? WHERE no = ? RETURNING project_id"
    for (project_id,) in db.execute(sql, (size, run_no)).fetchall():
        count_bytes(db, project_id, size)


KEPT_BYTES = (
    "SELECT coalesce((SELECT sum(length(data)) FROM owed WHERE run_no = run.no), 0)"
    " + coalesce((SELECT sum(length(answer)) FROM call_answer WHERE run_no = run.no), 0)"
    " + coalesce((SELECT coalesce(length(result), 0) + coalesce(length(error), 0) FROM run_outcome"
    " WHERE run_no = run.no), 0) - open_bytes FROM run WHERE no = ?"
    " AND NOT EXISTS (SELECT 1 FROM ended_run WHERE run_no = run.no)"
)
"""By how much what is kept for the callers of an ended run is more than what was counted of it."""


NOTE_ERROR = "INSERT OR REPLACE INTO run_error SELECT * FROM error_of_run WHERE no = :run_no"
"""Has the error of a run that failed or was cancelled found by its text."""


def count_kept(db: sqlite3.Connection, run_no: int) -> None:
    """Counts anew what is kept of an ended run for its callers, once its checkpoints are gone."""
    for (size,) in db.execute(KEPT_BYTES, (run_no,)).fetchall():
        if size:
            count_open(db, run_no, size)


_FUNCTIONS: Mapping[str, Callable[..., None]] = {
    COUNT_BYTES: count_bytes,
    COUNT_OPEN: count_open,
    COUNT_KEPT: count_kept,
}
"""What PostgreSQL has as functions of the database."""
