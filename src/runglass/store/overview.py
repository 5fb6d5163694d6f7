"""What a store holds as a whole, for those who watch it, and how far its runs have been sent on as spans.

There is no buffer of what waits to be sent, as the log has it.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from runglass.store.records import SpanCursor
from runglass.store.run_tables import IS_RECORDED
from runglass.store.statements import Steps, StorePart, changed, done, every, fetch
from runglass.wire.query import created_ms


class StoreOverview(NamedTuple):
    """What has not ended; `open_runs` by the names of projects and by status, without recorded ones."""

    open_runs: dict[tuple[str, str], int]
    waiting: int
    """Runs that no process has."""
    oldest_waiting_s: float
    """Age of the oldest of them, 0 where none waits."""
    leases: int
    unsent: int
    """Runs that have ended and wait to be sent on as spans, at most `MOST_UNSENT`."""
    oldest_unsent_s: float
    """How long ago the one of them that is next ended, 0 where none waits."""
    unsent_deleted: int
    """Runs that were deleted before they were sent."""


MOST_UNSENT = 10_000
"""More are not counted: each costs a look at its row."""
_UNSENT = (
    "WITH waits AS (SELECT ended_at FROM sent_run JOIN run ON run.project_id = sent_run.project_id"
    " AND run.change_no > sent_run.change_no AND run.change_no > 0 WHERE ended_at IS NOT NULL"
    f" AND NOT {IS_RECORDED} ORDER BY run.project_id, run.change_no LIMIT :most)"
    " SELECT (SELECT count(*) FROM waits), (SELECT min(ended_at) FROM waits),"
    " (SELECT coalesce(sum(deleted), 0) FROM sent_run)"
)


class PoolUse(NamedTuple):
    """Connections of a store in this process: in use, open, and the most that there may be."""

    busy: int
    open: int
    most: int


def _age_s(run_id: str | None, *, now: datetime) -> float:
    """How long before `now` the run with that id was created; 0 for one whose id does not say."""
    try:
        return 0.0 if run_id is None else max(0.0, now.timestamp() - created_ms(run_id) / 1000)
    except ValueError:
        return 0.0


class Overview(StorePart):
    """The part of the store that says how much there is to do, and to send."""

    async def overview(self) -> StoreOverview:
        """How much has not ended, over all processes; costs a look-up for each project and status."""
        sql = (
            "SELECT id, org || '/' || name, status, (SELECT count(*) FROM run WHERE project_id = project.id"
            " AND run.status = one.status) FROM project CROSS JOIN"
            " (SELECT 'pending' AS status UNION ALL SELECT 'running' UNION ALL SELECT 'paused') AS one"
        )
        # By themselves: an executed run is counted by an index alone, which does not have the trigger.
        recorded = (
            "SELECT run.project_id, status, count(*) FROM recorded_trace JOIN run ON no = run_no"
            " WHERE due_at IS NOT NULL GROUP BY run.project_id, status"
        )

        waits = (
            "SELECT (SELECT count(*) FROM queue),"
            " (SELECT id FROM run WHERE no = (SELECT min(run_no) FROM queue)),"
            f" (SELECT count(*) FROM lease WHERE expires_at > {self._sql.moment})"
        )

        def work() -> Steps[StoreOverview]:
            rows = yield fetch(sql)
            others = {(project_id, status): count for project_id, status, count in (yield fetch(recorded))}
            [(waiting, oldest, leases)] = yield fetch(waits)
            [(unsent, ended_at, deleted)] = yield fetch(_UNSENT, most=MOST_UNSENT)
            now = self.clock.now()
            unsent_s = 0.0 if ended_at is None else (now - datetime.fromisoformat(ended_at)).total_seconds()
            counts = {
                (name, status): count - others.get((project_id, status), 0)
                for project_id, name, status, count in rows
            }
            open_runs = {key: count for key, count in counts.items() if count > 0}
            age_s = _age_s(oldest, now=now)
            return StoreOverview(open_runs, waiting, age_s, leases, unsent, max(0.0, unsent_s), int(deleted))

        return await self._read_at_one_moment(work)

    async def span_cursors(self) -> list[SpanCursor]:
        """How far each project's runs have been sent on as spans, where there are changes after that.

        From the first call on: runs that have ended before it are taken for sent.
        """
        changes = f"({self._sql.changes}) AS changes"
        behind = every(
            SpanCursor._make,
            f"SELECT sent.project_id, change_no, last FROM sent_run AS sent JOIN {changes}"
            " ON changes.project_id = sent.project_id WHERE last > change_no ORDER BY sent.project_id",
        )
        # Who finds no row at all is the first one that sends from this store.
        begin = done(
            "INSERT INTO sent_run (project_id, change_no) SELECT project_id,"
            f" CASE WHEN EXISTS (SELECT 1 FROM sent_run) THEN 0 ELSE last END FROM {changes}"
            " UNION ALL SELECT 0, 0 WHERE true ON CONFLICT (project_id) DO NOTHING"
        )
        is_new = fetch(
            f"SELECT 1 FROM (SELECT 0 AS project_id UNION ALL SELECT project_id FROM {changes}) AS wanted"
            " WHERE project_id NOT IN (SELECT project_id FROM sent_run) LIMIT 1"
        )
        if await self._read(is_new):
            # Also on a full disk: a server is to start there.
            await self._remove(begin)
        return await self._read(behind)

    async def move_span_cursor(self, cursor: SpanCursor, change_no: int) -> bool:
        """All up to this change has been sent. False where the cursor is another one by now."""
        sql = "UPDATE sent_run SET change_no = :after WHERE project_id = :project_id AND change_no = :before"
        moved = changed(sql, after=change_no, project_id=cursor.project_id, before=cursor.change_no)
        return await self._write(moved) == 1


def count_unsent(gone: list[tuple[int, int]]) -> Steps[None]:
    """Counts runs that are deleted, each by its project and its newest change, if they were not sent yet."""
    numbers: dict[int, list[int]] = {}
    for project_id, change_no in gone:
        numbers.setdefault(project_id, []).append(change_no)
    sql = "SELECT project_id, change_no FROM sent_run WHERE project_id = ANY (:ids) ORDER BY project_id"
    for project_id, sent in (yield fetch(sql, ids=list(numbers))):
        if count := sum(number > sent for number in numbers[project_id]):
            sql = "UPDATE sent_run SET deleted = deleted + :count WHERE project_id = :project_id"
            yield done(sql, count=count, project_id=project_id)
