"""How the SQLite store performs the work that both kinds of store share, and what only it has to ask.

Rows are shaped inside the work, and so in the thread that reads them, never on the event loop.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from runglass.store.run_tables import RowsOfRun
from runglass.store.statements import (
    COUNT_BYTES,
    COUNT_KEPT,
    COUNT_OPEN,
    NEW_RUN_NO,
    Ask,
    ForEach,
    Work,
    next_change,
)

Shape = TypeVar("Shape")
Function = Callable[..., None]

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
"""The time as the store keeps it: ISO, UTC, in milliseconds."""


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
            elif isinstance(step, ForEach):
                db.executemany(_in_sqlite(step.sql)[0], step.values)
            else:
                rows = step(db)
    except StopIteration as end:
        result = end.value
    return result


def _rows_of(db: sqlite3.Connection, sql: str, values: Mapping[str, Any]) -> list[Any]:
    sql, has_lists, function = _in_sqlite(sql)
    if function is not None:
        function(db, **values)
        return []
    if has_lists:
        values = {
            name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()
        }
    return db.execute(sql, values).fetchall()


@lru_cache(maxsize=512)
def _in_sqlite(sql: str) -> tuple[str, bool, Function | None]:
    """The statement as SQLite has it, whether there are lists among its values, and what is called for it."""
    function, sql = _FUNCTIONS.get(sql), _STATEMENTS.get(sql, sql)
    # Whoever writes is alone, and locks nothing.
    sql = re.sub(r" FOR (NO KEY UPDATE|UPDATE|SHARE)( SKIP LOCKED)?", "", sql)
    sql = sql.replace("now()", NOW)
    sql, lists = re.subn(r"= ANY \((:\w+)\)", r"IN (SELECT value FROM json_each(\1))", sql)
    return sql, lists > 0, function


def page(
    db: sqlite3.Connection, rows: RowsOfRun, run_no: int, after: tuple[int, ...], *, limit_bytes: int
) -> list[Any]:
    """Rows of the run behind the key `after`: one at least if there is one, about `limit_bytes`."""
    found = db.execute(_page_of(rows), (run_no, *after))
    taken = []
    for row in found:
        taken.append(row)
        limit_bytes -= len(row[-1])
        if limit_bytes <= 0:
            break
    # An unfinished SELECT would hold its read transaction open, and with it the WAL.
    found.close()
    return taken


@lru_cache
def _page_of(rows: RowsOfRun) -> str:
    key = ", ".join(rows.key)
    beyond = f"run_no = ?1 AND ({key}) > ({', '.join(f'?{number}' for number, _ in enumerate(rows.key, 2))})"
    # They come in the order of their keys, so SQLite merges them and sorts nothing.
    each = [f"SELECT {rows.columns} FROM {table} WHERE {beyond}" for table in rows.tables]
    return f"{' UNION ALL '.join(each)} ORDER BY {key}"


def count_open(db: sqlite3.Connection, run_no: int, size: int) -> None:
    """Adds to the counted bytes of a run beside its log; less than 0 subtracts."""
    sql = "UPDATE run SET open_bytes = open_bytes + ? WHERE no = ? RETURNING project_id"
    for (project_id,) in db.execute(sql, (size, run_no)).fetchall():
        db.execute(_STATEMENTS[COUNT_BYTES], {"size": size, "project_id": project_id})


KEPT_BYTES = (
    "SELECT coalesce((SELECT sum(length(data)) FROM owed WHERE run_no = run.no), 0)"
    " + coalesce((SELECT sum(length(answer)) FROM call_answer WHERE run_no = run.no), 0)"
    " + coalesce((SELECT coalesce(length(result), 0) + coalesce(length(error), 0) FROM run_outcome"
    " WHERE run_no = run.no), 0) - open_bytes FROM run WHERE no = ?"
    " AND NOT EXISTS (SELECT 1 FROM ended_run WHERE run_no = run.no)"
)
"""By how much what is kept for the callers of an ended run is more than what was counted of it."""


def count_kept(db: sqlite3.Connection, runs: Sequence[int]) -> None:
    """Counts anew what is kept of ended runs for their callers, of each once its checkpoints are gone."""
    for run_no in runs:
        for (size,) in db.execute(KEPT_BYTES, (run_no,)).fetchall():
            if size:
                count_open(db, run_no, size)


# SQLite would give the number of a deleted row again, and readers and rows of the old run may still be there.
NEXT_NO = "(SELECT max(coalesce((SELECT max(no) FROM run), 0), last) + 1 FROM run_number)"


_STATEMENTS: Mapping[str, str] = {
    COUNT_BYTES: "UPDATE project SET data_bytes = data_bytes + :size WHERE id = :project_id",
    NEW_RUN_NO.sql: f"UPDATE run_number SET last = {NEXT_NO} RETURNING last",
    next_change(0).sql: (
        "UPDATE project SET run_changes = run_changes + 1 WHERE id = :project_id RETURNING run_changes"
    ),
}
_FUNCTIONS: Mapping[str, Function] = {
    COUNT_OPEN: count_open,
    COUNT_KEPT: count_kept,
}
"""What PostgreSQL has as functions of the database."""
