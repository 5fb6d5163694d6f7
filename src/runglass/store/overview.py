"""What a store holds as a whole, for those who watch it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from runglass.store.dialect import Dialect
from runglass.store.run_tables import IS_RECORDED
from runglass.store.statements import Statements, Steps, fetch
from runglass.support.clock import Clock
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


class Overview:
    """The part of the store that says how much there is to do."""

    _statements: Statements
    clock: Clock
    _sql: Dialect

    async def overview(self) -> StoreOverview:
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

        return await self._statements.read_at_one_moment(work)
