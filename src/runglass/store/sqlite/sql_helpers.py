"""How the SQLite store performs the work that both kinds of store share, and what only it has to ask.

And what SQLite says in its own way inside of shared statements, and where it searches for runs. Rows are
shaped inside the work, and so in the thread that reads them, never on the event loop.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from runglass.store.query_condition import SearchSql
from runglass.store.query_index import Source
from runglass.store.run_tables import RowsOfRun
from runglass.store.statements import (
    COUNT_BYTES,
    COUNT_KEPT,
    COUNT_OPEN,
    NEW_RUN_NO,
    Ask,
    Dialect,
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


SQLITE = Dialect(
    project=(
        "SELECT id, org, name, capture, budget_usd, spent_usd, retention_days, content_retention_days,"
        " reserved_usd, allowed_models, data_bytes, capture_failed, capture_sample FROM project"
    ),
    new_project="",
    large_value="zeroblob(10000)",
    changes="SELECT id AS project_id, run_changes AS last FROM project",
    moment="now()",
    note_error="INSERT OR REPLACE INTO run_error SELECT * FROM error_of_run WHERE no = :run_no",
    next_fence="fence + 1",
    set_weight="UPDATE project SET weight = :weight WHERE id = :project_id AND weight <> :weight",
    new_import="INSERT INTO importing_run (run_no) VALUES (:run_no)",
    has_content="has_content = 1",
    forget_runs="UPDATE run_number SET last = max(last, :last)",
    tables_of_runs=(
        "SELECT kept.name, has.name FROM sqlite_schema AS kept JOIN pragma_table_info(kept.name) AS has"
        " WHERE kept.type = 'table' AND (has.name IN ('run_no', 'run_id')"
        " OR kept.name = 'run' AND has.name = 'no') ORDER BY kept.name, has.name"
    ),
    # One process has the file: what it does not import itself, nobody does.
    abandoned="NOT run_no = ANY (:own)",
)


# What a run's own JSON says is read only from rows whose columns do not say it, as of runs that go on.
_SUMMARY = "CASE WHEN json_valid(CAST(summary AS TEXT)) THEN CAST(summary AS TEXT) END"
LOOKED_FOR_CHARS = 64
PIECE_ROWS = 16
"""Events that are looked at before the time is looked at."""


def rows_of(
    source: Source, what: str, limit: int | None, *, newest: bool = True
) -> tuple[str, dict[str, Any]]:
    # A search for each key, which SQLite merges by id as far as rows are asked for.
    hint = "" if source.table == source.name else f" INDEXED BY {source.name}"
    parts, values = [], {"project_id": source.project_id}
    for number, key in enumerate(source.keys):
        names = {f"{column}_{number}": column for column in source.columns}
        same = "".join(f" AND {column} = :{name}" for name, column in names.items())
        values |= zip(names, key, strict=True)
        parts.append(
            f"SELECT {what} FROM {source.table}{hint} WHERE project_id = :project_id{same}"
            " AND id < :before AND id >= :since"
        )
    order = f" ORDER BY id {'DESC' if newest else 'ASC'} LIMIT {limit}" if limit else ""
    return " UNION ALL ".join(parts) + order, values


def events_with(patterns: Sequence[bytes]) -> tuple[str, dict[str, Any]]:
    # First the bytes as they are: few events have the text anywhere, and only those are read as JSON. The
    # beginning of a text has to do, as `instr` compares it anew at each character of the event.
    values = {f"t{number}": each.decode()[:LOOKED_FOR_CHARS] for number, each in enumerate(patterns)}
    has = " OR ".join(f"instr(lower(CAST(data AS TEXT)), :{name}) > 0" for name in values) or "false"
    return (
        f"SELECT seq, CASE WHEN {has} THEN data END FROM event"
        f" WHERE run_no = :run_no AND seq > :seq ORDER BY seq LIMIT {PIECE_ROWS}"
    ), values


SEARCH_SQL = SearchSql(
    now_ms="julianday('now') * 86400000.0",
    started_ms=f"julianday(json_extract({_SUMMARY}, '$.startedAt')) * 86400000.0",
    live_cost_usd=f"CAST(json_extract({_SUMMARY}, '$.totals.costUsd') AS REAL)",
    live_tokens=f"json_extract({_SUMMARY}, '$.totals.tokens.total')",
    has_model=(
        f"EXISTS (SELECT 1 FROM json_each({_SUMMARY}, '$.totals.byModel')"
        " WHERE lower(key) = ANY ({0}) OR lower(substr(key, instr(key, ':') + 1)) = ANY ({0}))"
    ),
    is_recorded=f"'{{0}}=' || lower(json_extract({_SUMMARY}, '$.recording.{{0}}')) = ANY ({{1}})",
    has_tag=(
        f"EXISTS (SELECT 1 FROM json_each({_SUMMARY}, '$.recording.tags')"
        " WHERE '{0}=' || lower(value) = ANY ({1}))"
    ),
    error=(
        "CASE WHEN status IN ('failed', 'cancelled') THEN (SELECT error FROM run_error"
        " WHERE run_error.project_id = run.project_id AND run_error.id = run.id) END"
    ),
    position="instr",
    rows=rows_of,
    events=events_with,
    ids="group_concat(id, ',') FILTER (WHERE ok)",
)
