"""Which index finds the runs of a query, newest first, and how far one request may look.

Where a query names flow, status, trigger or version together, runs come from `run_by_group`, in which those
that have all four in common are a group: one search for each group that the query allows, merged by the
database. What no index knows is tested on the rows that come, some milliseconds long; then the search says
how far it has come, and the next request goes on from there.
"""

import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple, get_args

from runglass.log.trace import RunStatus
from runglass.store.postgres.connections import Db
from runglass.store.postgres.query_condition import Condition, condition_of
from runglass.store.postgres.sql_helpers import numbered
from runglass.wire.query import Field, RunQuery, Term, first_id

LOOK_S = 0.03
"""So long one request looks at rows that may not be what it wants."""
FIRST_ROWS = 100
MOST_ROWS = 20_000
"""Rows are looked at in pieces, larger and larger as long as a piece takes less than a part of the time."""
QUICK_S = 0.005
MOST_KEYS = 300
"""A query that needs more searches at once looks at all rows of its project."""
MOST_GROUPS = 4000
"""So does one of a project that has more groups: finding each is a look into the index."""

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
# From one group of a flow to the next, each by a look into the index.
_GROUPS = (
    "WITH RECURSIVE flows AS (SELECT id FROM flow WHERE project_id = $1"
    " AND ($2::text[] IS NULL OR id = ANY ($2))), groups AS ("
    "SELECT first.* FROM flows CROSS JOIN LATERAL (SELECT flow_id, status, trigger_type, version FROM run"
    " WHERE project_id = $1 AND flow_id = flows.id ORDER BY status, trigger_type, version LIMIT 1) AS first"
    " UNION ALL"
    " SELECT next.* FROM groups CROSS JOIN LATERAL (SELECT flow_id, status, trigger_type, version FROM run"
    " WHERE project_id = $1 AND flow_id = groups.flow_id AND (status, trigger_type, version)"
    " > (groups.status, groups.trigger_type, groups.version)"
    " ORDER BY status, trigger_type, version LIMIT 1) AS next"
    f") SELECT * FROM groups LIMIT {MOST_GROUPS + 1}"
)
_TYPES = {"version": "bigint"}


class Look:
    """The time that one request has for looking at rows. The first piece is always looked at."""

    def __init__(self, seconds: float | None = None) -> None:
        self._until_s = time.monotonic() + (LOOK_S if seconds is None else seconds)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until_s


class Source(NamedTuple):
    """Parts of an index that together have all runs of a query, and what these must meet beside that.

    Each key has values of the `columns`, and a run has one of the keys; without columns it is any run of
    the project.
    """

    project_id: int
    columns: tuple[str, ...]
    keys: list[tuple[Any, ...]]
    condition: Condition | None

    def select(self, what: str, *, rows: int | None, newest: bool = True) -> str:
        """A statement for runs from `since` to below `before`: the first `rows` of them by id, or all.

        Its parameters are `values`, then those of `what`.
        """
        order = f"ORDER BY id {'DESC' if newest else ''} LIMIT {rows}" if rows else ""
        same = "".join(f" AND run.{column} = key.{column}" for column in self.columns)
        unnested = ", ".join(f"?::{_TYPES.get(column, 'text')}[]" for column in self.columns)
        keys = f" CROSS JOIN unnest({unnested}) AS key ({', '.join(self.columns)})" if self.columns else ""
        return (
            "SELECT found.* FROM"
            " (SELECT ?::bigint AS project_id, ?::text AS before, ?::text AS since) AS asked"
            f"{keys} CROSS JOIN LATERAL (SELECT {what} FROM run WHERE run.project_id = asked.project_id"
            f" AND run.id < asked.before AND run.id >= asked.since{same} {order}) AS found {order}"
        )

    def values(self, before: str, since: str) -> tuple[Any, ...]:
        """The values of the parameters of `select`, but for those of `what`."""
        columns = [list(column) for column in zip(*self.keys, strict=True)] if self.columns else []
        return (self.project_id, before, since, *columns)

    @property
    def is_empty(self) -> bool:
        """Whether no run can be in it."""
        return bool(self.columns) and not self.keys


class Hit(NamedTuple):
    """A run that meets the query; or where `is_hit` is false, how far the search has come."""

    run_id: str
    is_hit: bool


async def source_of(db: Db, project_id: int, query: RunQuery) -> Source:
    """Where the runs of the query are found."""
    if any(term.field == "error" and not term.negated for term in query.terms):
        query = query.plus(_FAILED)
    rest = query.without(["created"])
    sessions, flows = query.words_of("session"), query.words_of("flow")
    restricted = {term.field for term in query.terms} & set(_GROUP)
    found: tuple[list[Field], list[tuple[Any, ...]]] | None = None
    if sessions is not None:
        found = ["session"], [(each,) for each in sessions]
    elif restricted == {"status"}:
        found = ["status"], [(each,) for each in get_args(RunStatus) if query.allows("status", each)]
    elif restricted == {"flow"} and flows is not None:
        found = ["flow"], [(each,) for each in flows]
    elif restricted and (groups := await _groups(db, project_id, query)) is not None:
        found = list(_GROUP), groups
    if found is None or len(found[1]) > MOST_KEYS:
        return Source(project_id, (), [], condition_of(rest))
    fields, keys = found
    columns = tuple("session_id" if field == "session" else _GROUP[field] for field in fields)
    return Source(project_id, columns, keys, condition_of(rest.without(fields)))


async def hits(
    db: Db, source: Source, *, since: str, before: str, first: int, look: Look
) -> AsyncIterator[Hit]:
    """The runs of the source, newest first, from below id `before` down to id `since`.

    `first` is about how many will be taken. The last item is no hit where `look` is over before the end.
    """
    rows = FIRST_ROWS + first
    while not source.is_empty:
        began_s = time.monotonic()
        looked, last, found = await _piece(
            db, source, "array_agg(id ORDER BY id DESC) FILTER (WHERE ok)", before, since, rows
        )
        for run_id in found or ():
            yield Hit(run_id, is_hit=True)
        if looked < rows:
            return
        if source.condition is not None and look.is_over:
            yield Hit(last, is_hit=False)
            return
        before, rows = last, _next_rows(rows, began_s)


async def count(db: Db, source: Source, *, since: str, before: str, look: Look) -> tuple[int, str | None]:
    """How many runs of the source there are from id `since` to below `before`, counted from the newest.

    And the id that it has come to, where `look` was over before the end.
    """
    if source.is_empty:
        return 0, None
    if source.condition is None:
        sql = numbered(f"SELECT count(*) FROM ({source.select('id', rows=None)}) AS found")
        return int(await db.fetchval(sql, *source.values(before, since))), None
    found, rows = 0, FIRST_ROWS
    while True:
        began_s = time.monotonic()
        looked, last, met = await _piece(db, source, "count(*) FILTER (WHERE ok)", before, since, rows)
        found += met
        if looked < rows:
            return found, None
        if look.is_over:
            return found, last
        before, rows = last, _next_rows(rows, began_s)


async def oldest(db: Db, source: Source, *, since: str) -> str | None:
    """The id of the oldest run in the source, whether or not it meets its condition."""
    if source.is_empty:
        return None
    sql = numbered(source.select("id", rows=1, newest=False))
    found: str | None = await db.fetchval(sql, *source.values(ABOVE_ALL, since))
    return found


async def _piece(
    db: Db, source: Source, what: str, before: str, since: str, rows: int
) -> tuple[int, str, Any]:
    """How many rows there were to look at, the id of the last one, and what came of them."""
    condition = source.condition or Condition("true")
    looked = source.select(f"id, ({condition.sql}) AS ok", rows=rows)
    sql = numbered(f"SELECT count(*), min(id), {what} FROM ({looked}) AS looked")
    count_, last, found = await db.fetchrow(sql, *source.values(before, since), *condition.values)
    return int(count_), last, found


def _next_rows(rows: int, began_s: float) -> int:
    quick = time.monotonic() - began_s < QUICK_S
    return min(rows * 4, MOST_ROWS) if quick else rows


async def _groups(db: Db, project_id: int, query: RunQuery) -> list[tuple[Any, ...]] | None:
    """The groups that have runs and are allowed by the query; None where there are too many to be told."""
    groups = [tuple(row) for row in await db.fetch(_GROUPS, project_id, query.words_of("flow"))]
    if len(groups) > MOST_GROUPS:
        return None
    return [
        group
        for group in groups
        if all(query.allows(field, value) for field, value in zip(_GROUP, group, strict=True))
    ]


def after_itself(run_id: str) -> str:
    """What comes after the id, and before every other one that does."""
    return f"{run_id}\x01"


def bounds_of(query: RunQuery) -> tuple[str, str]:
    """The lowest id of a run of the query, and one that is above all of them."""
    since_ms, until_ms = query.created_bounds_ms()
    return first_id(since_ms) if since_ms else "", ABOVE_ALL if until_ms is None else first_id(until_ms)
