"""Which process goes on with which run: leases, and the runs that are claimed under them.

Runs that nobody has stand in the narrow table `queue`; those of an owner without a lease are found by the
owner. A row that another claim or an append has locked is passed over, so that claims never wait for each
other. Leases run by the clock of the database: a time that a caller names is taken as so long from now, and
so the clocks of processes need not agree.
"""

import uuid
from datetime import UTC, datetime, timedelta

from runglass.clock import Clock
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_rows import RUN, run_of
from runglass.store.postgres.sql_helpers import changed, every
from runglass.store.records import Checkpoint, RunRecord

# There are few owners and many runs: the index is stepped through from one owner to the next.
_DEAD = (
    "RECURSIVE owners AS (SELECT min(owner) AS owner FROM run WHERE owner IS NOT NULL UNION ALL"
    " SELECT (SELECT min(owner) FROM run WHERE owner > owners.owner) FROM owners"
    " WHERE owners.owner IS NOT NULL),"
    # No process takes over from itself, though its lease may have run out while it waited for the store.
    " dead AS (SELECT owner FROM owners WHERE owner IS NOT NULL AND owner <> $1 AND NOT EXISTS"
    " (SELECT FROM lease WHERE lease.owner = owners.owner AND expires_at > now() + $2::interval))"
)
_CLAIM = (
    f"WITH {_DEAD},"
    " waiting AS (SELECT run.no FROM (SELECT run_no FROM queue {of_queue} ORDER BY run_no LIMIT $3"
    " FOR UPDATE SKIP LOCKED) AS first JOIN run ON run.no = first.run_no WHERE run.owner IS NULL"
    " AND (run.status IN ('pending', 'running') OR run.status = 'paused' AND run.resume_head = run.head)"
    " FOR NO KEY UPDATE OF run SKIP LOCKED),"
    " lost AS (SELECT own.no FROM dead CROSS JOIN LATERAL (SELECT no FROM run WHERE {of_run}"
    " owner = dead.owner ORDER BY no LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED) AS own),"
    " chosen AS (SELECT no FROM (SELECT no FROM waiting UNION ALL SELECT no FROM lost) AS free"
    " ORDER BY no LIMIT $3),"
    " gone AS (DELETE FROM queue WHERE run_no = ANY (ARRAY(SELECT no FROM chosen))),"
    " claimed AS (UPDATE run SET owner = $1, fence = fence + 1, claimed_head = head,"
    # A run that no process has had only waited for its turn: that is no claim against it.
    " claims = CASE WHEN claimed_head = head THEN claims + 1"
    " WHEN status IN ('pending', 'paused') AND owner IS NULL AND claimed_head < 0 THEN 0 ELSE 1 END"
    " WHERE no = ANY (ARRAY(SELECT no FROM chosen)) RETURNING run.*)"
    f" {RUN.replace('FROM run', 'FROM claimed')} ORDER BY no"
)
_CLAIM_ANY = _CLAIM.format(of_queue="", of_run="")
_CLAIM_OF_PROJECT = _CLAIM.format(of_queue="WHERE project_id = $4", of_run="project_id = $4 AND")
# A process that lets a run go has survived it: that claim says nothing against the run.
_LET_GO = (
    "WITH free AS (UPDATE run SET owner = NULL, claims = greatest(claims - 1, 0) WHERE {}"
    " RETURNING no, project_id) INSERT INTO queue (run_no, project_id) SELECT no, project_id FROM free"
    " ON CONFLICT DO NOTHING"
)

_RESUME = (
    "UPDATE run SET fence = fence + 1, resume_head = head, owner = $4::text, claims = 0,"
    " claimed_head = CASE WHEN $4::text IS NULL THEN -1 ELSE head END"
    " WHERE no = $1 AND status = 'paused' AND resume_head <> head AND head = $2 AND fence = $3"
    f" RETURNING {RUN.removeprefix('SELECT ').removesuffix(' FROM run')}"
)


class Leases:
    """The part of the store that ties runs to processes."""

    _db: Connections
    _clock: Clock
    _owner: str | None
    """Who holds the newest lease that was taken by way of this store."""
    _holder: uuid.UUID
    """The name of this store among those that do maintenance on the database."""

    async def hold_lease(self, owner: str, *, until: str, renew: bool) -> bool:
        sql = "UPDATE lease SET expires_at = now() + $1::interval WHERE owner = $2"
        if not renew:
            self._owner = owner
            sql = "INSERT INTO lease (expires_at, owner) VALUES (now() + $1::interval, $2)"
        return await self._db.write(changed(sql, self._from_now(until), owner)) == 1

    async def claim_maintenance(self, task: str, *, for_s: float) -> bool:
        sql = (
            "INSERT INTO maintenance (task, holder, held_until) VALUES ($1, $2, now() + $3::interval)"
            " ON CONFLICT (task) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until"
            " WHERE maintenance.holder = excluded.holder OR maintenance.held_until <= now()"
        )
        return await self._db.write(changed(sql, task, self._holder, timedelta(seconds=for_s))) == 1

    async def end_lease(self, owner: str | None) -> None:
        async def work(db: Db) -> None:
            if owner is None:
                await db.execute("DELETE FROM lease")
            else:
                await db.execute("DELETE FROM lease WHERE owner = $1", owner)
                await db.execute(_LET_GO.format("owner = $1"), owner)

        await self._db.write(work)

    async def claim_runs(
        self, owner: str, *, now: str, limit: int, project_id: int | None = None
    ) -> list[RunRecord]:
        at = self._from_now(now)

        async def work(db: Db) -> list[RunRecord]:
            # First: a process whose lease has run out and is not renewed by now finds that out before it has
            # a run to append to. One that renews it at this moment keeps its runs.
            await db.execute(
                "DELETE FROM lease WHERE expires_at <= now() + $1::interval AND owner <> $2", at, owner
            )
            if project_id is None:
                rows = await db.fetch(_CLAIM_ANY, owner, at, limit)
            else:
                rows = await db.fetch(_CLAIM_OF_PROJECT, owner, at, limit, project_id)
            return [run_of(row) for row in rows]

        return await self._db.write(work)

    async def free_runs(self, owner: str, *, now: str) -> dict[int, int]:
        sql = (
            f"WITH {_DEAD} SELECT project_id, count(*) FROM (SELECT project_id FROM queue UNION ALL"
            " SELECT project_id FROM run WHERE owner = ANY (ARRAY(SELECT owner FROM dead))) AS free"
            " GROUP BY project_id"
        )
        counted = every(lambda row: (int(row[0]), int(row[1])), sql, owner, self._from_now(now))
        return dict(await self._db.read(counted))

    async def claim_waiting(self, run: RunRecord) -> RunRecord | None:
        sql = (
            "UPDATE run SET fence = fence + 1"
            " WHERE no = $1 AND (status = 'paused' OR status = 'pending' AND owner IS NULL)"
            f" AND head = $2 AND fence = $3 RETURNING {RUN.removeprefix('SELECT ').removesuffix(' FROM run')}"
        )

        async def work(db: Db) -> RunRecord | None:
            row = await db.fetchrow(sql, run.no, run.head, run.fence)
            return None if row is None else run_of(row)

        return await self._db.write(work)

    async def resume_run(self, run: RunRecord, segment: Checkpoint, *, owner: str | None) -> RunRecord | None:
        async def work(db: Db) -> RunRecord | None:
            row = await db.fetchrow(_RESUME, run.no, run.head, run.fence, owner)
            if row is None:
                return None
            await db.execute(
                "INSERT INTO checkpoint (run_no, step_id, loop_path, seq, data) VALUES ($1, $2, $3, $4, $5)"
                " ON CONFLICT (run_no, step_id, loop_path)"
                " DO UPDATE SET seq = excluded.seq, data = excluded.data",
                *(run.no, segment.step_id, segment.loop_path, run.head, segment.data),
            )
            await db.execute("SELECT count_open($1, $2)", run.no, len(segment.data))
            if owner is None:
                await db.execute(
                    "INSERT INTO queue (run_no, project_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    *(run.no, run.project_id),
                )
            return run_of(row)

        return await self._db.write(work)

    async def request_cancel(self, run_id: str, *, reason: str) -> str | None:
        sql = (
            "UPDATE run SET cancel_reason = coalesce(cancel_reason, $2) WHERE id = $1"
            " AND status IN ('pending', 'running', 'paused') RETURNING coalesce(owner, '')"
        )

        async def work(db: Db) -> str | None:
            owner = await db.fetchval(sql, run_id, reason)
            return None if owner is None else str(owner)

        return await self._db.write(work)

    async def cancel_requests(self, owner: str) -> dict[str, str]:
        sql = "SELECT id, cancel_reason FROM run WHERE owner = $1 AND cancel_reason IS NOT NULL"
        return dict(await self._db.read(every(lambda row: (str(row[0]), str(row[1])), sql, owner)))

    async def release_run(self, run_id: str, owner: str) -> None:
        await self._db.write(changed(_LET_GO.format("id = $1 AND owner = $2"), run_id, owner))

    def _from_now(self, at: str) -> timedelta:
        """How long it is until then by the clock of this process, which told the time."""
        moment = datetime.fromisoformat(at)
        return moment.replace(tzinfo=moment.tzinfo or UTC) - self._clock.now()
