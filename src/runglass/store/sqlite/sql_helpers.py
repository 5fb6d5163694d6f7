"""How the SQLite store asks: a statement and the shape of its rows become work for a connection.

Rows are shaped inside the work, and so in the thread that reads them, never on the event loop.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from runglass.store.sqlite.connections import Work
from runglass.store.statements import Ask, Steps

Shape = TypeVar("Shape")


def perform(db: sqlite3.Connection, work: Ask[Shape] | Steps[Shape]) -> Shape:
    """The result of work that both kinds of store share."""
    result: Shape
    if isinstance(work, Ask):
        result = work.result(_rows_of(db, work.sql, work.values))
        return result
    try:
        sql, *values = next(work)
        while True:
            sql, *values = work.send(_rows_of(db, sql, values))
    except StopIteration as end:
        result = end.value
    return result


def _rows_of(db: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[Any]:
    if "now()" in sql:
        sql = sql.replace("now()", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
    if "= ANY (?1)" in sql:
        sql = sql.replace("= ANY (?1)", "IN (SELECT value FROM json_each(?1))")
        values = [json.dumps(values[0])]
    # Whoever writes is alone.
    return db.execute(sql.replace("FOR NO KEY UPDATE", ""), values).fetchall()


def one(shape: Callable[[Any], Shape], sql: str, *values: Any) -> Work[Shape | None]:
    """The first row."""

    def work(db: sqlite3.Connection) -> Shape | None:
        row = db.execute(sql, values).fetchone()
        return None if row is None else shape(row)

    return work


def every(shape: Callable[[Any], Shape], sql: str, *values: Any) -> Work[list[Shape]]:
    """All rows."""
    return lambda db: [shape(row) for row in db.execute(sql, values)]


def changed(sql: str, *values: Any) -> Work[int]:
    """How many rows the statement changed."""
    return lambda db: db.execute(sql, values).rowcount


def page(db: sqlite3.Connection, sql: str, *values: Any, limit_bytes: int) -> list[tuple[int, bytes]]:
    """The first rows, each a number and its data: one at least if there is one, about `limit_bytes`."""
    rows = db.execute(sql, values)
    found, size = [], 0
    for number, data in rows:
        found.append((number, data))
        size += len(data)
        if size >= limit_bytes:
            break
    # An unfinished SELECT would hold its read transaction open, and with it the WAL.
    rows.close()
    return found


def as_bytes(row: Any) -> bytes:
    """The value of a row that has only one."""
    return bytes(row[0])


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


def count_kept(db: sqlite3.Connection, run_no: int) -> None:
    """Counts anew what is kept of an ended run for its callers, once its checkpoints are gone."""
    for (size,) in db.execute(KEPT_BYTES, (run_no,)).fetchall():
        if size:
            count_open(db, run_no, size)
