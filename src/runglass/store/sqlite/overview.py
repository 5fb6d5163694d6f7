"""What the whole file holds that has not ended."""

import sqlite3

from runglass.store.overview import OPEN_STATUSES, StoreOverview, age_s
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import now_text
from runglass.support.clock import SystemClock

_OPEN = (
    "SELECT org || '/' || name, status, (SELECT count(*) FROM run WHERE project_id = project.id"
    " AND run.status = one.status) FROM project"
    " CROSS JOIN (SELECT ? AS status UNION ALL VALUES (?), (?)) AS one"
)
_QUEUE = (
    "SELECT count(*), (SELECT id FROM run WHERE status IN ('pending', 'running') AND owner IS NULL"
    " ORDER BY no LIMIT 1), (SELECT count(*) FROM lease WHERE expires_at > ?)"
    " FROM run WHERE status IN ('pending', 'running') AND owner IS NULL"
)


class Overview:
    """The part of the store that says how much there is to do."""

    _db: Connections
    clock: SystemClock

    @property
    def pool(self) -> None:
        return None

    async def overview(self) -> StoreOverview:
        def work(db: sqlite3.Connection) -> StoreOverview:
            rows = db.execute(_OPEN, OPEN_STATUSES).fetchall()
            waiting, oldest, leases = db.execute(_QUEUE, (now_text(),)).fetchone()
            open_runs = {(name, status): count for name, status, count in rows if count}
            return StoreOverview(open_runs, waiting, age_s(oldest, now=self.clock.now()), leases)

        return await self._db.read(work)
