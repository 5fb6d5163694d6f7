"""The runs of a project as lists: by query in pages, counted by time, and those that have changed since.

How a query is searched for is in `query_index.py` of each kind of store, what it asks of a row in
`query_condition.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from runglass.store.dialect import Dialect
from runglass.store.list_records import (
    LISTING,
    ChangedRun,
    FoundRuns,
    Intervals,
    ListPosition,
    RunCounts,
    RunListing,
)
from runglass.store.query_search import Look, Progress, SearchLimits, after_itself, bounds_of
from runglass.store.statements import Statements, Steps, as_int, fetch, numbered, one
from runglass.wire.query import FIXED, RunQuery, Term, created_ms, first_id

FIRST_COUNTED = 1000

_FAILED = Term("status", ("failed",))


class RunLists:
    """The part of the store that finds runs.

    `_index` is the module `query_index` of the kind of store, and `_search` says how far one
    request goes.
    """

    _statements: Statements
    _index: Any
    _sql: Dialect
    _search: SearchLimits

    async def runs(
        self, project_id: int, query: RunQuery, *, after: ListPosition | None = None, limit: int
    ) -> FoundRuns:
        def work() -> Steps[FoundRuns]:
            found: list[str] = []

            def take(run_id: str) -> bool:
                found.append(run_id)
                return len(found) <= limit

            look = Look(self._search, self._search.look_s)
            position = yield from self._matches(
                project_id, query, take, after=after, first=limit + 1, look=look
            )
            if len(found) > limit:
                found.pop()
                position = ListPosition(found[-1])
            listings = yield from _listings(found)
            [row] = yield fetch(self._sql.last_change, project_id=project_id)
            return FoundRuns(listings, position, as_int(row))

        return await self._statements.read_at_one_moment(work)

    async def count_runs(
        self,
        project_id: int,
        query: RunQuery,
        *,
        until_ms: int,
        buckets: int,
        lengths_ms: Sequence[int] = (),
    ) -> RunCounts:
        index, limits = self._index, self._search

        def counting(source: Any, since: str, before: str, look: Look) -> Callable[[Any], Any]:
            return lambda db: index.count(db, source, since=since, before=before, look=look)

        def work() -> Steps[RunCounts]:
            look = Look(limits, limits.count_s)
            since_ms, bound_ms = query.created_bounds_ms()
            end_ms = until_ms if bound_ms is None else min(until_ms, bound_ms)
            since, _ = bounds_of(query)
            source = yield lambda db: index.source_of(db, project_id, query, limits)
            failed = yield lambda db: index.source_of(db, project_id, query.plus(_FAILED), limits)
            if not since_ms:
                first = yield lambda db: index.oldest(db, source, since=since)
                since_ms = end_ms if first is None else min(created_ms(first), end_ms)
            from_ms, bucket_ms, number_of = Intervals.over(
                since_ms, end_ms, most=buckets, lengths_ms=lengths_ms
            )
            counts = RunCounts(from_ms, bucket_ms, [0] * number_of, [0] * number_of)
            searches = index.searches_in(source) + index.searches_in(failed)
            if query.of_field("text") or searches * number_of > limits.most_counts:
                return (yield from self._counts_one_by_one(project_id, query, counts))
            for number in range(number_of - 1, -1, -1):
                low = first_id(max(from_ms + number * bucket_ms, since_ms))
                high = first_id(min(from_ms + (number + 1) * bucket_ms, end_ms))
                met, reached = yield counting(source, low, high, look)
                # Those that failed are among them: what was not reached there is not to be counted here.
                own = Look(limits, limits.count_s)
                failures, _ = yield counting(failed, reached or low, high, own)
                counts.runs[number], counts.failed[number] = met, failures
                if reached is None and number and look.is_over:
                    reached = low
                if reached is not None:
                    return counts._replace(counted_from_ms=created_ms(reached))
            return counts

        return await self._statements.read_at_one_moment(work)

    async def last_change(self, project_id: int) -> int:
        return await self._statements.look_up(one(as_int, self._sql.last_change, project_id=project_id)) or 0

    async def changed_runs(
        self, project_id: int, query: RunQuery, *, after: int, limit: int
    ) -> list[ChangedRun]:
        # The first condition is that of an index, which runs from before there were changes are not in.
        sql = (
            "SELECT change_no, no, id FROM run WHERE project_id = ?1 AND change_no > 0 AND change_no > ?2"
            " ORDER BY change_no LIMIT ?3"
        )

        def work() -> Steps[list[ChangedRun]]:
            changed = yield sql, project_id, after, limit
            fixed = yield from self._meeting(query.only(FIXED), [run_id for _, _, run_id in changed])
            meeting = yield from self._meeting(query, [run_id for _, _, run_id in changed if run_id in fixed])
            texts, look = self._index.TextSearch(query), Look(self._search, self._search.look_s)
            listed = []
            for _, no, run_id in changed:
                if run_id in meeting and (
                    not texts.is_needed
                    or (yield partial(texts.meets, run_no=no, progress=Progress(), look=look)) is True
                ):
                    listed.append(run_id)
            listings = {each.id: each for each in (yield from _listings(listed))}
            return [
                ChangedRun(number, run_id, listings.get(run_id), could_meet=run_id in fixed)
                for number, _, run_id in changed
            ]

        return await self._statements.read_at_one_moment(work)

    def _matches(
        self,
        project_id: int,
        query: RunQuery,
        take: Callable[[str], bool],
        *,
        after: ListPosition | None,
        first: int,
        look: Look,
    ) -> Steps[ListPosition | None]:
        """Gives `take` ids of runs of the query, newest first, until it refuses one.

        Returns how far it has come, that one included, where that or `look` was over before the end.
        """
        index = self._index
        texts = index.TextSearch(query)
        since, before = bounds_of(query)
        progress = Progress()
        if after is not None:
            # Inside the log of a run the search goes on with that run, else with the one before it.
            before = min(before, after_itself(after.run_id) if after.seq else after.run_id)
            progress = Progress(after.seq, after.met)
        source = yield lambda db: index.source_of(db, project_id, query, look.limits)
        hits = yield lambda db: index.hits(db, source, since=since, before=before, first=first, look=look)
        most = 1 if texts.is_needed else first
        while found := (yield lambda db: index.next_hits(hits, most)):
            for run_id, is_hit in found:
                if not is_hit:
                    return ListPosition(run_id)
                if texts.is_needed:
                    own = progress if after is not None and run_id == after.run_id else Progress()
                    [(no,)] = yield "SELECT no FROM run WHERE id = ?1", run_id
                    meets = yield partial(texts.meets, run_no=no, progress=own, look=look)
                    if isinstance(meets, Progress):
                        return ListPosition(run_id, *meets)
                    if (meets and not take(run_id)) or look.is_over:
                        return ListPosition(run_id)
                elif not take(run_id):
                    return ListPosition(run_id)
        return None

    def _meeting(self, query: RunQuery, ids: Sequence[str]) -> Steps[set[str]]:
        """Those of the runs that meet the query, but for its texts."""
        condition = self._index.condition_of(query)
        if condition is None:
            return set(ids)
        sql = f"SELECT id FROM run WHERE id = ANY (?1) AND {numbered(condition.sql, first=2)}"
        return {row[0] for row in (yield sql, list(ids), *condition.values)}

    def _counts_one_by_one(self, project_id: int, query: RunQuery, counts: RunCounts) -> Steps[RunCounts]:
        """As many as can be gone through in the time, the newest first."""
        for wanted, numbers in ((query, counts.runs), (query.plus(_FAILED), counts.failed)):
            look = Look(self._search, self._search.count_s)
            take = partial(_count_one, counts=counts, numbers=numbers, look=look)
            reached = yield from self._matches(
                project_id, wanted, take, after=None, first=FIRST_COUNTED, look=look
            )
            if reached is not None:
                from_ms = max(created_ms(reached.run_id), counts.counted_from_ms or 0)
                counts = counts._replace(counted_from_ms=from_ms)
        return counts


def _count_one(run_id: str, *, counts: RunCounts, numbers: list[int], look: Look) -> bool:
    """Counts the run in its interval, where there is time left."""
    if look.is_over:
        return False
    number = (created_ms(run_id) - counts.from_ms) // counts.bucket_ms
    numbers[min(max(number, 0), len(numbers) - 1)] += 1
    return True


def _listings(ids: Sequence[str]) -> Steps[list[RunListing]]:
    """The rows of these runs, newest first."""
    rows = yield f"{LISTING} WHERE id = ANY (?1) ORDER BY id DESC", list(ids)
    return [RunListing._make(row) for row in rows]
