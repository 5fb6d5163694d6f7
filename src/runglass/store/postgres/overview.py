"""What the whole database holds that has not ended, in two statements on indexes."""

from runglass.store.overview import OPEN_STATUSES, PoolUse, StoreOverview, age_s
from runglass.store.postgres.connections import Connections, Db

_OPEN = (
    "SELECT org || '/' || name, status, (SELECT count(*) FROM run WHERE project_id = project.id"
    " AND run.status = one.status) FROM project CROSS JOIN unnest($1::text[]) AS one (status)"
)
_QUEUE = (
    "SELECT (SELECT count(*) FROM queue), (SELECT id FROM run WHERE no = (SELECT min(run_no) FROM queue)),"
    " (SELECT count(*) FROM lease WHERE expires_at > now())"
)


class Overview:
    """The part of the store that says how much there is to do."""

    _db: Connections

    @property
    def pool(self) -> PoolUse | None:
        return self._db.pool

    async def overview(self) -> StoreOverview:
        async def work(db: Db) -> StoreOverview:
            rows = await db.fetch(_OPEN, list(OPEN_STATUSES))
            waiting, oldest, leases = await db.fetchrow(_QUEUE)
            open_runs = {(str(name), str(status)): int(count) for name, status, count in rows if count}
            return StoreOverview(
                open_runs, int(waiting), age_s(oldest, now=self._db.clock.now()), int(leases)
            )

        return await self._db.read(work)
