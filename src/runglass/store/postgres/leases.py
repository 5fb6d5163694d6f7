"""How runs are claimed on PostgreSQL, and what else of leases is its own way; parts of budgets that are held.

A row that another claim or an append has locked is passed over, so that claims never wait for each other.
Leases run by the clock of the database: a time that a caller names is taken as so long from now, and so the
clocks of processes need not agree.

A part of a budget is held between the decision about a reservation and its event, over all processes. The
decision locks the row of the project, for no longer than it takes. A hold is given back once the log has the
reservation; one whose process is gone ends when its run is taken over.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

from runglass.store.catalog import project_of
from runglass.store.leases import (
    CLAIM,
    DEAD,
    NO_LIMITS,
    UNTOLD,
    WAITING_PROJECTS,
    BudgetDecision,
    Leases,
    ProcessFacts,
)
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.migrations import await_migration, migrations
from runglass.store.postgres.sql_helpers import POSTGRES, perform
from runglass.store.records import RunRecord
from runglass.store.run_tables import RUN, run_of
from runglass.store.statements import Steps, changed, done, every, fetch, one

_FIRST = "SELECT run_no, pick FROM queue {} ORDER BY pick, run_no LIMIT :limit FOR UPDATE SKIP LOCKED"
# Goes through the projects that wait, and not through all that waits. The runs of a flow with no room are
# passed over, and of one with some as many are taken.
_FIRST_WITH_ROOM = (
    "SELECT run_no, pick FROM queue WHERE run_no = ANY (ARRAY("
    f"WITH RECURSIVE {WAITING_PROJECTS},"
    " rooms AS (SELECT id, :most - (SELECT count(*) FROM (SELECT FROM run WHERE project_id = projects.id"
    " AND owner IS NOT NULL LIMIT :most) AS begun) AS room FROM projects"
    " WHERE id IS NOT NULL AND (:project_id::bigint IS NULL OR id = :project_id)),"
    " limits AS MATERIALIZED (SELECT flow.id, most - (SELECT count(*) FROM run WHERE owner IS NOT NULL"
    " AND run.project_id = flow.project_id AND run.flow_id = flow.id) AS room"
    " FROM unnest(:flows::text[], :most_of_flow::bigint[]) AS told (path, most)"
    " JOIN project ON org = split_part(path, '/', 1) AND project.name = split_part(path, '/', 2)"
    " JOIN flow ON flow.project_id = project.id AND slug = split_part(path, '/', 3)),"
    " candidates AS (SELECT first.* FROM rooms CROSS JOIN LATERAL (SELECT run_no, pick, flow_id FROM queue"
    " WHERE project_id = rooms.id AND (flow_id = ANY (ARRAY(SELECT id FROM limits WHERE room <= 0)))"
    " IS NOT TRUE ORDER BY pick, run_no LIMIT least(rooms.room, :limit)) AS first WHERE rooms.room > 0)"
    " SELECT run_no FROM (SELECT run_no, pick, coalesce(limits.room, :limit) AS room, row_number() OVER"
    " (PARTITION BY flow_id ORDER BY pick, run_no) AS place FROM candidates"
    " LEFT JOIN limits ON limits.id = flow_id) AS ranked WHERE place <= room"
    " ORDER BY pick, run_no LIMIT :limit)) FOR UPDATE SKIP LOCKED"
)
ANY_NUMBER = 1 << 40
_CLAIM = (
    f"WITH {DEAD.format('CURRENT_TIMESTAMP + :after::interval')},"
    " waiting AS (SELECT run.no, first.pick FROM ({first}) AS first JOIN run ON run.no = first.run_no"
    " WHERE run.owner IS NULL"
    " AND (run.status IN ('pending', 'running') OR run.status = 'paused' AND run.resume_head = run.head)"
    " FOR NO KEY UPDATE OF run SKIP LOCKED),"
    # Those that were begun come first; each has its place among its project's already.
    " lost AS (SELECT own.no, -1 AS pick FROM dead CROSS JOIN LATERAL (SELECT no FROM run WHERE {of_run}"
    " owner = dead.owner ORDER BY no LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) AS own),"
    " chosen AS MATERIALIZED (SELECT no, pick FROM (SELECT no, pick FROM waiting UNION ALL"
    " SELECT no, pick FROM lost) AS free ORDER BY pick, no LIMIT :limit),"
    " gone AS (DELETE FROM queue WHERE run_no = ANY (ARRAY(SELECT no FROM chosen))),"
    f" claimed AS ({CLAIM.format(POSTGRES.next_fence, 'ARRAY(SELECT no FROM chosen)')} RETURNING run.*)"
    f" {RUN.replace('FROM run', 'FROM claimed')} JOIN chosen USING (no) ORDER BY pick, no"
)
_CLAIM_ANY = _CLAIM.format(first=_FIRST.format(""), of_run="")
_CLAIM_OF_PROJECT = _CLAIM.format(
    first=_FIRST.format("WHERE project_id = :project_id"), of_run="project_id = :project_id AND"
)
_CLAIM_WITH_ROOM = _CLAIM.format(
    first=_FIRST_WITH_ROOM, of_run="(:project_id::bigint IS NULL OR project_id = :project_id) AND"
)
CLAIMS_LOCK = 5_242_880_718
"""The advisory lock of claims with a limit for each project: two at once would each see the same room."""
_ENDED_HOLDS = (
    "DELETE FROM budget_hold WHERE project_id = :project_id AND NOT EXISTS (SELECT FROM run"
    " WHERE run.no = for_run AND run.fence = budget_hold.fence AND run.owner IS NOT NULL)"
)


class PostgresLeases(Leases):
    """The part of the store that ties runs to processes."""

    _db: Connections
    _owner: str | None
    """Who holds the newest lease that was taken by way of this store."""
    _holder: uuid.UUID
    """The name of this store among those that do maintenance on the database."""

    async def hold_lease(
        self, owner: str, *, until: str, renew: bool, process: ProcessFacts = UNTOLD
    ) -> bool:
        values = {"after": self._from_now(until), "owner": owner}
        knows = 0 if renew else migrations()[-1].number
        sql = "UPDATE lease SET expires_at = CURRENT_TIMESTAMP + :after::interval WHERE owner = :owner"
        if not renew:
            self._owner = owner
            # Not from the beginning of the transaction, which may have waited for a migration.
            sql = (
                "INSERT INTO lease (expires_at, owner, host, pid, version, executes_runs, knows_migration)"
                " VALUES (clock_timestamp() + :after::interval,"
                " :owner, :host, :pid, :version, :executes_runs, :knows)"
            )
            values |= {**process._asdict(), "knows": knows}

        def work() -> Steps[bool]:
            if not renew:
                yield lambda db: await_migration(db, knows, self._db.name)
            yield self._db.starts.look
            return bool((yield changed(sql, **values)))

        return await self._write(work)

    async def claim_maintenance(self, task: str, *, for_s: float) -> bool:
        sql = (
            "INSERT INTO maintenance (task, holder, held_until)"
            " VALUES (:task, :holder, CURRENT_TIMESTAMP + :after::interval) ON CONFLICT (task)"
            " DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until"
            " WHERE maintenance.holder = excluded.holder OR maintenance.held_until <= CURRENT_TIMESTAMP"
        )
        claimed = changed(sql, task=task, holder=self._holder, after=timedelta(seconds=for_s))
        return await self._write(claimed) == 1

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
        after = self._from_now(now)

        def work() -> Steps[list[RunRecord]]:
            # First: a process whose lease has run out and is not renewed by now finds that out before it has
            # a run to append to. One that renews it at this moment keeps its runs.
            has_ended = "expires_at <= CURRENT_TIMESTAMP + :after::interval"
            gone = f"DELETE FROM lease WHERE {has_ended} AND owner <> :owner"
            yield done(gone, after=after, owner=owner)
            values = {"owner": owner, "after": after, "limit": limit}
            if most_each is not None or most_of_flows:
                yield done(f"SELECT pg_advisory_xact_lock({CLAIMS_LOCK})")
                most = ANY_NUMBER if most_each is None else most_each
                flows = {"flows": [*most_of_flows], "most_of_flow": [*most_of_flows.values()]}
                found = every(run_of, _CLAIM_WITH_ROOM, project_id=project_id, most=most, **flows, **values)
            elif project_id is not None:
                found = every(run_of, _CLAIM_OF_PROJECT, project_id=project_id, **values)
            else:
                found = every(run_of, _CLAIM_ANY, **values)
            claimed: list[RunRecord] = yield found
            return claimed

        return await self._write(work)

    async def hold_budget(self, hold: uuid.UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        project_id = run.project_id

        def work() -> Steps[BudgetDecision]:
            sql = "SELECT 1 FROM project WHERE id = :project_id FOR NO KEY UPDATE"
            yield fetch(sql, project_id=project_id)
            yield done(_ENDED_HOLDS, project_id=project_id)
            # Before the totals are: a reservation stored meanwhile counts twice, and never not at all.
            sql = "SELECT coalesce(sum(usd), 0) FROM budget_hold WHERE project_id = :project_id"
            [(held,)] = yield fetch(sql, project_id=project_id)
            sql = f"{POSTGRES.project} WHERE id = :project_id"
            decision = BudgetDecision((yield one(project_of, sql, project_id=project_id)), held)
            if decision.has_room_for(usd):
                yield done(
                    "INSERT INTO budget_hold (id, project_id, for_run, fence, usd)"
                    " VALUES (:id, :project_id, :no, :fence, :usd)",
                    id=hold,
                    project_id=project_id,
                    no=run.no,
                    fence=run.fence,
                    usd=usd,
                )
            return decision

        return await self._write(work)

    async def release_budget(self, hold: uuid.UUID) -> None:
        sql = "DELETE FROM budget_hold WHERE id = :hold"
        await self._db.repeat(partial(perform, done(sql, hold=hold)))

    def _from_now(self, at: str) -> timedelta:
        """How long it is until then by the store's clock, by which the caller told the time just now."""
        moment = datetime.fromisoformat(at)
        return moment.replace(tzinfo=moment.tzinfo or UTC) - self._db.clock.now()
