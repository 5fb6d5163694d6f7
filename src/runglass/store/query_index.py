"""Which index finds the runs of a query, newest first, and how far one request may look.

A query that names flow, status, trigger or version together finds its runs in `run_by_group`, in which those
that have all four in common are a group: one search for each group that the query allows, merged by the
database. A text of an error is looked for in `run_error`, whose rows are narrow. What no index knows is
tested on the rows that come, some milliseconds long; then the search says how far it has come, and the next
request goes on from there, be it in the log of a run. Capital and small letters of ASCII are the same in a
text.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, NamedTuple, get_args

import msgspec

from runglass.log.trace import RunStatus
from runglass.store.query_condition import SearchSql, condition_of
from runglass.store.records import ListPosition
from runglass.store.statements import Ask, Steps, as_int, fetch, one
from runglass.wire.query import HIDES_PLAIN, Field, RunQuery, first_id, kind_of

MOST_ROWS = 20_000
"""Rows are looked at in pieces, larger and larger as long as a piece takes less than a part of the time."""
QUICK_S = 0.005
MOST_KEYS = 300
"""A query that needs more searches at once is tested on the rows of a wider one."""
GROUP: dict[Field, str] = {
    "flow": "flow_id",
    "status": "status",
    "trigger": "trigger_type",
    "version": "version",
}
"""The columns of the index `run_by_group` between project and id, in their order."""
ABOVE_ALL = "~"
"""Comes after every id."""
SEARCHED_FIELDS = (
    "inputData",
    "output",
    "outputData",
    "result",
    "error",
    "reason",
    "modelCall.request",
    "modelCall.response",
    "toolCallMessages",
    "blockOverrides",
    "inputOverrides",
)
"""Where events have content. Fields that repeat what another one has are left out."""


class SearchLimits(NamedTuple):
    """How far one request searches for runs."""

    look_s: float = 0.03
    """So long it looks at rows that may not be what it wants."""
    count_s: float = 0.1
    """So long it counts runs."""
    first_rows: int = 100
    """Rows are looked at in pieces: in the first one so many, and as many as are wanted."""
    most_groups: int = 4000
    """Looks into the index of groups, some microseconds each; a query that needs more looks at all rows."""


USUAL = SearchLimits()


class SearchedTexts:
    """The texts that a run must have, and must not have, each with its bit in `ListPosition.met`.

    `patterns` has them as they stand inside strings of JSON, in small letters.
    """

    def __init__(self, query: RunQuery, own: SearchSql) -> None:
        terms = query.of_field("text")
        self.patterns = [msgspec.json.encode(term.words[0])[1:-1].lower() for term in terms]
        self._wanted = sum(1 << number for number, term in enumerate(terms) if not term.negated)
        self._unwanted = sum(1 << number for number, term in enumerate(terms) if term.negated)
        self._events, self._values = own.events(self.patterns)

    @property
    def is_needed(self) -> bool:
        """Whether there are any."""
        return bool(self.patterns)

    def meets(self, run_no: int, begun: ListPosition, look: Look) -> Steps[bool | ListPosition]:
        """Whether the run meets the terms; or how far its log was searched when `look` was over."""
        run_id, seq, met = begun
        while rows := (yield fetch(self._events, run_no=run_no, seq=seq, **self._values)):
            for _, data in rows:
                met |= 0 if data is None else self._met_in(data)
                if met & self._unwanted:
                    return False
                if not self._unwanted and met == self._wanted:
                    return True
            seq = rows[-1][0]
            if look.is_over:
                return ListPosition(run_id, seq, met)
        return met & self._wanted == self._wanted

    def _met_in(self, event: bytes) -> int:
        """The bits of the texts that the content of an event has."""
        try:
            fields = _fields(event)
            call = _fields(fields["modelCall"]) if "modelCall" in fields else {}
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return 0
        fields |= {f"modelCall.{name}": value for name, value in call.items()}
        found = [bytes(fields[name]) for name in SEARCHED_FIELDS if name in fields]
        content = b" ".join(each for each in found if each != b"null").lower()
        return sum(1 << number for number, pattern in enumerate(self.patterns) if pattern in content)


def _fields(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw] | None) or {}


class Look:
    """The time that one request has for looking at rows. The first piece is always looked at."""

    def __init__(self, limits: SearchLimits, seconds: float) -> None:
        self.limits = limits
        self._until_s = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until_s


def bounds_of(query: RunQuery) -> tuple[str, str]:
    """The lowest id of a run of the query, and one that is above all of them."""
    since_ms, until_ms = query.created_bounds_ms()
    return first_id(since_ms) if since_ms else "", ABOVE_ALL if until_ms is None else first_id(until_ms)


class Source(NamedTuple):
    """Parts of an index that together have all runs of a query once, and what these must meet beside that.

    Each key has values of the `columns`, and a run has one of the keys. `values` are those that the condition
    names.
    """

    project_id: int
    name: str
    columns: tuple[str, ...]
    keys: list[tuple[Any, ...]]
    condition: str | None
    values: dict[str, Any]

    @property
    def table(self) -> str:
        return "run_error" if self.name == "run_error" else "run"


def source_of(project_id: int, query: RunQuery, own: SearchSql, limits: SearchLimits) -> Steps[Source]:
    """Where the runs of the query are found."""
    values: dict[str, Any] = {}
    if HIDES_PLAIN in query.terms:
        sql = "SELECT 1 FROM recorded_trace WHERE project_id = :project_id AND plain_at IS NOT NULL LIMIT 1"
        if not (yield fetch(sql, project_id=project_id)):
            query = RunQuery(tuple(term for term in query.terms if term != HIDES_PLAIN))
    rest = query.without(["created"])
    sessions, flows = query.words_of("session"), query.words_of("flow")
    statuses = [each for each in get_args(RunStatus) if query.allows("status", each)]
    restricted = {"trigger" if term.field == "kind" else term.field for term in query.terms} & set(GROUP)
    is_one_column = restricted == {"status"} or (restricted == {"flow"} and flows is not None)
    found: tuple[str, list[Field], list[tuple[Any, ...]]] | None = None
    if sessions is not None:
        found = "run_by_session", ["session"], [(each,) for each in sessions]
    elif any(term.field == "error" and not term.negated for term in query.terms):
        narrow = ["error", "kind", *GROUP]
        condition = condition_of(rest.only(narrow), own._replace(error="error"), values)
        others = condition_of(rest.without(narrow), own, values)
        if others is not None:
            # Behind the error, and no EXISTS, which PostgreSQL may answer by going through all runs once.
            condition = f"{condition} AND (SELECT {others} FROM run WHERE no = run_error.run_no)"
        return Source(project_id, "run_error", (), [()], condition, values)
    elif restricted and not is_one_column:
        most, allows = limits.most_groups, cache(query.allows)
        groups = yield _groups(project_id, query, most + 1)
        allowed = [
            tuple(group)
            for group in groups
            if all(allows(field, value) for field, value in zip(GROUP, group, strict=True))
            and allows("kind", kind_of(group[2]))
        ]
        if len(groups) <= most and len(allowed) <= MOST_KEYS:
            found, rest = ("run_by_group", list(GROUP), allowed), rest.without(["kind"])
    if found is None and "status" in restricted:
        found = "run_by_status", ["status"], [(each,) for each in statuses]
    elif found is None and flows is not None:
        found = "run_by_flow", ["flow"], [(each,) for each in flows]
    if found is None or len(found[2]) > MOST_KEYS:
        found = "run_by_project", [], [()]
    name, fields, keys = found
    columns = tuple("session_id" if field == "session" else GROUP[field] for field in fields)
    return Source(project_id, name, columns, keys, condition_of(rest.without(fields), own, values), values)


def _groups(project_id: int, query: RunQuery, most: int) -> Ask[list[Any]]:
    """The groups of the project that have runs, without those that lack a value that the query names.

    From one value of a column to the next, each by a look into the index, and so on with the next column.
    """
    values: dict[str, Any] = {"project_id": project_id, "most": most}
    columns, tables = list(GROUP.values()), list[str]()
    before, where = "(SELECT id AS flow_id FROM flow WHERE project_id = :project_id)", "true"
    for number, (field, column) in enumerate(GROUP.items()):
        if number:
            known = ", ".join(columns[:number])
            same = "".join(f" AND {each} = before.{each}" for each in columns[:number])
            least = f"(SELECT min({column}) FROM run WHERE project_id = :project_id{same}"
            tables.append(
                f"of_{column} ({known}, {column}) AS ("
                f"SELECT {known}, {least}) FROM {before} AS before WHERE {where}"
                f" UNION ALL SELECT {known}, {least} AND {column} > before.{column})"
                f" FROM of_{column} AS before WHERE {column} IS NOT NULL)"
            )
            before = f"of_{column}"
        words = query.words_of(field)
        if words is not None:
            values[column] = words
        where = f"{column} IS NOT NULL" if words is None else f"{column} = ANY (:{column})"
    sql = f"WITH RECURSIVE {', '.join(tables)} SELECT * FROM {before} WHERE {where} LIMIT :most"
    return fetch(sql, **values)


def piece(
    own: SearchSql, source: Source, what: str, *, since: str, before: str, rows: int
) -> Ask[tuple[int, str, Any]]:
    """How many rows there were to look at, at most so many, the id of the last one, and what came of them."""
    looked, values = own.rows(source, f"id, ({source.condition or 'true'}) AS ok", rows)
    return Ask(
        f"SELECT count(*), min(id), {what} FROM ({looked}) AS looked",
        {**values, **source.values, "since": since, "before": before},
        lambda found: tuple(found[0]),
    )


def next_rows(rows: int, began_s: float) -> int:
    """How many rows to look at after a piece of so many that was begun then."""
    quick = time.monotonic() - began_s < QUICK_S
    return min(rows * 4, MOST_ROWS) if quick else rows


def count(
    own: SearchSql, source: Source, *, since: str, before: str, look: Look
) -> Steps[tuple[int, str | None]]:
    """How many runs of the source there are from id `since` to below `before`, counted from the newest.

    And the id that it has come to, where `look` was over before the end.
    """
    if not source.keys:
        return 0, None
    if source.condition is None:
        # Pieces would take twice as long.
        every, values = own.rows(source, "id", None)
        sql = f"SELECT count(*) FROM ({every}) AS found"
        return (yield one(as_int, sql, **values, since=since, before=before)), None
    found, rows = 0, look.limits.first_rows
    while True:
        began_s = time.monotonic()
        looked, last, met = yield piece(
            own, source, "count(*) FILTER (WHERE ok)", since=since, before=before, rows=rows
        )
        found += met
        if looked < rows:
            return found, None
        if look.is_over:
            return found, last
        before, rows = last, next_rows(rows, began_s)


def oldest(own: SearchSql, source: Source, *, since: str) -> Steps[str | None]:
    """The id of the oldest run in the source, whether or not it meets its condition."""
    if not source.keys:
        return None
    sql, values = own.rows(source, "id", 1, newest=False)
    found: str | None = yield one(lambda row: row[0], sql, **values, since=since, before=ABOVE_ALL)
    return found
