"""Which process goes on with which run: leases, and the runs that are claimed under them.

And the parts of budgets that are held between the decision about a reservation and its event: one process has
the file, so it remembers them itself.
"""

import math
import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from runglass.log.money import ZERO, add_usd
from runglass.store.catalog_records import project_of
from runglass.store.process_records import (
    NO_LIMITS,
    UNTOLD,
    BudgetDecision,
    HeldLease,
    ProcessFacts,
    QueuedRuns,
)
from runglass.store.records import Checkpoint, RunRecord
from runglass.store.run_tables import RUN, run_of
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.dialect import SQLITE
from runglass.store.sqlite.sql_helpers import count_open, now_text
from runglass.store.statements import Ask, Statements, changed, done, every, one

_FREE = (
    "status IN ('pending', 'running') AND (owner IS NULL OR"
    # No process takes over from itself, though its lease may have run out while it waited for the store.
    " (owner <> ? AND owner NOT IN (SELECT owner FROM lease WHERE expires_at > ?)))"
)
# A paused run whose next segment is stored can go on as well; the index has those that ever had one.
_FREE_PAUSED = (
    "resume_head >= 0 AND status = 'paused' AND resume_head = head AND (owner IS NULL OR"
    " (owner <> ? AND owner NOT IN (SELECT owner FROM lease WHERE expires_at > ?)))"
)
_ALL_FREE = (
    f"SELECT no, project_id FROM run WHERE {_FREE} UNION ALL"
    f" SELECT no, project_id FROM run INDEXED BY run_resumed WHERE {_FREE_PAUSED}"
)
_WAITING = (
    "SELECT project_id FROM run WHERE status IN ('pending', 'running') AND owner IS NULL UNION ALL"
    " SELECT project_id FROM run INDEXED BY run_resumed"
    " WHERE resume_head >= 0 AND status = 'paused' AND resume_head = head AND owner IS NULL"
)
_PLACE = (
    "SELECT run.project_id, flow_id, owner, org || '/' || project.name || '/' || slug FROM run"
    " JOIN project ON project.id = run.project_id JOIN flow ON flow.id = flow_id WHERE no = ?"
)
_BEGUN = (
    "SELECT count(*) FROM run WHERE project_id = ?1 AND owner IS NOT NULL AND ?2 IN ('', flow_id)"
    " AND status NOT IN ('completed', 'failed', 'cancelled')"
)
# A process that lets a run go has survived it: that claim says nothing against the run.
_LET_GO = "UPDATE run SET owner = NULL, claims = max(claims - 1, 0)"
# By status and id, as the index of a project's runs has them: ids are in the order of time.
_FREE_OF = " UNION ALL ".join(
    f"SELECT * FROM (SELECT no FROM run {status} AND project_id = ?3 AND"
    " (owner IS NULL OR (owner <> ?1 AND owner NOT IN (SELECT owner FROM lease WHERE expires_at > ?2)))"
    " ORDER BY id LIMIT ?4)"
    for status in (
        "WHERE status = 'pending'",
        "WHERE status = 'running'",
        "INDEXED BY run_resumed WHERE resume_head >= 0 AND status = 'paused' AND resume_head = head",
    )
)


class Hold(NamedTuple):
    """A part of a budget that is held for a run."""

    run: RunRecord
    usd: Decimal


class Leases:
    """The part of the store that ties runs to processes."""

    _db: Connections
    _statements: Statements
    _holds: dict[UUID, Hold]

    async def hold_lease(
        self, owner: str, *, until: str, renew: bool, process: ProcessFacts = UNTOLD
    ) -> bool:
        sql, values = "UPDATE lease SET expires_at = ? WHERE owner = ?", (until, owner)
        if not renew:
            sql = (
                "INSERT INTO lease (expires_at, owner, since, host, pid, version, executes_runs)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
            # Also on a full disk: without a process nobody could make room.
            return await self._statements.remove(changed(sql, *values, now_text(), *process)) == 1
        return await self._statements.write(changed(sql, *values)) == 1

    async def leases(self) -> list[HeldLease]:
        sql = (
            "SELECT owner, since, expires_at, (SELECT count(*) FROM run WHERE run.owner = lease.owner"
            " AND status IN ('pending', 'running')), host, pid, version, executes_runs FROM lease"
            " ORDER BY since, owner"
        )
        return await self._statements.read(every(_lease_of, sql))

    async def claim_maintenance(self, task: str, *, for_s: float) -> bool:
        # One process has the file to itself.
        return True

    async def end_lease(self, owner: str | None) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(f"{_LET_GO} WHERE status IN ('pending', 'running') AND owner = ?", (owner,))
            db.execute("DELETE FROM lease WHERE ?1 IS NULL OR owner = ?1", (owner,))

        await self._db.remove(work)

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
        is_limited = most_each is not None or bool(most_of_flows)

        def work(db: sqlite3.Connection) -> list[RunRecord]:
            if project_id is None:
                sql = f"SELECT no FROM ({_ALL_FREE}) ORDER BY no LIMIT ?"
                free = db.execute(sql, (owner, now, owner, now, -1 if is_limited else limit)).fetchall()
                if is_limited:
                    free = _with_room(db, [no for (no,) in free], most_each, most_of_flows)[:limit]
            else:
                found = db.execute(_FREE_OF, (owner, now, project_id, limit)).fetchall()
                free = sorted(found)[:limit]
            for (no,) in free:
                db.execute(
                    "UPDATE run SET owner = ?, fence = fence + 1, claimed_head = head,"
                    # A run that no process has had only waited for its turn: that is no claim against it.
                    " claims = CASE WHEN claimed_head = head THEN claims + 1"
                    " WHEN status IN ('pending', 'paused') AND owner IS NULL AND claimed_head < 0 THEN 0"
                    " ELSE 1 END WHERE no = ?",
                    (owner, no),
                )
            # A process whose lease has run out finds that, and stops, before it has a run to append to.
            db.execute("DELETE FROM lease WHERE expires_at <= ? AND owner <> ?", (now, owner))
            return [run_of(db.execute(f"{RUN} WHERE no = ?", (no,)).fetchone()) for (no,) in free]

        return await self._db.write(work)

    async def free_runs(self, owner: str, *, now: str) -> dict[int, int]:
        sql = f"SELECT project_id, count(*) FROM ({_ALL_FREE}) GROUP BY project_id"
        return await self._statements.read(Ask(sql, (owner, now, owner, now), dict))

    async def queued_runs(self, project_id: int, *, most: int) -> QueuedRuns:
        def work(db: sqlite3.Connection) -> QueuedRuns:
            waiting = db.execute(f"SELECT project_id FROM ({_WAITING}) LIMIT ?", (most,)).fetchall()
            own = sum(each == project_id for (each,) in waiting)
            return QueuedRuns(len(waiting), own, len(set(waiting)))

        return await self._db.read(work)

    async def set_weights(self, weights: Mapping[int, float]) -> None:
        """Does nothing: the one process on the file orders its runs itself."""

    async def claim_waiting(self, run: RunRecord) -> RunRecord | None:
        def work(db: sqlite3.Connection) -> RunRecord | None:
            claimed = db.execute(
                "UPDATE run SET fence = fence + 1"
                " WHERE no = ? AND (status = 'paused' OR status = 'pending' AND owner IS NULL)"
                " AND head = ? AND fence = ?",
                (run.no, run.head, run.fence),
            ).rowcount
            if claimed != 1:
                return None
            return run_of(db.execute(f"{RUN} WHERE no = ?", (run.no,)).fetchone())

        return await self._db.remove(work)

    async def resume_run(self, run: RunRecord, segment: Checkpoint, *, owner: str | None) -> RunRecord | None:
        def work(db: sqlite3.Connection) -> RunRecord | None:
            resumed = db.execute(
                "UPDATE run SET fence = fence + 1, resume_head = head, owner = ?1, claims = 0,"
                " claimed_head = CASE WHEN ?1 IS NULL THEN -1 ELSE head END"
                " WHERE no = ? AND status = 'paused' AND resume_head <> head AND head = ? AND fence = ?",
                (owner, run.no, run.head, run.fence),
            ).rowcount
            if resumed != 1:
                return None
            db.execute(
                "INSERT OR REPLACE INTO checkpoint (run_no, step_id, loop_path, seq, data)"
                " VALUES (?, ?, ?, ?, ?)",
                (run.no, segment.step_id, segment.loop_path, run.head, segment.data),
            )
            count_open(db, run.no, len(segment.data))
            return run_of(db.execute(f"{RUN} WHERE no = ?", (run.no,)).fetchone())

        return await self._db.write(work)

    async def request_cancel(self, run_id: str, *, reason: str) -> str | None:
        sql = (
            "UPDATE run SET cancel_reason = coalesce(cancel_reason, ?2) WHERE id = ?1"
            " AND status IN ('pending', 'running', 'paused') RETURNING coalesce(owner, '')"
        )
        return await self._statements.write(one(lambda row: str(row[0]), sql, run_id, reason))

    async def cancel_requests(self, owner: str) -> dict[str, str]:
        sql = " UNION ALL ".join(
            f"SELECT id, cancel_reason FROM run WHERE {status} AND owner = ?1 AND cancel_reason IS NOT NULL"
            for status in ("status IN ('pending', 'running')", "status = 'paused'")
        )
        return await self._statements.read(Ask(sql, (owner,), dict))

    async def owned_runs(self, owner: str) -> dict[str, int]:
        sql = " UNION ALL ".join(
            f"SELECT id, head FROM run WHERE {status} AND owner = ?1"
            for status in ("status IN ('pending', 'running')", "status = 'paused'")
        )
        return await self._statements.read(Ask(sql, (owner,), dict))

    async def release_run(self, run_id: str, owner: str) -> None:
        await self._statements.write(done(f"{_LET_GO} WHERE id = ? AND owner = ?", run_id, owner))

    async def hold_budget(self, hold: UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        def work(db: sqlite3.Connection) -> BudgetDecision:
            held = ZERO
            for other, (of_run, part) in list(self._holds.items()):
                sql = "SELECT 1 FROM run WHERE no = ? AND fence = ? AND owner IS NOT NULL"
                if db.execute(sql, (of_run.no, of_run.fence)).fetchone() is None:
                    del self._holds[other]
                elif of_run.project_id == run.project_id:
                    held = add_usd(held, part)
            row = db.execute(f"{SQLITE.project} WHERE id = ?", (run.project_id,)).fetchone()
            decision = BudgetDecision(None if row is None else project_of(row), held)
            if decision.has_room_for(usd):
                self._holds[hold] = Hold(run, usd)
            return decision

        return await self._db.write(work)

    async def release_budget(self, hold: UUID) -> None:
        self._holds.pop(hold, None)


def _with_room(
    db: sqlite3.Connection, free: Sequence[int], most_each: int | None, most_of_flows: Mapping[str, int]
) -> list[tuple[int]]:
    """Those of the free runs that give no project and no flow more runs with an owner than it may have."""
    room: dict[tuple[int, str], float] = {}
    chosen = []
    for no in free:
        project_id, flow_id, owner, path = db.execute(_PLACE, (no,)).fetchone()
        limits = {(project_id, ""): most_each, (project_id, flow_id): most_of_flows.get(path)}
        for (_, flow), most in limits.items():
            if (project_id, flow) not in room:
                (begun,) = db.execute(_BEGUN, (project_id, flow)).fetchone()
                room[project_id, flow] = math.inf if most is None else most - begun
        if owner is not None or all(room[each] > 0 for each in limits):
            chosen.append((no,))
            for each in limits:
                room[each] -= owner is None
    return chosen


def _lease_of(row: Any) -> HeldLease:
    owner, since, expires_at, runs, host, pid, version, executes_runs = row
    process = ProcessFacts(host, pid, version, bool(executes_runs))
    return HeldLease(owner, process, since, expires_at, runs)
