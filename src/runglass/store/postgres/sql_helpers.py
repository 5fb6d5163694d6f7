"""How the PostgreSQL store performs the work that both kinds of store share, and reads pages."""

import re
from functools import lru_cache
from inspect import isawaitable
from typing import Any, TypeVar

from runglass.store.postgres.connections import Db
from runglass.store.run_tables import RowsOfRun
from runglass.store.statements import Ask, ForEach, Work

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
