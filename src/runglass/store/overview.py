"""What a store holds as a whole, for those who watch it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from runglass.store.dialect import Dialect
from runglass.store.statements import Statements, Steps, fetch
from runglass.support.clock import Clock
from runglass.wire.query import created_ms


class StoreOverview(NamedTuple):
    """What has not ended; `open_runs` by the names of projects and by status."""

    open_runs: dict[tuple[str, str], int]
    waiting: int
    """Runs that no process has."""
    oldest_waiting_s: float
    """Age of the oldest of them, 0 where none waits."""
    leases: int


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
            "SELECT org || '/' || name, status, (SELECT count(*) FROM run WHERE project_id = project.id"
            " AND run.status = one.status) FROM project CROSS JOIN"
            " (SELECT 'pending' AS status UNION ALL SELECT 'running' UNION ALL SELECT 'paused') AS one"
        )

        def work() -> Steps[StoreOverview]:
            rows = yield fetch(sql)
            [(waiting, oldest, leases)] = yield fetch(self._sql.waiting)
            open_runs = {(name, status): count for name, status, count in rows if count}
            return StoreOverview(open_runs, waiting, _age_s(oldest, now=self.clock.now()), leases)

        return await self._statements.read(work)
