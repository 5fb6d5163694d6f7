"""The runs of a project as lists: by query in pages, counted by time, and those that have changed since.

How a query is searched for is in `query_index.py`, what it asks of a row in `query_condition.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from runglass.store.query_condition import SearchSql, condition_of
from runglass.store.query_index import (
    Look,
    SearchedTexts,
    SearchLimits,
    Source,
    bounds_of,
    count,
    next_rows,
    oldest,
    piece,
    source_of,
)
from runglass.store.records import ChangedRun, FoundRuns, ListPosition, RunCounts, RunListing
from runglass.store.statements import Ask, Steps, StorePart, as_int, every, fetch, one
from runglass.wire.query import FIXED, TOLD_LATER, RunQuery, Term, created_ms, first_id

LISTING = (
    "SELECT id, flow_id, status, trigger_type, summary, (SELECT slug FROM flow WHERE flow.id = flow_id),"
    " version, session_id, ended_at, duration_ms FROM run"
)
"""Selects a `RunListing`."""
FIRST_COUNTED = 1000

_FAILED = Term("status", ("failed",))


class RunLists(StorePart):
    """The part of the store that finds runs.

    `_search_sql` is what the kind of store says in its own way, and `_search` says how far one request goes.
    """

    _search_sql: SearchSql
    _search: SearchLimits

    async def runs(
        self, project_id: int, query: RunQuery, *, after: ListPosition | None = None, limit: int
    ) -> FoundRuns:
        """The project's runs that meet the query, newest first, from behind `after` on.

        Takes some hundredths of a second at most: a page of a query that would take longer is not full.
        """

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
            return FoundRuns(listings, position, (yield self._last_change(project_id)) or 0)

        return await self._read_at_one_moment(work)

    async def count_runs(
        self,
        project_id: int,
        query: RunQuery,
        *,
        until_ms: int,
        buckets: int,
        lengths_ms: Sequence[int] = (),
    ) -> RunCounts:
        """How many runs meet the query, in intervals of equal length by when they were created.

        From the time that the query names, or else that of the first run that may meet it, up to before
        `until_ms`. There are `buckets` intervals, or, where one of the lengths is long enough, as few as that
        one takes, which begin at its multiples. Takes some tenths of a second at most.
        """
        own, limits = self._search_sql, self._search

        def work() -> Steps[RunCounts]:
            look = Look(limits, limits.count_s)
            since_ms, bound_ms = query.created_bounds_ms()
            end_ms = until_ms if bound_ms is None else min(until_ms, bound_ms)
            since, _ = bounds_of(query)
            source: Source = yield from source_of(project_id, query, own, limits)
            failed: Source = yield from source_of(project_id, query.plus(_FAILED), own, limits)
            if not since_ms:
                first = yield from oldest(own, source, since=since)
                since_ms = end_ms if first is None else min(created_ms(first), end_ms)
            counts = _no_counts(since_ms, end_ms, most=buckets, lengths_ms=lengths_ms)
            from_ms, bucket_ms = counts.from_ms, counts.bucket_ms
            if query.of_field("text"):
                return (yield from self._counts_one_by_one(project_id, query, counts))
            for number in reversed(range(len(counts.runs))):
                low = first_id(max(from_ms + number * bucket_ms, since_ms))
                high = first_id(min(from_ms + (number + 1) * bucket_ms, end_ms))
                met, reached = yield from count(own, source, since=low, before=high, look=look)
                # Those that failed are among them: what was not reached there is not to be counted here.
                since = reached or low
                patient = Look(limits, limits.count_s)
                failures, _ = yield from count(own, failed, since=since, before=high, look=patient)
                counts.runs[number], counts.failed[number] = met, failures
                if reached is None and number and look.is_over:
                    reached = low
                if reached is not None:
                    return counts._replace(counted_from_ms=created_ms(reached))
            return counts

        return await self._read_at_one_moment(work)

    async def last_change(self, project_id: int) -> int:
        """The number of the newest change of the project's runs; 0 where there was none yet."""
        return await self._look_up(self._last_change(project_id)) or 0

    def _last_change(self, project_id: int) -> Ask[int | None]:
        sql = f"SELECT last FROM ({self._sql.changes}) AS changes WHERE project_id = :project_id"
        return one(as_int, sql, project_id=project_id)

    async def changed_runs(
        self, project_id: int, query: RunQuery, *, after: int, limit: int
    ) -> list[ChangedRun]:
        """The project's runs whose newest change has a number above `after`, by that number.

        A change is that a run is created or that its status changes. They are numbered in the order of
        their commits, and no reader sees a number before all lower ones. Texts are looked for as long as
        `runs` does; a run for which that is too short does not meet the query.
        """
        # The first condition is that of an index, which runs from before there were changes are not in.
        newer = fetch(
            "SELECT change_no, no, id, trigger_type FROM run WHERE project_id = :project_id AND change_no > 0"
            " AND change_no > :after ORDER BY change_no LIMIT :limit",
            project_id=project_id,
            after=after,
            limit=limit,
        )

        def work() -> Steps[list[ChangedRun]]:
            changed = yield newer
            could_meet = yield from self._meeting(query.only(FIXED), [row[2] for row in changed])
            meeting = yield from self._meeting(query, [row[2] for row in changed if row[2] in could_meet])
            # These may have met it before their spans told more.
            recorded = [row[2] for row in changed if row[3] == "recorded" and row[2] not in could_meet]
            if recorded:
                could_meet |= yield from self._meeting(query.only(FIXED - TOLD_LATER), recorded)
            texts, look = SearchedTexts(query, self._search_sql), Look(self._search, self._search.look_s)
            listed = []
            for _, no, run_id, _ in changed:
                if run_id in meeting and (
                    not texts.is_needed or (yield from texts.meets(no, ListPosition(run_id), look)) is True
                ):
                    listed.append(run_id)
            listings = {each.id: each for each in (yield from _listings(listed))}
            return [
                ChangedRun(number, run_id, listings.get(run_id), could_meet=run_id in could_meet)
                for number, _, run_id, _ in changed
            ]

        return await self._read_at_one_moment(work)

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
        own = self._search_sql
        texts = SearchedTexts(query, own)
        since, before = bounds_of(query)
        if after is not None:
            # Inside the log of a run the search goes on with that run, else with the one before it.
            itself = "\x01" if after.seq else ""
            before = min(before, after.run_id + itself)
        source: Source = yield from source_of(project_id, query, own, look.limits)
        rows = look.limits.first_rows + first
        while source.keys:
            began_s = time.monotonic()
            looked, last, ids = yield piece(own, source, own.ids, since=since, before=before, rows=rows)
            for run_id in sorted(ids.split(",") if ids else (), reverse=True):
                if texts.is_needed:
                    begun = after if after and run_id == after.run_id else ListPosition(run_id)
                    no = yield one(as_int, "SELECT no FROM run WHERE id = :id", id=run_id)
                    meets = yield from texts.meets(no, begun, look)
                    if isinstance(meets, ListPosition):
                        return meets
                    if (meets and not take(run_id)) or look.is_over:
                        return ListPosition(run_id)
                elif not take(run_id):
                    return ListPosition(run_id)
            if looked < rows:
                return None
            if source.condition is not None and look.is_over:
                return ListPosition(last)
            before, rows = last, next_rows(rows, began_s)
        return None

    def _meeting(self, query: RunQuery, ids: Sequence[str]) -> Steps[set[str]]:
        """Those of the runs that meet the query, but for its texts."""
        values: dict[str, Any] = {}
        condition = condition_of(query, self._search_sql, values) or "true"
        sql = f"SELECT id FROM run WHERE id = ANY (:ids) AND {condition}"
        return {row[0] for row in (yield fetch(sql, ids=list(ids), **values))}

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


def _no_counts(since_ms: int, until_ms: int, *, most: int, lengths_ms: Sequence[int]) -> RunCounts:
    for length_ms in lengths_ms:
        from_ms = since_ms // length_ms * length_ms
        number = max(1, -(-(until_ms - from_ms) // length_ms))
        if number <= most:
            return RunCounts(from_ms, length_ms, [0] * number, [0] * number)
    return RunCounts(since_ms, max(1, -(-(until_ms - since_ms) // most)), [0] * most, [0] * most)


def _count_one(run_id: str, *, counts: RunCounts, numbers: list[int], look: Look) -> bool:
    """Counts the run in its interval, where there is time left."""
    if look.is_over:
        return False
    number = (created_ms(run_id) - counts.from_ms) // counts.bucket_ms
    numbers[min(max(number, 0), len(numbers) - 1)] += 1
    return True


def _listings(ids: Sequence[str]) -> Steps[list[RunListing]]:
    """The rows of these runs, newest first."""
    found: list[RunListing] = yield every(
        RunListing._make, f"{LISTING} WHERE id = ANY (:ids) ORDER BY id DESC", ids=list(ids)
    )
    return found
