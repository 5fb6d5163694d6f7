"""Which process goes on with which run: leases, and the runs that are claimed under them.

Runs that nobody has stand in the narrow table `queue`; those of an owner without a lease are found by the
owner. A row that another claim or an append has locked is passed over, so that claims never wait for each
other. Leases run by the clock of the database: a time that a caller names is taken as so long from now, and
so the clocks of processes need not agree.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.migrations import await_migration, migrations
from runglass.store.process_records import NO_LIMITS, UNTOLD, HeldLease, ProcessFacts, QueuedRuns
from runglass.store.records import Checkpoint, RunRecord
from runglass.store.run_tables import RUN, RUN_COLUMNS, run_of
from runglass.store.statements import Ask, Statements, Steps, changed, done, every, one
from runglass.support.clock import iso

# After a standby has taken over without the newest commits a claim may be made anew, and no fence of a claim
# that was lost may come again: its process lives, and would write into the log of the next one.
_NEXT_FENCE = "fence + 1 + floor(random() * 1000000000)::bigint"
# There are few owners and many runs: the index is stepped through from one owner to the next.
_DEAD = (
    "RECURSIVE owners AS (SELECT min(owner) AS owner FROM run WHERE owner IS NOT NULL UNION ALL"
    " SELECT (SELECT min(owner) FROM run WHERE owner > owners.owner) FROM owners"
    " WHERE owners.owner IS NOT NULL),"
    # No process takes over from itself, though its lease may have run out while it waited for the store.
    " dead AS (SELECT owner FROM owners WHERE owner IS NOT NULL AND owner <> $1 AND NOT EXISTS"
    " (SELECT FROM lease WHERE lease.owner = owners.owner AND expires_at > CURRENT_TIMESTAMP + $2::interval))"
)
_FIRST = "SELECT run_no, pick FROM queue {} ORDER BY pick, run_no LIMIT $3 FOR UPDATE SKIP LOCKED"
# Goes through the projects that wait, and not through all that waits. The runs of a flow with no room are
# passed over, and of one with some as many are taken.
_FIRST_WITH_ROOM = (
    "SELECT run_no, pick FROM queue WHERE run_no = ANY (ARRAY("
    "WITH RECURSIVE projects AS (SELECT min(project_id) AS id FROM queue UNION ALL"
    " SELECT (SELECT min(project_id) FROM queue WHERE project_id > projects.id) FROM projects"
    " WHERE projects.id IS NOT NULL),"
    " rooms AS (SELECT id, $4 - (SELECT count(*) FROM (SELECT FROM run WHERE project_id = projects.id"
    " AND owner IS NOT NULL LIMIT $4) AS begun) AS room FROM projects WHERE id IS NOT NULL),"
    " limits AS MATERIALIZED (SELECT flow.id, most - (SELECT count(*) FROM run WHERE owner IS NOT NULL"
    " AND run.project_id = flow.project_id AND run.flow_id = flow.id) AS room"
    " FROM unnest($5::text[], $6::bigint[]) AS told (path, most)"
    " JOIN project ON org = split_part(path, '/', 1) AND project.name = split_part(path, '/', 2)"
    " JOIN flow ON flow.project_id = project.id AND slug = split_part(path, '/', 3)),"
    " candidates AS (SELECT first.* FROM rooms CROSS JOIN LATERAL (SELECT run_no, pick, flow_id FROM queue"
    " WHERE project_id = rooms.id AND (flow_id = ANY (ARRAY(SELECT id FROM limits WHERE room <= 0)))"
    " IS NOT TRUE ORDER BY pick, run_no LIMIT least(rooms.room, $3)) AS first WHERE rooms.room > 0)"
    " SELECT run_no FROM (SELECT run_no, pick, coalesce(limits.room, $3) AS room, row_number() OVER"
    " (PARTITION BY flow_id ORDER BY pick, run_no) AS place FROM candidates"
    " LEFT JOIN limits ON limits.id = flow_id) AS ranked WHERE place <= room"
    " ORDER BY pick, run_no LIMIT $3)) FOR UPDATE SKIP LOCKED"
)
ANY_NUMBER = 1 << 40
_CLAIM = (
    f"WITH {_DEAD},"
    " waiting AS (SELECT run.no, first.pick FROM ({first}) AS first JOIN run ON run.no = first.run_no"
    " WHERE run.owner IS NULL"
    " AND (run.status IN ('pending', 'running') OR run.status = 'paused' AND run.resume_head = run.head)"
    " FOR NO KEY UPDATE OF run SKIP LOCKED),"
    # Those that were begun come first; each has its place among its project's already.
    " lost AS (SELECT own.no, -1 AS pick FROM dead CROSS JOIN LATERAL (SELECT no FROM run WHERE {of_run}"
    " owner = dead.owner ORDER BY no LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED) AS own),"
    " chosen AS MATERIALIZED (SELECT no, pick FROM (SELECT no, pick FROM waiting UNION ALL"
    " SELECT no, pick FROM lost) AS free ORDER BY pick, no LIMIT $3),"
    " gone AS (DELETE FROM queue WHERE run_no = ANY (ARRAY(SELECT no FROM chosen))),"
    f" claimed AS (UPDATE run SET owner = $1, fence = {_NEXT_FENCE}, claimed_head = head,"
    # A run that no process has had only waited for its turn: that is no claim against it.
    " claims = CASE WHEN claimed_head = head THEN claims + 1"
    " WHEN status IN ('pending', 'paused') AND owner IS NULL AND claimed_head < 0 THEN 0 ELSE 1 END"
    " WHERE no = ANY (ARRAY(SELECT no FROM chosen)) RETURNING run.*)"
    f" {RUN.replace('FROM run', 'FROM claimed')} JOIN chosen USING (no) ORDER BY pick, no"
)
_CLAIM_ANY = _CLAIM.format(first=_FIRST.format(""), of_run="")
_CLAIM_OF_PROJECT = _CLAIM.format(first=_FIRST.format("WHERE project_id = $4"), of_run="project_id = $4 AND")
_CLAIM_WITH_ROOM = _CLAIM.format(first=_FIRST_WITH_ROOM, of_run="")
CLAIMS_LOCK = 5_242_880_718
"""The advisory lock of claims with a limit for each project: two at once would each see the same room."""
# A process that lets a run go has survived it: that claim says nothing against the run.
_LET_GO = (
    "WITH free AS (UPDATE run SET owner = NULL, claims = greatest(claims - 1, 0) WHERE {}"
    " RETURNING no, project_id) INSERT INTO queue (run_no, project_id, pick)"
    " SELECT no, project_id, 0 FROM free"
    " ON CONFLICT DO NOTHING"
)

_RESUME = (
    f"UPDATE run SET fence = {_NEXT_FENCE}, resume_head = head, owner = $4::text, claims = 0,"
    " claimed_head = CASE WHEN $4::text IS NULL THEN -1 ELSE head END"
    " WHERE no = $1 AND status = 'paused' AND resume_head <> head AND head = $2 AND fence = $3"
    f" RETURNING {RUN_COLUMNS}"
)


class Leases:
    """The part of the store that ties runs to processes."""

    _db: Connections
    _statements: Statements
    _owner: str | None
    """Who holds the newest lease that was taken by way of this store."""
    _holder: uuid.UUID
    """The name of this store among those that do maintenance on the database."""

    async def hold_lease(
        self, owner: str, *, until: str, renew: bool, process: ProcessFacts = UNTOLD
    ) -> bool:
        values: tuple[object, ...] = self._from_now(until), owner
        knows = 0 if renew else migrations()[-1].number
        sql = "UPDATE lease SET expires_at = CURRENT_TIMESTAMP + $1::interval WHERE owner = $2"
        if not renew:
            self._owner = owner
            # Not from the beginning of the transaction, which may have waited for a migration.
            sql = (
                "INSERT INTO lease (expires_at, owner, host, pid, version, executes_runs, knows_migration)"
                " VALUES (clock_timestamp() + $1::interval, $2, $3, $4, $5, $6, $7)"
            )
            values = *values, *process, knows

        def work() -> Steps[bool]:
            if not renew:
                yield lambda db: await_migration(db, knows, self._db.name)
            yield self._db.starts.look
            return bool((yield f"{sql} RETURNING 1", *values))

        return await self._statements.write(work)

    async def leases(self) -> list[HeldLease]:
        sql = (
            "SELECT owner, since, expires_at, (SELECT count(*) FROM run WHERE run.owner = lease.owner), host,"
            " pid, version, executes_runs FROM lease ORDER BY since, owner"
        )
        return await self._statements.read(every(_lease_of, sql))

    async def claim_maintenance(self, task: str, *, for_s: float) -> bool:
        sql = (
            "INSERT INTO maintenance (task, holder, held_until)"
            " VALUES ($1, $2, CURRENT_TIMESTAMP + $3::interval) ON CONFLICT (task)"
            " DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until"
            " WHERE maintenance.holder = excluded.holder OR maintenance.held_until <= CURRENT_TIMESTAMP"
        )
        return await self._statements.write(changed(sql, task, self._holder, timedelta(seconds=for_s))) == 1

    async def end_lease(self, owner: str | None) -> None:
        async def work(db: Db) -> None:
            if owner is None:
                await db.execute("DELETE FROM lease")
            else:
                await db.execute("DELETE FROM lease WHERE owner = $1", owner)
                await db.execute(_LET_GO.format("owner = $1"), owner)

        await self._db.write(work)

    async def claim_runs(
        self,
        owner: str,
        *,
        now: str,
        limit: int,
        project_id: int | None = None,
        most_each: int | None = None,
        most_of_flows: Mapping[str, int] = NO_LIMITS,
    ) -> list[RunRecord]:
        at = self._from_now(now)

        async def work(db: Db) -> list[RunRecord]:
            # First: a process whose lease has run out and is not renewed by now finds that out before it has
            # a run to append to. One that renews it at this moment keeps its runs.
            await db.execute(
                "DELETE FROM lease WHERE expires_at <= now() + $1::interval AND owner <> $2", at, owner
            )
            if most_each is not None or most_of_flows:
                await db.execute(f"SELECT pg_advisory_xact_lock({CLAIMS_LOCK})")
                most = ANY_NUMBER if most_each is None else most_each
                flows = [*most_of_flows], [*most_of_flows.values()]
                rows = await db.fetch(_CLAIM_WITH_ROOM, owner, at, limit, most, *flows)
            elif project_id is not None:
                rows = await db.fetch(_CLAIM_OF_PROJECT, owner, at, limit, project_id)
            else:
                rows = await db.fetch(_CLAIM_ANY, owner, at, limit)
            return [run_of(row) for row in rows]

        return await self._db.write(work)

    async def free_runs(self, owner: str, *, now: str) -> dict[int, int]:
        sql = (
            f"WITH {_DEAD} SELECT project_id, count(*) FROM (SELECT project_id FROM queue UNION ALL"
            " SELECT project_id FROM run WHERE owner = ANY (ARRAY(SELECT owner FROM dead))) AS free"
            " GROUP BY project_id"
        )
        return await self._statements.read(Ask(sql, (owner, self._from_now(now)), dict))

    async def queued_runs(self, project_id: int, *, most: int) -> QueuedRuns:
        sql = (
            "WITH RECURSIVE projects AS (SELECT min(project_id) AS id FROM queue UNION ALL"
            " SELECT (SELECT min(project_id) FROM queue WHERE project_id > projects.id) FROM projects"
            " WHERE projects.id IS NOT NULL)"
            " SELECT (SELECT count(*) FROM (SELECT FROM queue LIMIT $2) AS waiting),"
            " (SELECT count(*) FROM (SELECT FROM queue WHERE project_id = $1 LIMIT $2) AS own),"
            " (SELECT count(id) FROM projects)"
        )
        values = (project_id, most)
        return await self._statements.read(Ask(sql, values, lambda rows: QueuedRuns(*map(int, rows[0]))))

    async def set_weights(self, weights: Mapping[int, float]) -> None:
        sql = (
            "UPDATE project_change SET weight = new.weight FROM unnest($1::bigint[], $2::double precision[])"
            " AS new (project_id, weight) WHERE project_change.project_id = new.project_id"
            " AND project_change.weight <> new.weight"
        )
        await self._statements.write(done(sql, list(weights), list(weights.values())))

    async def claim_waiting(self, run: RunRecord) -> RunRecord | None:
        sql = (
            f"UPDATE run SET fence = {_NEXT_FENCE}"
            " WHERE no = $1 AND (status = 'paused' OR status = 'pending' AND owner IS NULL)"
            f" AND head = $2 AND fence = $3 RETURNING {RUN_COLUMNS}"
        )
        return await self._statements.write(one(run_of, sql, run.no, run.head, run.fence))

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
        return await self._statements.write(one(lambda row: str(row[0]), sql, run_id, reason))

    async def cancel_requests(self, owner: str) -> dict[str, str]:
        sql = "SELECT id, cancel_reason FROM run WHERE owner = $1 AND cancel_reason IS NOT NULL"
        return await self._statements.read(Ask(sql, (owner,), dict))

    async def owned_runs(self, owner: str) -> dict[str, int]:
        sql = "SELECT id, head FROM run WHERE owner = $1"
        return await self._statements.read(Ask(sql, (owner,), dict))

    async def release_run(self, run_id: str, owner: str) -> None:
        await self._statements.write(done(_LET_GO.format("id = $1 AND owner = $2"), run_id, owner))

    def _from_now(self, at: str) -> timedelta:
        """How long it is until then by the store's clock, by which the caller told the time just now."""
        moment = datetime.fromisoformat(at)
        return moment.replace(tzinfo=moment.tzinfo or UTC) - self._db.clock.now()


def _lease_of(row: Any) -> HeldLease:
    owner, since, expires_at, runs, *facts = row
    return HeldLease(owner, ProcessFacts(*facts), iso(since), iso(expires_at), runs)
