"""The runs of a project as lists: by query in pages, counted by time, and those that have changed since.

How a query is searched for is in `query_index.py`, what it asks of a row in `query_condition.py`.
"""

from collections.abc import AsyncIterator, Sequence

from runglass.store.list_records import (
    LISTING,
    ChangedRun,
    FoundRuns,
    Intervals,
    ListPosition,
    RunCounts,
    RunListing,
)
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.query_condition import condition_of
from runglass.store.postgres.query_index import Look, after_itself, bounds_of, count, hits, oldest, source_of
from runglass.store.postgres.sql_helpers import numbered
from runglass.store.postgres.text_search import TextSearch
from runglass.store.text_query import Progress
from runglass.wire.query import FIXED, RunQuery, Term, created_ms, first_id

COUNT_S = 0.1
"""So long one request counts runs."""
FIRST_COUNTED = 1000

_FAILED = Term("status", ("failed",))


class RunLists:
    """The part of the store that finds runs."""

    _db: Connections

    async def runs(
        self, project_id: int, query: RunQuery, *, after: ListPosition | None = None, limit: int
    ) -> FoundRuns:
        async def work(db: Db) -> FoundRuns:
            found, position = await _page(db, project_id, query, after, limit)
            return FoundRuns(await _listings(db, found), position, await _last_change(db, project_id))

        return await self._db.read_at_one_moment(work)

    async def count_runs(
        self,
        project_id: int,
        query: RunQuery,
        *,
        until_ms: int,
        buckets: int,
        lengths_ms: Sequence[int] = (),
    ) -> RunCounts:
        async def work(db: Db) -> RunCounts:
            return await _counts(db, project_id, query, until_ms, buckets, lengths_ms)

        return await self._db.read_at_one_moment(work)

    async def last_change(self, project_id: int) -> int:
        return await self._db.read(lambda db: _last_change(db, project_id))

    async def changed_runs(
        self, project_id: int, query: RunQuery, *, after: int, limit: int
    ) -> list[ChangedRun]:
        sql = (
            "SELECT change_no, no, id FROM run WHERE project_id = $1 AND change_no > $2"
            " ORDER BY change_no LIMIT $3"
        )

        async def work(db: Db) -> list[ChangedRun]:
            changed = await db.fetch(sql, project_id, after, limit)
            fixed = await _meeting(db, query.only(FIXED), [run_id for _, _, run_id in changed])
            meeting = await _meeting(db, query, [run_id for _, _, run_id in changed if run_id in fixed])
            texts, look = TextSearch(query), Look()
            listed = [
                run_id
                for _, no, run_id in changed
                if run_id in meeting
                and (not texts.is_needed or await texts.meets(db, no, Progress(), look) is True)
            ]
            listings = {each.id: each for each in await _listings(db, listed)}
            return [
                ChangedRun(number, run_id, listings.get(run_id), could_meet=run_id in fixed)
                for number, _, run_id in changed
            ]

        return await self._db.read_at_one_moment(work)


async def _last_change(db: Db, project_id: int) -> int:
    sql = "SELECT last FROM project_change WHERE project_id = $1"
    return int(await db.fetchval(sql, project_id) or 0)


async def _page(
    db: Db, project_id: int, query: RunQuery, after: ListPosition | None, limit: int
) -> tuple[list[str], ListPosition | None]:
    """Ids of runs of the query, and where the next page begins if there may be one."""
    found: list[str] = []
    async for match in _matches(db, project_id, query, after=after, first=limit + 1, look=Look()):
        if isinstance(match, ListPosition):
            return found, match
        if len(found) == limit:
            return found, ListPosition(found[-1])
        found.append(match)
    return found, None


async def _matches(
    db: Db,
    project_id: int,
    query: RunQuery,
    *,
    after: ListPosition | None,
    first: int,
    look: Look,
) -> AsyncIterator[str | ListPosition]:
    """Ids of runs of the query, newest first; last how far it has come, if `look` was over before the end."""
    texts = TextSearch(query)
    since, before = bounds_of(query)
    progress = Progress()
    if after is not None:
        # Inside the log of a run the search goes on with that run, else with the one before it.
        before = min(before, after_itself(after.run_id) if after.seq else after.run_id)
        progress = Progress(after.seq, after.met)
    source = await source_of(db, project_id, query)
    async for run_id, is_hit in hits(db, source, since=since, before=before, first=first, look=look):
        if not is_hit:
            yield ListPosition(run_id)
            return
        if not texts.is_needed:
            yield run_id
            continue
        own = progress if after is not None and run_id == after.run_id else Progress()
        meets = await texts.meets(
            db, await db.fetchval("SELECT no FROM run WHERE id = $1", run_id), own, look
        )
        if isinstance(meets, Progress):
            yield ListPosition(run_id, *meets)
            return
        if meets:
            yield run_id
        if look.is_over:
            yield ListPosition(run_id)
            return


async def _listings(db: Db, ids: Sequence[str]) -> list[RunListing]:
    """The rows of these runs, newest first."""
    rows = await db.fetch(f"{LISTING} WHERE id = ANY ($1) ORDER BY id DESC", list(ids))
    return [RunListing._make(row) for row in rows]


async def _meeting(db: Db, query: RunQuery, ids: Sequence[str]) -> set[str]:
    """Those of the runs that meet the query, but for its texts."""
    condition = condition_of(query)
    if condition is None:
        return set(ids)
    sql = numbered(f"SELECT id FROM run WHERE id = ANY (?) AND {condition.sql}")
    return {row[0] for row in await db.fetch(sql, list(ids), *condition.values)}


async def _counts(
    db: Db, project_id: int, query: RunQuery, until_ms: int, buckets: int, lengths_ms: Sequence[int]
) -> RunCounts:
    look = Look(COUNT_S)
    since_ms, bound_ms = query.created_bounds_ms()
    until_ms = until_ms if bound_ms is None else min(until_ms, bound_ms)
    since, _ = bounds_of(query)
    source = await source_of(db, project_id, query)
    failed = await source_of(db, project_id, query.plus(_FAILED))
    if not since_ms:
        first = await oldest(db, source, since=since)
        since_ms = until_ms if first is None else min(created_ms(first), until_ms)
    from_ms, bucket_ms, number_of = Intervals.over(since_ms, until_ms, most=buckets, lengths_ms=lengths_ms)
    counts = RunCounts(from_ms, bucket_ms, [0] * number_of, [0] * number_of)
    if query.of_field("text"):
        return await _counts_one_by_one(db, project_id, query, counts)
    for number in range(number_of - 1, -1, -1):
        low = first_id(max(from_ms + number * bucket_ms, since_ms))
        high = first_id(min(from_ms + (number + 1) * bucket_ms, until_ms))
        met, reached = await count(db, source, since=low, before=high, look=look)
        # Those that failed are among them: what was not reached there is not to be counted here.
        failures, _ = await count(db, failed, since=reached or low, before=high, look=Look(COUNT_S))
        counts.runs[number], counts.failed[number] = met, failures
        if reached is None and number and look.is_over:
            reached = low
        if reached is not None:
            return counts._replace(counted_from_ms=created_ms(reached))
    return counts


async def _counts_one_by_one(db: Db, project_id: int, query: RunQuery, counts: RunCounts) -> RunCounts:
    """As many as can be gone through in the time, the newest first."""
    bounded = counts
    for wanted, numbers in ((query, counts.runs), (query.plus(_FAILED), counts.failed)):
        look = Look(COUNT_S)
        async for match in _matches(db, project_id, wanted, after=None, first=FIRST_COUNTED, look=look):
            if isinstance(match, ListPosition) or look.is_over:
                reached = match.run_id if isinstance(match, ListPosition) else match
                from_ms = max(created_ms(reached), bounded.counted_from_ms or 0)
                bounded = bounded._replace(counted_from_ms=from_ms)
                break
            number = (created_ms(match) - counts.from_ms) // counts.bucket_ms
            numbers[min(max(number, 0), len(numbers) - 1)] += 1
    return bounded
