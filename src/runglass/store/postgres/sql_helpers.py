"""How the PostgreSQL store asks: a statement and the shape of its rows become work for a connection."""

from collections.abc import Callable
from functools import lru_cache
from inspect import isawaitable
from typing import Any, TypeVar

from runglass.store.postgres.connections import Db, Work
from runglass.store.statements import Ask
from runglass.store.statements import Work as SharedWork

Shape = TypeVar("Shape")

NOW = """to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
"""When the transaction began, by the clock of the database; as all texts of times: ISO, UTC, milliseconds."""
PIECE_ROWS = 500
"""Rows whose sizes are added up at once, to find those that fit into a page."""


async def perform(work: SharedWork[Shape], db: Db) -> Shape:
    """The result of work that both kinds of store share."""
    result: Shape
    if isinstance(work, Ask):
        result = work.result(await db.fetch(in_postgres(work.sql), *work.values))
        return result
    # A generator is made with each try.
    steps, rows = work(), None
    try:
        while True:
            step: Any = steps.send(rows)
            if isinstance(step, tuple):
                rows = await db.fetch(in_postgres(step[0]), *step[1:])
            else:
                rows = step(db)
                rows = await rows if isawaitable(rows) else rows
    except StopIteration as end:
        result = end.value
    return result


@lru_cache(maxsize=512)
def in_postgres(sql: str) -> str:
    """The statement as PostgreSQL has it."""
    return sql.replace("?", "$").replace("now()", NOW)


def one(shape: Callable[[Any], Shape], sql: str, *values: Any) -> Work[Shape | None]:
    """The first row."""

    async def work(db: Db) -> Shape | None:
        row = await db.fetchrow(sql, *values)
        return None if row is None else shape(row)

    return work


def every(shape: Callable[[Any], Shape], sql: str, *values: Any) -> Work[list[Shape]]:
    """All rows."""

    async def work(db: Db) -> list[Shape]:
        return [shape(row) for row in await db.fetch(sql, *values)]

    return work


def changed(sql: str, *values: Any) -> Work[int]:
    """How many rows the statement changed."""

    async def work(db: Db) -> int:
        return rows_of(await db.execute(sql, *values))

    return work


def rows_of(status: str) -> int:
    """How many rows a statement with this answer changed, as `UPDATE 3`."""
    return int(status.rpartition(" ")[2])


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
