"""How the PostgreSQL store performs the work that both kinds of store share, and reads pages."""

import re
from collections.abc import Mapping
from functools import lru_cache
from inspect import isawaitable
from typing import Any, TypeVar

from runglass.store.postgres.connections import Db
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
            elif isinstance(step, tuple):
                rows = await db.fetch(in_postgres(step[0]), *step[1:])
            else:
                rows = step(db)
                rows = await rows if isawaitable(rows) else rows
    except StopIteration as end:
        result = end.value
    return result


async def _result_of(ask: Ask[Shape], db: Db) -> Shape:
    sql, values = ask.sql, ask.values
    if isinstance(values, Mapping):
        sql, names = with_numbers(sql)
        return ask.result(await db.fetch(sql, *[values[name] for name in names]))
    return ask.result(await db.fetch(in_postgres(sql), *values))


@lru_cache(maxsize=512)
def with_numbers(sql: str) -> tuple[str, list[str]]:
    """The statement as PostgreSQL has it, with `$1`, `$2`, … for the values of these names."""
    names = list(dict.fromkeys(_NAME.findall(sql)))
    numbered = _NAME.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
    return in_postgres(numbered), names


@lru_cache(maxsize=512)
def in_postgres(sql: str) -> str:
    """The statement as PostgreSQL has it. `now()` is a text; a time to reckon with is CURRENT_TIMESTAMP."""
    return sql.replace("?", "$").replace("now()", NOW)


async def page(db: Db, sql: str, run_no: int, after: int, *, limit_bytes: int) -> list[tuple[int, bytes]]:
    """The first rows, each a number and its data: one at least if there is one, about `limit_bytes`.

    `sql` selects number and data of the run `?1` behind number `?2`, in order.
    """
    sized = (
        "SELECT number, data FROM (SELECT number, data, sum(length(data)) OVER (ORDER BY number)"
        f" - length(data) AS before FROM ({in_postgres(sql)} LIMIT {PIECE_ROWS}) AS rows (number, data))"
        " AS sized WHERE before < $3 ORDER BY number"
    )
    found: list[tuple[int, bytes]] = []
    left = limit_bytes
    while True:
        rows = await db.fetch(sized, run_no, after, left)
        found += [(number, data) for number, data in rows]
        left -= sum(len(data) for _, data in rows)
        if len(rows) < PIECE_ROWS or left <= 0:
            return found
        after = found[-1][0]


async def first_rows(db: Db, sql: str, *values: Any, limit_bytes: int) -> list[Any]:
    """The first rows, each with its bytes at the end: one at least if there is one, about `limit_bytes`."""
    found, size = [], 0
    for row in await db.fetch(in_postgres(sql), *values):
        found.append(row)
        size += row[-1]
        if size >= limit_bytes:
            break
    return found
