"""Which process goes on with which run: leases, the queue of runs that nobody has, and requests to owners.

A run that nobody has and that can go on stands in the narrow table `queue`. Its place, `pick`, is given as it
comes: behind the last one of its project, but not before the first that waits now (start-time fair queueing),
or before all others where it was begun and let go. Those of an owner without a lease are found by the owner.
How a claim takes them is up to each kind of store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runglass.store.dialect import Dialect
from runglass.store.process_records import HeldLease, ProcessFacts, QueuedRuns
from runglass.store.records import Checkpoint, RunRecord
from runglass.store.run_tables import RUN_COLUMNS, run_of
from runglass.store.statements import Ask, Statements, Steps, count_open, done, every, fetch, one
from runglass.support.clock import iso

# There are few owners and many runs: the index is stepped through from one owner to the next.
DEAD = (
    "RECURSIVE owners AS (SELECT min(owner) AS owner FROM run WHERE owner IS NOT NULL UNION ALL"
    " SELECT (SELECT min(owner) FROM run WHERE owner > owners.owner) FROM owners"
    " WHERE owners.owner IS NOT NULL),"
    # No process takes over from itself, though its lease may have run out while it waited for the store.
    " dead AS (SELECT owner FROM owners WHERE owner IS NOT NULL AND owner <> :owner AND NOT EXISTS"
    " (SELECT 1 FROM lease WHERE lease.owner = owners.owner AND expires_at > {}))"
)
"""The owners without a lease at the given time, behind WITH."""
WAITING_PROJECTS = (
    "projects AS (SELECT min(project_id) AS id FROM queue UNION ALL"
    " SELECT (SELECT min(project_id) FROM queue WHERE project_id > projects.id) FROM projects"
    " WHERE projects.id IS NOT NULL)"
)
"""The projects that wait and not all that waits, behind WITH RECURSIVE."""
CLAIM = (
    "UPDATE run SET owner = :owner, fence = {}, claimed_head = head,"
    # A run that no process has had only waited for its turn: that is no claim against it.
    " claims = CASE WHEN claimed_head = head THEN claims + 1"
    " WHEN status IN ('pending', 'paused') AND owner IS NULL AND claimed_head < 0 THEN 0 ELSE 1 END"
    " WHERE no = ANY ({})"
)
"""What a claim makes of the runs with these numbers, with the next fence."""


class Leases:
    """The part of the store that ties runs to processes."""

    _statements: Statements
    _sql: Dialect

    async def leases(self) -> list[HeldLease]:
        sql = (
            "SELECT owner, since, expires_at, (SELECT count(*) FROM run WHERE run.owner = lease.owner), host,"
            " pid, version, executes_runs FROM lease ORDER BY since, owner"
        )
        return await self._statements.read(every(_lease_of, sql))

    async def end_lease(self, owner: str | None) -> None:
        def work() -> Steps[None]:
            if owner is None:
                yield done("DELETE FROM lease")
            else:
                yield done("DELETE FROM lease WHERE owner = :owner", owner=owner)
                yield from _let_go("owner = :owner", owner=owner)

        await self._statements.remove(work)

    async def queued_runs(self, project_id: int, *, most: int) -> QueuedRuns:
        sql = (
            f"WITH RECURSIVE {WAITING_PROJECTS}"
            " SELECT (SELECT count(*) FROM (SELECT 1 FROM queue LIMIT :most) AS waiting),"
            " (SELECT count(*) FROM (SELECT 1 FROM queue WHERE project_id = :project_id LIMIT :most) AS own),"
            " (SELECT count(id) FROM projects)"
        )
        values = {"project_id": project_id, "most": most}
        return await self._statements.read(Ask(sql, values, lambda rows: QueuedRuns(*map(int, rows[0]))))

    async def set_weights(self, weights: Mapping[int, float]) -> None:
        def work() -> Steps[None]:
            for project_id, weight in weights.items():
                yield done(self._sql.set_weight, project_id=project_id, weight=weight)

        # Also on a full disk, like the lease: a server is to start there.
        await self._statements.remove(work)

    async def claim_waiting(self, run: RunRecord) -> RunRecord | None:
        sql = (
            f"UPDATE run SET fence = {self._sql.next_fence}"
            " WHERE no = :no AND (status = 'paused' OR status = 'pending' AND owner IS NULL)"
            f" AND head = :head AND fence = :fence RETURNING {RUN_COLUMNS}"
        )
        # Also on a full disk: a run that is cancelled lets its request and its checkpoints go.
        return await self._statements.remove(one(run_of, sql, no=run.no, head=run.head, fence=run.fence))

    async def resume_run(self, run: RunRecord, segment: Checkpoint, *, owner: str | None) -> RunRecord | None:
        resumed = one(
            run_of,
            f"UPDATE run SET fence = {self._sql.next_fence}, resume_head = head,"
            " owner = CAST(:owner AS text), claims = 0,"
            " claimed_head = CASE WHEN CAST(:owner AS text) IS NULL THEN -1 ELSE head END"
            " WHERE no = :no AND status = 'paused' AND resume_head <> head AND head = :head"
            f" AND fence = :fence RETURNING {RUN_COLUMNS}",
            no=run.no,
            head=run.head,
            fence=run.fence,
            owner=owner,
        )

        def work() -> Steps[RunRecord | None]:
            found: RunRecord | None = yield resumed
            if found is None:
                return None
            yield done(
                "INSERT INTO checkpoint (run_no, step_id, loop_path, seq, data)"
                " VALUES (:run_no, :step_id, :loop_path, :seq, :data)"
                " ON CONFLICT (run_no, step_id, loop_path)"
                " DO UPDATE SET seq = excluded.seq, data = excluded.data",
                run_no=run.no,
                step_id=segment.step_id,
                loop_path=segment.loop_path,
                seq=run.head,
                data=segment.data,
            )
            yield count_open(run.no, len(segment.data))
            if owner is None:
                yield done(
                    "INSERT INTO queue (run_no, project_id) VALUES (:no, :project_id) ON CONFLICT DO NOTHING",
                    no=run.no,
                    project_id=run.project_id,
                )
            return found

        return await self._statements.write(work)

    async def request_cancel(self, run_id: str, *, reason: str) -> str | None:
        sql = (
            "UPDATE run SET cancel_reason = coalesce(cancel_reason, :reason) WHERE id = :id"
            " AND status IN ('pending', 'running', 'paused') RETURNING coalesce(owner, '')"
        )
        return await self._statements.write(one(lambda row: str(row[0]), sql, id=run_id, reason=reason))

    async def cancel_requests(self, owner: str) -> dict[str, str]:
        sql = "SELECT id, cancel_reason FROM run WHERE owner = :owner AND cancel_reason IS NOT NULL"
        return await self._statements.read(Ask(sql, {"owner": owner}, dict))

    async def owned_runs(self, owner: str) -> dict[str, int]:
        sql = "SELECT id, head FROM run WHERE owner = :owner"
        return await self._statements.read(Ask(sql, {"owner": owner}, dict))

    async def release_run(self, run_id: str, owner: str) -> None:
        await self._statements.write(lambda: _let_go("id = :id AND owner = :owner", id=run_id, owner=owner))


def _let_go(which: str, **named: Any) -> Steps[None]:
    """Gives runs back, to be claimed before those that have not begun."""
    # A process that lets a run go has survived it: that claim says nothing against the run.
    claims = "CASE WHEN claims > 0 THEN claims - 1 ELSE 0 END"
    freed = yield fetch(f"UPDATE run SET owner = NULL, claims = {claims} WHERE {which} RETURNING no", **named)
    yield done(
        "INSERT INTO queue (run_no, project_id, pick) SELECT no, project_id, 0 FROM run"
        " WHERE no = ANY (:freed) ON CONFLICT DO NOTHING",
        freed=[no for (no,) in freed],
    )


def _lease_of(row: Any) -> HeldLease:
    owner, since, expires_at, runs, host, pid, version, executes_runs = row
    since, expires_at = (at if isinstance(at, str) else iso(at) for at in (since, expires_at))
    return HeldLease(owner, ProcessFacts(host, pid, version, bool(executes_runs)), since, expires_at, runs)
