"""Which indexes find the runs of a query, newest first, and how far one request may look.

A query that one index serves is one search. Where it names status, flow, trigger and version together, runs
come from `run_by_group`, in which those that have all four in common are a group: one search for each group
that the query allows, merged. What no index knows is tested on the rows that come, some milliseconds long;
then the search says how far it has come, and the next request goes on from there. Texts are looked for in
logs event by event.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple, get_args

from runglass.log.trace import RunStatus
from runglass.store.query_condition import Condition
from runglass.store.query_search import (
    FAILED,
    GROUP,
    SEARCHED_FIELDS,
    Hit,
    Look,
    Progress,
    SearchedTexts,
    SearchLimits,
)
from runglass.store.sqlite.query_condition import condition_of
from runglass.wire.query import RunQuery

MOST_ROWS = 100_000
"""Rows are looked at in pieces, larger and larger as long as a piece takes less than a part of the time."""
QUICK_S = 0.003
_FIELDS = " || ' ' || ".join(
    f"ifnull(nullif(json_quote(json_extract(data, '$.{path}')), 'null'), '')" for path in SEARCHED_FIELDS
)
# First the bytes as they are: few events have the text anywhere, and only those are read as JSON. LIKE would
# begin anew at each character: two thousand times `a` and a `b` in a large event, and it takes 0.3 s.
_HAS = (
    "(instr(lower(CAST(data AS TEXT)), ?) > 0 AND CASE WHEN json_valid(CAST(data AS TEXT)) THEN"
    f" instr(lower({_FIELDS.replace('(data', '(CAST(data AS TEXT)')}), ?) > 0 ELSE 0 END)"
)
# So does `instr`, though ten times as fast: no matter for a short text, and Python looks for the others.
_HAS_LONG = _HAS.replace("instr(lower(", "has_bytes(CAST(lower(").replace("), ?) > 0", ") AS BLOB), ?)")
_LONG = 64


class Source(NamedTuple):
    """A part of an index that has its rows by id, and what they must meet beside being in it."""

    name: str
    where: str
    values: tuple[Any, ...]
    condition: Condition | None


def source_of(db: sqlite3.Connection, project_id: int, query: RunQuery, limits: SearchLimits) -> list[Source]:
    """The parts of indexes that together have all runs of the query, each run once."""
    if any(term.field == "error" and not term.negated for term in query.terms):
        query = query.plus(FAILED)
    own, rest = "project_id = ?", query.without(["created"])
    sessions = query.words_of("session")
    if sessions is not None:
        condition = condition_of(rest.without(["session"]))
        where = f"{own} AND session_id = ?"
        return [Source("run_by_session", where, (project_id, each), condition) for each in sessions]
    restricted = {term.field for term in query.terms} & set(GROUP)
    flows = query.words_of("flow")
    if restricted == {"status"}:
        statuses = [each for each in get_args(RunStatus) if query.allows("status", each)]
        condition = condition_of(rest.without(["status"]))
        where = f"{own} AND status = ?"
        return [Source("run_by_status", where, (project_id, each), condition) for each in statuses]
    if restricted - {"flow"} or (restricted and flows is None):
        groups = _groups(db, project_id, query, limits.most_groups)
        if groups is not None:
            where = " AND ".join([own, *(f"{column} = ?" for column in GROUP.values())])
            condition = condition_of(rest.without(GROUP))
            return [Source("run_by_group", where, (project_id, *each), condition) for each in groups]
    if flows is not None:
        where, condition = f"{own} AND flow_id = ?", condition_of(rest.without(["flow"]))
        return [Source("run_by_flow", where, (project_id, each), condition) for each in flows]
    return [Source("run_by_project", own, (project_id,), condition_of(rest))]


def hits(
    db: sqlite3.Connection, sources: Sequence[Source], *, since: str, before: str, first: int, look: Look
) -> Iterator[Hit]:
    """The runs of the sources, newest first, from below id `before` down to id `since`.

    `first` is about how many will be taken. The last item is no hit where `look` is over before the end.
    """
    rows = 1 + (look.limits.first_rows + first) // max(1, len(sources))
    streams = [_hits_of(db, source, since, before, rows, look.limits.most_hits) for source in sources]
    for hit in merge(*streams, reverse=True):
        if hit.is_hit:
            yield hit
        elif look.is_over:
            yield hit
            return


def count(
    db: sqlite3.Connection, source: Sequence[Source], *, since: str, before: str, look: Look
) -> tuple[int, str | None]:
    """How many runs of the sources there are from id `since` to below `before`, counted from the newest.

    And the id that it has come to, where `look` was over before the end.
    """
    found = 0
    for number, each in enumerate(source, 1):
        met, reached = _count(db, each, since=since, before=before, look=look)
        found += met
        if len(source) == 1:
            return found, reached
        # The others may not have come as far: then none of it counts.
        if reached is not None or (number < len(source) and look.is_over):
            return 0, before
    return found, None


def _count(
    db: sqlite3.Connection, source: Source, *, since: str, before: str, look: Look
) -> tuple[int, str | None]:
    condition = source.condition
    if condition is None:
        # Twenty million in a second: pieces would take twice as long.
        sql = f"SELECT count(*) FROM run INDEXED BY {source.name} WHERE {source.where} AND id < ? AND id >= ?"
        return int(db.execute(sql, (*source.values, before, since)).fetchone()[0]), None
    sql = (
        f"SELECT count(*), coalesce(sum(ok), 0), min(id) FROM (SELECT id, ({condition.sql}) AS ok FROM run"
        f" INDEXED BY {source.name} WHERE {source.where} AND id < ? AND id >= ? ORDER BY id DESC LIMIT ?)"
    )
    found, rows = 0, look.limits.first_rows
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


def next_hits(found: Iterator[Hit], most: int) -> list[Hit]:
    """The next of the hits, none after the last one."""
    return list(islice(found, most))


def searches_in(source: Sequence[Source]) -> int:
    """How many statements one look into the source takes."""
    return len(source)


def oldest(db: sqlite3.Connection, sources: Sequence[Source], *, since: str) -> str | None:
    """The id of the oldest run in the sources, whether or not it meets their conditions."""
    found: list[str] = []
    for source in sources:
        part = f"run INDEXED BY {source.name} WHERE {source.where}"
        rows = db.execute(f"SELECT id FROM {part} AND id >= ? ORDER BY id LIMIT 1", (*source.values, since))
        found += [row[0] for row in rows]
    return min(found, default=None)


def _hits_of(
    db: sqlite3.Connection, source: Source, since: str, before: str, rows: int, most: int
) -> Iterator[Hit]:
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
            before, rows = page[-1][0], min(rows * 4, most)
    piece = f"{select} AND id >= ? {newest} OFFSET ?"
    met = f"{select} AND id >= ? AND {condition.sql} {newest}"
    while True:
        began_s = time.monotonic()
        end = db.execute(piece, (*source.values, before, since, 1, rows - 1)).fetchone()
        last = since if end is None else end[0]
        values = (*source.values, before, last, *condition.values, most)
        page = db.execute(met, values).fetchall()
        yield from (Hit(row[0], is_hit=True) for row in page)
        if len(page) == most:
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


def _groups(
    db: sqlite3.Connection, project_id: int, query: RunQuery, most_seeks: int
) -> list[tuple[Any, ...]] | None:
    """The groups that have runs and are allowed by the query; None where finding them takes too long."""
    fields, columns = list(GROUP), list(GROUP.values())
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
            if seeks > most_seeks:
                return None
            row = db.execute(sql, (project_id, *known, value)).fetchone()
            if row is None:
                break
            value = row[0]
            if query.allows(field, value):
                pending.append((*known, value))
    return found


class TextSearch(SearchedTexts):
    """Searched in the log of a run."""

    def __init__(self, query: RunQuery) -> None:
        super().__init__(query)
        self._parameters = [_parameter(pattern) for pattern in self.patterns]

    def meets(self, db: sqlite3.Connection, run_no: int, progress: Progress, look: Look) -> bool | Progress:
        """Whether the run meets the terms; or how far it was searched when `look` was over."""
        seq, met = progress
        db.create_function("has_bytes", 2, _has_bytes, deterministic=True)
        columns = ", ".join(_HAS_LONG if isinstance(each, bytes) else _HAS for each in self._parameters)
        sql = f"SELECT seq, {columns} FROM event WHERE run_no = ? AND seq > ? ORDER BY seq"
        patterns = [pattern for pattern in self._parameters for _ in range(2)]
        rows = db.execute(sql, (*patterns, run_no, seq))
        try:
            for seq, *found in rows:
                met |= sum(1 << number for number, has in enumerate(found) if has)
                verdict = self.verdict(met)
                if verdict is not None:
                    return verdict
                if look.is_over:
                    return Progress(seq, met)
        finally:
            # An unfinished SELECT would hold its read transaction open, and with it the log of the file.
            rows.close()
        return self.at_the_end(met)


def _parameter(pattern: bytes) -> str | bytes:
    """The text as SQLite is to have it: as bytes where it is long."""
    text = pattern.decode()
    return pattern if len(text) > _LONG else text


def _has_bytes(data: bytes, pattern: bytes) -> bool:
    # As texts of as many characters: among bytes, too, the search would begin anew at each.
    return pattern.decode("latin-1") in data.decode("latin-1")
