"""Which indexes find the runs of a query, newest first, and how far one request may look.

A query that one index serves is one search. Where it names status, flow, trigger and version together, runs
come from `run_by_group`, in which those that have all four in common are a group: one search for each group
that the query allows, merged. What no index knows is tested on the rows that come, some milliseconds long;
then the search says how far it has come, and the next request goes on from there.
"""

import sqlite3
import time
from collections.abc import Iterator
from heapq import merge
from typing import Any, NamedTuple, get_args

from runglass.log.trace import RunStatus
from runglass.store.sqlite.query_condition import Condition, condition_of
from runglass.wire.query import Field, RunQuery, Term, first_id

LOOK_S = 0.03
"""So long one request looks at rows that may not be what it wants."""
FIRST_ROWS = 100
MOST_ROWS = 100_000
"""Rows are looked at in pieces, larger and larger as long as a piece takes less than a part of the time."""
QUICK_S = 0.003
MOST_HITS = 200
"""Rows in one answer of SQLite."""
MOST_SEEKS = 4000
"""Steps through the index of groups, some microseconds each; a query that needs more is a scan."""

ABOVE_ALL = "~"
"""Comes after every id."""

_GROUP: dict[Field, str] = {
    "flow": "flow_id",
    "status": "status",
    "trigger": "trigger_type",
    "version": "version",
}
"""The columns of `run_by_group` between project and id, in their order."""
_FAILED = Term("status", ("failed", "cancelled"))


class Look:
    """The time that one request has for looking at rows. The first piece is always looked at."""

    def __init__(self, seconds: float | None = None) -> None:
        self._until_s = time.monotonic() + (LOOK_S if seconds is None else seconds)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until_s


class Source(NamedTuple):
    """A part of an index that has its rows by id, and what they must meet beside being in it."""

    name: str
    where: str
    values: tuple[Any, ...]
    condition: Condition | None


class Hit(NamedTuple):
    """A run that meets the query; or where `is_hit` is false, how far the search has come."""

    run_id: str
    is_hit: bool


def sources_of(db: sqlite3.Connection, project_id: int, query: RunQuery) -> list[Source]:
    """The parts of indexes that together have all runs of the query, each run once."""
    if any(term.field == "error" and not term.negated for term in query.terms):
        query = query.plus(_FAILED)
    own, rest = "project_id = ?", query.without(["created"])
    sessions = query.words_of("session")
    if sessions is not None:
        condition = condition_of(rest.without(["session"]))
        where = f"{own} AND session_id = ?"
        return [Source("run_by_session", where, (project_id, each), condition) for each in sessions]
    restricted = {term.field for term in query.terms} & set(_GROUP)
    flows = query.words_of("flow")
    if restricted == {"status"}:
        statuses = [each for each in get_args(RunStatus) if query.allows("status", each)]
        condition = condition_of(rest.without(["status"]))
        where = f"{own} AND status = ?"
        return [Source("run_by_status", where, (project_id, each), condition) for each in statuses]
    if restricted - {"flow"} or (restricted and flows is None):
        groups = _groups(db, project_id, query)
        if groups is not None:
            where = " AND ".join([own, *(f"{column} = ?" for column in _GROUP.values())])
            condition = condition_of(rest.without(_GROUP))
            return [Source("run_by_group", where, (project_id, *each), condition) for each in groups]
    if flows is not None:
        where, condition = f"{own} AND flow_id = ?", condition_of(rest.without(["flow"]))
        return [Source("run_by_flow", where, (project_id, each), condition) for each in flows]
    return [Source("run_by_project", own, (project_id,), condition_of(rest))]


def hits(
    db: sqlite3.Connection, sources: list[Source], *, since: str, before: str, first: int, look: Look
) -> Iterator[Hit]:
    """The runs of the sources, newest first, from below id `before` down to id `since`.

    `first` is about how many will be taken. The last item is no hit where `look` is over before the end.
    """
    rows = 1 + (FIRST_ROWS + first) // max(1, len(sources))
    streams = [_hits_of(db, source, since, before, rows) for source in sources]
    for hit in merge(*streams, reverse=True):
        if hit.is_hit:
            yield hit
        elif look.is_over:
            yield hit
            return


def count(
    db: sqlite3.Connection, source: Source, *, since: str, before: str, look: Look
) -> tuple[int, str | None]:
    """How many runs of the source there are from id `since` to below `before`, counted from the newest.

    And the id that it has come to, where `look` was over before the end.
    """
    condition = source.condition
    if condition is None:
        # Twenty million in a second: pieces would take twice as long.
        sql = f"SELECT count(*) FROM run INDEXED BY {source.name} WHERE {source.where} AND id < ? AND id >= ?"
        return int(db.execute(sql, (*source.values, before, since)).fetchone()[0]), None
    sql = (
        f"SELECT count(*), coalesce(sum(ok), 0), min(id) FROM (SELECT id, ({condition.sql}) AS ok FROM run"
        f" INDEXED BY {source.name} WHERE {source.where} AND id < ? AND id >= ? ORDER BY id DESC LIMIT ?)"
    )
    found, rows = 0, FIRST_ROWS
    while True:
        began_s = time.monotonic()
        values = (*condition.values, *source.values, before, since, rows)
        looked, met, last = db.execute(sql, values).fetchone()
        found += met
        if looked < rows:
            return found, None
        if look.is_over:
            return found, last
        before, rows = last, _next_rows(rows, began_s)


def oldest(db: sqlite3.Connection, sources: list[Source], *, since: str) -> str | None:
    """The id of the oldest run in the sources, whether or not it meets their conditions."""
    found: list[str] = []
    for source in sources:
        part = f"run INDEXED BY {source.name} WHERE {source.where}"
        rows = db.execute(f"SELECT id FROM {part} AND id >= ? ORDER BY id LIMIT 1", (*source.values, since))
        found += [row[0] for row in rows]
    return min(found, default=None)


def _hits_of(db: sqlite3.Connection, source: Source, since: str, before: str, rows: int) -> Iterator[Hit]:
    """The hits of one source, and after each piece how far it has come: other sources may be behind."""
    select = f"SELECT id FROM run INDEXED BY {source.name} WHERE {source.where} AND id < ?"
    newest = "ORDER BY id DESC LIMIT ?"
    condition = source.condition
    if condition is None:
        while True:
            page = db.execute(
                f"{select} AND id >= ? {newest}", (*source.values, before, since, rows)
            ).fetchall()
            yield from (Hit(row[0], is_hit=True) for row in page)
            if len(page) < rows:
                return
            before, rows = page[-1][0], min(rows * 4, MOST_HITS)
    piece = f"{select} AND id >= ? {newest} OFFSET ?"
    met = f"{select} AND id >= ? AND {condition.sql} {newest}"
    while True:
        began_s = time.monotonic()
        end = db.execute(piece, (*source.values, before, since, 1, rows - 1)).fetchone()
        last = since if end is None else end[0]
        values = (*source.values, before, last, *condition.values, MOST_HITS)
        page = db.execute(met, values).fetchall()
        yield from (Hit(row[0], is_hit=True) for row in page)
        if len(page) == MOST_HITS:
            before = page[-1][0]
            continue
        if end is None:
            return
        before = last
        yield Hit(before, is_hit=False)
        rows = _next_rows(rows, began_s)


def _next_rows(rows: int, began_s: float) -> int:
    quick = time.monotonic() - began_s < QUICK_S
    return min(rows * 4, MOST_ROWS) if quick else rows


def _groups(db: sqlite3.Connection, project_id: int, query: RunQuery) -> list[tuple[Any, ...]] | None:
    """The groups that have runs and are allowed by the query; None where finding them takes too long."""
    fields, columns = list(_GROUP), list(_GROUP.values())
    found: list[tuple[Any, ...]] = []
    pending: list[tuple[Any, ...]] = [()]
    seeks = 0
    while pending:
        known = pending.pop()
        if len(known) == len(columns):
            found.append(known)
            continue
        field, column = fields[len(known)], columns[len(known)]
        named = query.words_of(field)
        if named is not None:
            pending += [(*known, word) for word in named]
            continue
        same = "".join(f" AND {each} = ?" for each in columns[: len(known)])
        sql = (
            f"SELECT {column} FROM run INDEXED BY run_by_group WHERE project_id = ?{same} AND {column} > ?"
            f" ORDER BY {column} LIMIT 1"
        )
        value: Any = -1 if column == "version" else ""
        while True:
            seeks += 1
            if seeks > MOST_SEEKS:
                return None
            row = db.execute(sql, (project_id, *known, value)).fetchone()
            if row is None:
                break
            value = row[0]
            if query.allows(field, value):
                pending.append((*known, value))
    return found


def after_itself(run_id: str) -> str:
    """What comes after the id, and before every other one that does."""
    return f"{run_id}\x01"


def bounds_of(query: RunQuery) -> tuple[str, str]:
    """The lowest id of a run of the query, and one that is above all of them."""
    since_ms, until_ms = query.created_bounds_ms()
    return first_id(since_ms) if since_ms else "", ABOVE_ALL if until_ms is None else first_id(until_ms)
