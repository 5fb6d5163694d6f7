"""How the PostgreSQL store performs the work that both kinds of store share, and reads pages.

And what PostgreSQL says in its own way inside of shared statements, and where it searches for runs.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from inspect import isawaitable
from typing import Any, TypeVar

from runglass.store.postgres.connections import Db
from runglass.store.query_condition import SearchSql
from runglass.store.query_index import Source
from runglass.store.run_tables import RowsOfRun
from runglass.store.statements import Ask, Dialect, ForEach, Work

Shape = TypeVar("Shape")

NOW = """to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
"""When the transaction began, by the clock of the database; as all texts of times: ISO, UTC, milliseconds."""
_NAME = re.compile(r"(?<!:):([a-z]\w*)")
"""A named value, and no cast."""
PIECE_ROWS = 500
"""Rows whose sizes are added up at once, to find those that fit into a page."""


async def perform(work: Work[Shape], db: Db) -> Shape:
    """The result of work that both kinds of store share."""
    result: Shape
    if isinstance(work, Ask):
        return await _result_of(work, db)
    # A generator is made with each try.
    steps, rows = work(), None
    try:
        while True:
            step: Any = steps.send(rows)
            if isinstance(step, Ask):
                rows = await _result_of(step, db)
            elif isinstance(step, ForEach):
                sql, names = with_numbers(step.sql)
                await db.executemany(sql, [[values[name] for name in names] for values in step.values])
            else:
                rows = step(db)
                rows = await rows if isawaitable(rows) else rows
    except StopIteration as end:
        result = end.value
    return result


async def _result_of(ask: Ask[Shape], db: Db) -> Shape:
    sql, names = with_numbers(ask.sql)
    return ask.result(await db.fetch(sql, *[ask.values[name] for name in names]))


@lru_cache(maxsize=512)
def with_numbers(sql: str) -> tuple[str, list[str]]:
    """The statement as PostgreSQL has it, with `$1`, `$2`, … for the values of these names.

    `now()` is a text; a time to reckon with is CURRENT_TIMESTAMP.
    """
    names = list(dict.fromkeys(_NAME.findall(sql)))
    numbered = _NAME.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
    return numbered.replace("now()", NOW), names


async def page(
    db: Db, rows: RowsOfRun, run_no: int, after: tuple[int, ...], *, limit_bytes: int
) -> list[tuple[Any, ...]]:
    """Rows of the run behind the key `after`: one at least if there is one, about `limit_bytes`."""
    sql, key = _page_of(rows)
    found: list[tuple[Any, ...]] = []
    left = limit_bytes
    while True:
        some = [tuple(row) for row in await db.fetch(sql, run_no, left, *after)]
        found += some
        left -= sum(len(row[-1]) for row in some)
        if len(some) < PIECE_ROWS or left <= 0:
            return found
        after = tuple(found[-1][column] for column in key)


@lru_cache
def _page_of(rows: RowsOfRun) -> tuple[str, list[int]]:
    """The statement for some of the rows, and which of its columns are the key."""
    key = ", ".join(rows.key)
    marks = ", ".join(f"${number}" for number, _ in enumerate(rows.key, 3))
    ordered = f"ORDER BY {key} LIMIT {PIECE_ROWS}"
    of_tables = [
        f"(SELECT {rows.columns} FROM {table} WHERE run_no = $1 AND ({key}) > ({marks}) {ordered})"
        for table in rows.tables
    ]
    first = f"{' UNION ALL '.join(of_tables)} {ordered}" if of_tables[1:] else of_tables[0]
    sql = (
        f"SELECT {rows.columns} FROM (SELECT *, sum(length(data)) OVER (ORDER BY {key}) - length(data)"
        f" AS before FROM ({first}) AS first) AS sized WHERE before < $2 ORDER BY {key}"
    )
    return sql, [rows.columns.split(", ").index(column) for column in rows.key]


_TOTAL = "coalesce((SELECT sum({0}) FROM project_total WHERE project_id = project.id), 0)"

POSTGRES = Dialect(
    project=(
        f"SELECT id, org, name, capture, budget_usd, {_TOTAL.format('spent_usd')}, retention_days,"
        f" content_retention_days, {_TOTAL.format('reserved_usd')}, allowed_models,"
        f" {_TOTAL.format('data_bytes')}::bigint, capture_failed, capture_sample FROM project"
    ),
    new_project="INSERT INTO project_change (project_id, last) VALUES (:project_id, 0)",
    large_value="repeat('0', 10000)",
    changes="SELECT project_id, last FROM project_change",
    moment="CURRENT_TIMESTAMP",
    note_error="",
    # After a standby has taken over without the newest commits a claim may be made anew, and no fence of a
    # claim that was lost may come again: its process lives, and would write into the log of the next one.
    next_fence="fence + 1 + floor(random() * 1000000000)::bigint",
    set_weight=(
        "UPDATE project_change SET weight = :weight WHERE project_id = :project_id AND weight <> :weight"
    ),
    new_import="INSERT INTO importing_run (run_no, owner) VALUES (:run_no, :owner)",
    has_content="has_content",
    forget_runs="DELETE FROM run_setback WHERE run_id = ANY (:ids)",
    # Found where `run` is: a schema that bears the name of the role comes before it, and may be empty.
    tables_of_runs=(
        "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('run'))"
        " AND (attname IN ('run_no', 'run_id') OR relname = 'run' AND attname = 'no')"
        " ORDER BY relname, attname"
    ),
    abandoned=(
        "NOT run_no = ANY (:own) AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.owner = importing_run.owner)"
    ),
)


_PIECE = {"rows": 200, "bytes": 1 << 20}
# First the bytes as they are, in the database: few events have the text anywhere, and only those are sent and
# read as JSON. Bytes that are not ASCII are compared as escapes, so that any bytes can be looked at.
_EVENTS = (
    "SELECT seq, CASE WHEN EXISTS (SELECT FROM unnest(:texts::text[]) AS text"
    """ WHERE strpos(lower(encode(data, 'escape') COLLATE "C"), text) > 0) THEN data END FROM ("""
    "SELECT seq, data, sum(length(data)) OVER (ORDER BY seq) - length(data) AS before"
    " FROM (SELECT seq, data FROM event WHERE run_no = :run_no AND seq > :seq ORDER BY seq LIMIT :rows)"
    " AS rows) AS sized WHERE before < :bytes ORDER BY seq"
)


def rows_of(
    source: Source, what: str, limit: int | None, *, newest: bool = True
) -> tuple[str, dict[str, Any]]:
    table, columns, direction = source.table, source.columns, "DESC" if newest else "ASC"
    same = "".join(f" AND {table}.{column} = key.{column}" for column in columns)
    within = (
        f"{table}.project_id = asked.project_id"
        f" AND {table}.id < asked.before AND {table}.id >= asked.since{same}"
    )
    if limit:
        # As one value, in its order: else the index of ids alone has the order as well, and by that the
        # planner may go through the runs of all projects for a rare key.
        row = ", ".join(f"{table}.{column}" for column in ("project_id", *columns, "id"))
        key = ", ".join(("asked.project_id", *(f"key.{column}" for column in columns)))
        within = f"({row}) < ({key}, asked.before) AND ({row}) >= ({key}, asked.since)"
        within += " AND run.session_id IS NOT NULL" if "session_id" in columns else ""
        within += f" ORDER BY {row.replace(',', f' {direction},')} {direction} LIMIT {limit}"
    unnested = ", ".join(f":{column}::{'bigint' if column == 'version' else 'text'}[]" for column in columns)
    keys = f" CROSS JOIN unnest({unnested}) AS key ({', '.join(columns)})" if columns else ""
    order = f" ORDER BY id {direction} LIMIT {limit}" if limit and columns else ""
    sql = (
        "SELECT found.* FROM"
        " (SELECT :project_id::bigint AS project_id, :before::text AS before, :since::text AS since) AS asked"
        f"{keys} CROSS JOIN LATERAL (SELECT {what} FROM {table} WHERE {within}) AS found{order}"
    )
    of_keys = dict(zip(columns, (list(each) for each in zip(*source.keys, strict=True)), strict=False))
    return sql, {"project_id": source.project_id, **of_keys}


def events_with(patterns: Sequence[bytes]) -> tuple[str, dict[str, Any]]:
    return _EVENTS, {"texts": [_escaped(pattern) for pattern in patterns], **_PIECE}


def _escaped(data: bytes) -> str:
    """The bytes as PostgreSQL's format `escape` writes them."""
    return "".join(
        "\\\\" if byte == 0x5C else f"\\{byte:03o}" if byte == 0 or byte > 0x7F else chr(byte)
        for byte in data
    )


SEARCH_SQL = SearchSql(
    # What a run's own JSON says of it is in columns, set by each append, so that no statement reads JSON.
    # In capitals: in small letters it is the text of the time.
    now_ms="extract(epoch FROM NOW())::float8 * 1000",
    started_ms="started_ms",
    live_cost_usd="live_cost_usd",
    live_tokens="live_tokens",
    has_model="models && {}::text[]",
    is_recorded="models && {1}::text[]",
    has_tag="models && {1}::text[]",
    error="error",
    position="strpos",
    rows=rows_of,
    events=events_with,
    ids="string_agg(id, ',') FILTER (WHERE ok)",
)
