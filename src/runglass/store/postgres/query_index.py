"""Which index finds the runs of a query, newest first, and how far one request may look.

Where a query names flow, status, trigger or version together, runs come from `run_by_group`, in which those
that have all four in common are a group: one search for each group that the query allows, merged by the
database. What no index knows is tested on the rows that come, some milliseconds long; then the search says
how far it has come, and the next request goes on from there.

More than 300 lines: the index, and what is asked of the rows that it gives, down to the texts of their logs.
"""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple, get_args

import msgspec

from runglass.log.trace import RunStatus
from runglass.store import query_condition
from runglass.store.postgres.append_rows import folded
from runglass.store.postgres.connections import Db
from runglass.store.postgres.sql_helpers import in_postgres
from runglass.store.query_condition import Condition, OwnTerms
from runglass.store.query_search import (
    ABOVE_ALL,
    FAILED,
    GROUP,
    SEARCHED_FIELDS,
    Hit,
    Look,
    Progress,
    SearchedTexts,
    SearchLimits,
)
from runglass.store.statements import numbered
from runglass.wire.query import Field, RunQuery

MOST_ROWS = 20_000
"""Rows are looked at in pieces, larger and larger as long as a piece takes less than a part of the time."""
QUICK_S = 0.005
MOST_KEYS = 300
"""A query that needs more searches at once looks at all rows of its project."""

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
    ") SELECT * FROM groups LIMIT $3"
)
_TYPES = {"version": "bigint"}
_PIECE_ROWS = 200
_PIECE_BYTES = 1 << 20
# First the bytes as they are, in the database: few events have the text anywhere, and only those are sent and
# read as JSON. Bytes that are not ASCII are compared as escapes, so that any bytes can be looked at.
_EVENTS = (
    "SELECT seq, CASE WHEN EXISTS (SELECT FROM unnest($5::text[]) AS text"
    """ WHERE strpos(lower(encode(data, 'escape') COLLATE "C"), text) > 0) THEN data END FROM ("""
    "SELECT seq, data, sum(length(data)) OVER (ORDER BY seq) - length(data) AS before"
    " FROM (SELECT seq, data FROM event WHERE run_no = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS rows"
    ") AS sized WHERE before < $4 ORDER BY seq"
)
# Those of ended runs are in the index by project and id; `duration_ms` says for all three whether they are
# set.
_TOKENS = "CASE WHEN duration_ms IS NOT NULL THEN tokens ELSE live_tokens END"
_COST = "CASE WHEN duration_ms IS NOT NULL THEN cost_usd ELSE live_cost_usd END"
# In capitals: in small letters it is the text of the time.
_NOW_MS = "extract(epoch FROM NOW())::float8 * 1000"
_DURATION = f"coalesce(duration_ms, CASE WHEN ended_at IS NULL THEN {_NOW_MS} - started_ms END)"
# What a run's own JSON says of it is in columns, set by each append, so that no statement reads JSON.
_OWN_TERMS = OwnTerms(
    numbers={"version": "version", "duration": _DURATION, "cost": _COST, "tokens": _TOKENS},
    model=lambda words: Condition("models && CAST(? AS text[])", ([folded(word) for word in words],)),
    error=lambda word: Condition("strpos(error, ?) > 0", (folded(word),)),
)
condition_of = partial(query_condition.condition_of, own=_OWN_TERMS)


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
        direction = "DESC" if newest else "ASC"
        order = f" ORDER BY id {direction} LIMIT {rows}" if rows and self.columns else ""
        same = "".join(f" AND run.{column} = key.{column}" for column in self.columns)
        within = (
            f"run.project_id = asked.project_id AND run.id < asked.before AND run.id >= asked.since{same}"
        )
        if rows:
            # As one value, in its order: else the index of ids alone has the order as well, and by that the
            # planner may go through the runs of all projects for a rare key.
            row = ", ".join(f"run.{column}" for column in ("project_id", *self.columns, "id"))
            key = ", ".join(("asked.project_id", *(f"key.{column}" for column in self.columns)))
            within = f"({row}) < ({key}, asked.before) AND ({row}) >= ({key}, asked.since)"
            within += " AND run.session_id IS NOT NULL" if "session_id" in self.columns else ""
            within += f" ORDER BY {row.replace(',', f' {direction},')} {direction} LIMIT {rows}"
        unnested = ", ".join(f"?::{_TYPES.get(column, 'text')}[]" for column in self.columns)
        keys = f" CROSS JOIN unnest({unnested}) AS key ({', '.join(self.columns)})" if self.columns else ""
        return (
            "SELECT found.* FROM"
            " (SELECT ?::bigint AS project_id, ?::text AS before, ?::text AS since) AS asked"
            f"{keys} CROSS JOIN LATERAL (SELECT {what} FROM run WHERE {within}) AS found{order}"
        )

    def values(self, before: str, since: str) -> tuple[Any, ...]:
        """The values of the parameters of `select`, but for those of `what`."""
        columns = [list(column) for column in zip(*self.keys, strict=True)] if self.columns else []
        return (self.project_id, before, since, *columns)

    @property
    def is_empty(self) -> bool:
        """Whether no run can be in it."""
        return bool(self.columns) and not self.keys


async def source_of(db: Db, project_id: int, query: RunQuery, limits: SearchLimits) -> Source:
    """Where the runs of the query are found."""
    if any(term.field == "error" and not term.negated for term in query.terms):
        query = query.plus(FAILED)
    rest = query.without(["created"])
    sessions, flows = query.words_of("session"), query.words_of("flow")
    restricted = {term.field for term in query.terms} & set(GROUP)
    found: tuple[list[Field], list[tuple[Any, ...]]] | None = None
    if sessions is not None:
        found = ["session"], [(each,) for each in sessions]
    elif restricted == {"status"}:
        found = ["status"], [(each,) for each in get_args(RunStatus) if query.allows("status", each)]
    elif restricted == {"flow"} and flows is not None:
        found = ["flow"], [(each,) for each in flows]
    elif restricted and (groups := await _groups(db, project_id, query, limits.most_groups)) is not None:
        found = list(GROUP), groups
    if found is None or len(found[1]) > MOST_KEYS:
        return Source(project_id, (), [], condition_of(rest))
    fields, keys = found
    columns = tuple("session_id" if field == "session" else GROUP[field] for field in fields)
    return Source(project_id, columns, keys, condition_of(rest.without(fields)))


async def hits(
    db: Db, source: Source, *, since: str, before: str, first: int, look: Look
) -> AsyncIterator[Hit]:
    """The runs of the source, newest first, from below id `before` down to id `since`.

    `first` is about how many will be taken. The last item is no hit where `look` is over before the end.
    """
    rows = look.limits.first_rows + first
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
        sql = in_postgres(numbered(f"SELECT count(*) FROM ({source.select('id', rows=None)}) AS found"))
        return int(await db.fetchval(sql, *source.values(before, since))), None
    found, rows = 0, look.limits.first_rows
    while True:
        began_s = time.monotonic()
        looked, last, met = await _piece(db, source, "count(*) FILTER (WHERE ok)", before, since, rows)
        found += met
        if looked < rows:
            return found, None
        if look.is_over:
            return found, last
        before, rows = last, _next_rows(rows, began_s)


async def next_hits(found: AsyncIterator[Hit], most: int) -> list[Hit]:
    """The next of the hits, none after the last one."""
    taken: list[Hit] = []
    while len(taken) < most and (hit := await anext(found, None)) is not None:
        taken.append(hit)
    return taken


def searches_in(source: Source) -> int:
    """How many statements one look into the source takes."""
    return 1


async def oldest(db: Db, source: Source, *, since: str) -> str | None:
    """The id of the oldest run in the source, whether or not it meets its condition."""
    if source.is_empty:
        return None
    sql = in_postgres(numbered(source.select("id", rows=1, newest=False)))
    found: str | None = await db.fetchval(sql, *source.values(ABOVE_ALL, since))
    return found


async def _piece(
    db: Db, source: Source, what: str, before: str, since: str, rows: int
) -> tuple[int, str, Any]:
    """How many rows there were to look at, the id of the last one, and what came of them."""
    condition = source.condition or Condition("true")
    looked = source.select(f"id, ({condition.sql}) AS ok", rows=rows)
    sql = in_postgres(numbered(f"SELECT count(*), min(id), {what} FROM ({looked}) AS looked"))
    count_, last, found = await db.fetchrow(sql, *source.values(before, since), *condition.values)
    return int(count_), last, found


def _next_rows(rows: int, began_s: float) -> int:
    quick = time.monotonic() - began_s < QUICK_S
    return min(rows * 4, MOST_ROWS) if quick else rows


async def _groups(db: Db, project_id: int, query: RunQuery, most: int) -> list[tuple[Any, ...]] | None:
    """The groups that have runs and are allowed by the query; None where there are too many to be told."""
    groups = [tuple(row) for row in await db.fetch(_GROUPS, project_id, query.words_of("flow"), most + 1)]
    if len(groups) > most:
        return None
    return [
        group
        for group in groups
        if all(query.allows(field, value) for field, value in zip(GROUP, group, strict=True))
    ]


class TextSearch(SearchedTexts):
    """Searched in the log of a run."""

    def __init__(self, query: RunQuery) -> None:
        super().__init__(query)
        self._escaped = [_escaped(pattern) for pattern in self.patterns]

    async def meets(self, db: Db, run_no: int, progress: Progress, look: Look) -> bool | Progress:
        """Whether the run meets the terms; or how far it was searched when `look` was over."""
        seq, met = progress
        while True:
            rows = await db.fetch(_EVENTS, run_no, seq, _PIECE_ROWS, _PIECE_BYTES, self._escaped)
            for number, data in rows:
                seq = number
                if data is not None:
                    met |= self._met_in(data)
                verdict = self.verdict(met)
                if verdict is not None:
                    return verdict
            if not rows:
                return self.at_the_end(met)
            if look.is_over:
                return Progress(seq, met)

    def _met_in(self, data: bytes) -> int:
        content = _content_of(data).lower()
        return sum(1 << number for number, pattern in enumerate(self.patterns) if pattern in content)


def _content_of(data: bytes) -> bytes:
    """The fields of the event with content, as JSON, with a space between."""
    try:
        fields = _fields(data)
        call = _fields(fields["modelCall"]) if "modelCall" in fields else {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return b""
    fields |= {f"modelCall.{name}": value for name, value in call.items()}
    found = [bytes(fields[name]) for name in SEARCHED_FIELDS if name in fields]
    return b" ".join(each for each in found if each != b"null")


def _fields(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw] | None) or {}


def _escaped(data: bytes) -> str:
    """The bytes as PostgreSQL's format `escape` writes them."""
    return "".join(
        "\\\\" if byte == 0x5C else f"\\{byte:03o}" if byte == 0 or byte > 0x7F else chr(byte)
        for byte in data
    )
