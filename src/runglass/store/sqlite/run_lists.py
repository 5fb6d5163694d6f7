"""The runs of a project as lists: by query in pages, counted by time, and those that have changed since.

How a query is searched for is in `query_index.py`, what it asks of a row in `query_condition.py`.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from runglass.store.list_records import (
    LISTING,
    ChangedRun,
    FoundRuns,
    Intervals,
    ListPosition,
    RunCounts,
    RunListing,
)
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.query_condition import condition_of
from runglass.store.sqlite.query_index import (
    Look,
    Source,
    after_itself,
    bounds_of,
    count,
    hits,
    oldest,
    sources_of,
)
from runglass.store.sqlite.text_search import TextSearch
from runglass.store.text_query import Progress
from runglass.wire.query import FIXED, RunQuery, Term, created_ms, first_id

COUNT_S = 0.1
"""So long one request counts runs."""
FIRST_COUNTED = 1000
MOST_COUNTS = 10_000
"""Parts of indexes times buckets, each of which is a statement of some microseconds."""

_FAILED = Term("status", ("failed",))

Result = TypeVar("Result")


class RunLists:
    """The part of the store that finds runs."""

    _db: Connections

    async def runs(
        self, project_id: int, query: RunQuery, *, after: ListPosition | None = None, limit: int
    ) -> FoundRuns:
        def work(db: sqlite3.Connection) -> FoundRuns:
            found, position = _page(db, project_id, query, after, limit)
            return FoundRuns(_listings(db, found), position, _last_change(db, project_id))

        return await self._at_one_moment(work)

    async def count_runs(
        self,
        project_id: int,
        query: RunQuery,
        *,
        until_ms: int,
        buckets: int,
        lengths_ms: Sequence[int] = (),
    ) -> RunCounts:
        def work(db: sqlite3.Connection) -> RunCounts:
            return _counts(db, project_id, query, until_ms, buckets, lengths_ms)

        return await self._at_one_moment(work)

    async def last_change(self, project_id: int) -> int:
        return await self._db.look_up(lambda db: _last_change(db, project_id))

    async def changed_runs(
        self, project_id: int, query: RunQuery, *, after: int, limit: int
    ) -> list[ChangedRun]:
        # The first condition is that of the index, which runs from before there were changes are not in.
        sql = (
            "SELECT change_no, no, id FROM run WHERE project_id = ? AND change_no > 0 AND change_no > ?"
            " ORDER BY change_no LIMIT ?"
        )

        def work(db: sqlite3.Connection) -> list[ChangedRun]:
            changed = db.execute(sql, (project_id, after, limit)).fetchall()
            ids = [run_id for _, _, run_id in changed]
            fixed = _meeting(db, query.only(FIXED), ids)
            meeting = _meeting(db, query, [run_id for run_id in ids if run_id in fixed])
            texts, look = TextSearch(query), Look()
            listed = {
                run_id
                for _, no, run_id in changed
                if run_id in meeting
                and (not texts.is_needed or texts.meets(db, no, Progress(), look) is True)
            }
            listings = {each.id: each for each in _listings(db, sorted(listed))}
            return [
                ChangedRun(number, run_id, listings.get(run_id), could_meet=run_id in fixed)
                for number, _, run_id in changed
            ]

        return await self._at_one_moment(work)

    async def _at_one_moment(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        def read(db: sqlite3.Connection) -> Result:
            with _snapshot(db):
                return work(db)

        return await self._db.read(read)


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """All reads in the block see the store as of one moment."""
    db.execute("BEGIN")
    with db:
        yield


def _last_change(db: sqlite3.Connection, project_id: int) -> int:
    sql = "SELECT coalesce(max(run_changes), 0) FROM project WHERE id = ?"
    return int(db.execute(sql, (project_id,)).fetchone()[0])


def _page(
    db: sqlite3.Connection, project_id: int, query: RunQuery, after: ListPosition | None, limit: int
) -> tuple[list[str], ListPosition | None]:
    """Ids of runs of the query, and where the next page begins if there may be one."""
    found: list[str] = []
    for match in _matches(db, project_id, query, after=after, first=limit + 1, look=Look()):
        if isinstance(match, ListPosition):
            return found, match
        if len(found) == limit:
            return found, ListPosition(found[-1])
        found.append(match)
    return found, None


def _matches(
    db: sqlite3.Connection,
    project_id: int,
    query: RunQuery,
    *,
    after: ListPosition | None,
    first: int,
    look: Look,
) -> Iterator[str | ListPosition]:
    """Ids of runs of the query, newest first; last how far it has come, if `look` was over before the end."""
    texts = TextSearch(query)
    since, before = bounds_of(query)
    progress = Progress()
    if after is not None:
        # Inside the log of a run the search goes on with that run, else with the one before it.
        before = min(before, after_itself(after.run_id) if after.seq else after.run_id)
        progress = Progress(after.seq, after.met)
    sources = sources_of(db, project_id, query)
    for run_id, is_hit in hits(db, sources, since=since, before=before, first=first, look=look):
        if not is_hit:
            yield ListPosition(run_id)
            return
        if not texts.is_needed:
            yield run_id
            continue
        own = progress if after is not None and run_id == after.run_id else Progress()
        (no,) = db.execute("SELECT no FROM run WHERE id = ?", (run_id,)).fetchone()
        meets = texts.meets(db, no, own, look)
        if isinstance(meets, Progress):
            yield ListPosition(run_id, *meets)
            return
        if meets:
            yield run_id
        if look.is_over:
            yield ListPosition(run_id)
            return


def _listings(db: sqlite3.Connection, ids: Sequence[str]) -> list[RunListing]:
    """The rows of these runs, newest first."""
    marks = ", ".join("?" * len(ids))
    rows = db.execute(f"{LISTING} WHERE id IN ({marks}) ORDER BY id DESC", tuple(ids))
    return [RunListing._make(row) for row in rows]


def _meeting(db: sqlite3.Connection, query: RunQuery, ids: Sequence[str]) -> set[str]:
    """Those of the runs that meet the query, but for its texts."""
    condition = condition_of(query)
    if condition is None:
        return set(ids)
    marks = ", ".join("?" * len(ids))
    rows = db.execute(
        f"SELECT id FROM run WHERE id IN ({marks}) AND {condition.sql}", (*ids, *condition.values)
    )
    return {row[0] for row in rows}


def _counts(
    db: sqlite3.Connection,
    project_id: int,
    query: RunQuery,
    until_ms: int,
    buckets: int,
    lengths_ms: Sequence[int],
) -> RunCounts:
    look = Look(COUNT_S)
    since_ms, bound_ms = query.created_bounds_ms()
    until_ms = until_ms if bound_ms is None else min(until_ms, bound_ms)
    since, _ = bounds_of(query)
    sources = sources_of(db, project_id, query)
    failed = sources_of(db, project_id, query.plus(_FAILED))
    if not since_ms:
        first = oldest(db, sources, since=since)
        since_ms = until_ms if first is None else min(created_ms(first), until_ms)
    from_ms, bucket_ms, number_of = Intervals.over(since_ms, until_ms, most=buckets, lengths_ms=lengths_ms)
    counts = RunCounts(from_ms, bucket_ms, [0] * number_of, [0] * number_of)
    if query.of_field("text") or (len(sources) + len(failed)) * number_of > MOST_COUNTS:
        return _counts_one_by_one(db, project_id, query, counts)
    for number in range(number_of - 1, -1, -1):
        low = first_id(max(from_ms + number * bucket_ms, since_ms))
        high = first_id(min(from_ms + (number + 1) * bucket_ms, until_ms))
        met, reached = _count(db, sources, since=low, before=high, look=look)
        # Those that failed are among them: what was not reached there is not to be counted here.
        failures, _ = _count(db, failed, since=reached or low, before=high, look=Look(COUNT_S))
        counts.runs[number], counts.failed[number] = met, failures
        if reached is None and number and look.is_over:
            reached = low
        if reached is not None:
            return counts._replace(counted_from_ms=created_ms(reached))
    return counts


def _count(
    db: sqlite3.Connection, sources: Sequence[Source], *, since: str, before: str, look: Look
) -> tuple[int, str | None]:
    """How many runs the sources have; and where the counting ended, if before the end."""
    found = 0
    for number, source in enumerate(sources, 1):
        met, reached = count(db, source, since=since, before=before, look=look)
        found += met
        if len(sources) == 1:
            return found, reached
        # The others may not have come as far: then none of it counts.
        if reached is not None or (number < len(sources) and look.is_over):
            return 0, before
    return found, None


def _counts_one_by_one(
    db: sqlite3.Connection, project_id: int, query: RunQuery, counts: RunCounts
) -> RunCounts:
    """As many as can be gone through in the time, the newest first."""
    bounded = counts
    for wanted, numbers in ((query, counts.runs), (query.plus(_FAILED), counts.failed)):
        look = Look(COUNT_S)
        for match in _matches(db, project_id, wanted, after=None, first=FIRST_COUNTED, look=look):
            if isinstance(match, ListPosition) or look.is_over:
                reached = match.run_id if isinstance(match, ListPosition) else match
                from_ms = max(created_ms(reached), bounded.counted_from_ms or 0)
                bounded = bounded._replace(counted_from_ms=from_ms)
                break
            number = (created_ms(match) - counts.from_ms) // counts.bucket_ms
            numbers[min(max(number, 0), len(numbers) - 1)] += 1
    return bounded
