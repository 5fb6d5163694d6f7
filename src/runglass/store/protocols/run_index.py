"""Runs as lists: by query, by session, by what has changed, and how many have not ended."""

from collections.abc import Sequence
from typing import Protocol

from runglass.store.list_records import ChangedRun, FoundRuns, ListPosition, RunCounts
from runglass.store.overview import StoreOverview
from runglass.store.records import RunRecord
from runglass.wire.query import RunQuery


class RunIndex(Protocol):
    """The runs of a project, found and counted."""

    async def runs(
        self, project_id: int, query: RunQuery, *, after: ListPosition | None = None, limit: int
    ) -> FoundRuns:
        """The project's runs that meet the query, newest first, from behind `after` on.

        Takes some hundredths of a second at most: a page of a query that would take longer is not full.
        """

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
        `until_ms`. The intervals are `Intervals.over` this time. Takes some tenths of a second at most.
        """

    async def last_change(self, project_id: int) -> int:
        """The number of the newest change of the project's runs; 0 where there was none yet."""

    async def changed_runs(
        self, project_id: int, query: RunQuery, *, after: int, limit: int
    ) -> list[ChangedRun]:
        """The project's runs whose newest change has a number above `after`, by that number.

        A change is that a run is created or that its status changes. They are numbered in the order of
        their commits, and no reader sees a number before all lower ones. Texts are looked for as long as
        `runs` does; a run for which that is too short does not meet the query.
        """

    async def session_runs(
        self, project_id: int, session_id: str, *, after: str, limit: int
    ) -> list[RunRecord]:
        """The first runs tagged with this session that come after run id `after`, oldest first.

        Plain ones are left out.
        """

    async def overview(self) -> StoreOverview:
        """How much has not ended, over all processes; costs a look-up for each project and status."""
