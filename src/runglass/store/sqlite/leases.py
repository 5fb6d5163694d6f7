"""How runs of an SQLite file are claimed, and what else of leases is SQLite's own way.

And the parts of budgets that are held between the decision about a reservation and its event: one process has
the file, so it remembers them itself.
"""

import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from uuid import UUID

from runglass.log.money import ZERO, add_usd
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
from runglass.store.records import RunRecord
from runglass.store.run_tables import RUN_COLUMNS, run_of
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import SQLITE
from runglass.store.statements import Steps, changed, done, every, fetch

_LOST = (
    f"WITH {DEAD.format(':now')} SELECT no FROM run WHERE owner IN (SELECT owner FROM dead)"
    " AND (:project_id IS NULL OR project_id = :project_id) ORDER BY no LIMIT :limit"
)
_FIRST = "SELECT run_no, pick FROM queue {} ORDER BY pick, run_no LIMIT :limit"
_CLAIM = (
    f"{CLAIM.format(SQLITE.next_fence, ':numbers')} AND (no = ANY (:lost) OR owner IS NULL"
    " AND (status IN ('pending', 'running') OR status = 'paused' AND resume_head = head))"
    f" RETURNING {RUN_COLUMNS}"
)
_FLOWS = (
    "SELECT flow.id, org || '/' || project.name || '/' || slug AS path FROM flow"
    " JOIN project ON project.id = project_id WHERE path = ANY (:paths)"
)
_FIRST_OF_FLOWS = (
    "SELECT run_no, pick, flow_id FROM queue JOIN run ON run.no = run_no WHERE queue.project_id = :project_id"
    " AND NOT flow_id = ANY (:full) ORDER BY pick, run_no LIMIT :limit"
)


class SqliteLeases(Leases):
    """The part of the store that ties runs to processes."""

    _db: Connections
    _holds: dict[UUID, tuple[RunRecord, Decimal]]

    async def hold_lease(
        self, owner: str, *, until: str, renew: bool, process: ProcessFacts = UNTOLD
    ) -> bool:
        if renew:
            sql = "UPDATE lease SET expires_at = :until WHERE owner = :owner"
            return await self._write(changed(sql, until=until, owner=owner)) == 1
        sql = (
            "INSERT INTO lease (expires_at, owner, since, host, pid, version, executes_runs)"
            " VALUES (:until, :owner, now(), :host, :pid, :version, :executes_runs)"
        )
        # Also on a full disk: without a process nobody could make room.
        held = changed(sql, until=until, owner=owner, **process._asdict())
        return await self._remove(held) == 1

    async def set_weights(self, weights: Mapping[int, float]) -> None:
        # One process has the file, and has told all that there are.
        await self._remove(done("UPDATE project SET weight = 1 WHERE weight <> 1"))
        await super().set_weights(weights)

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
        def work() -> Steps[list[RunRecord]]:
            # A process whose lease has run out finds that, and stops, before it has a run to append to.
            yield done("DELETE FROM lease WHERE expires_at <= :now AND owner <> :owner", now=now, owner=owner)
            lost = yield fetch(_LOST, owner=owner, now=now, project_id=project_id, limit=limit)
            places = {no: place for place, (no,) in enumerate(lost, -limit)}
            if most_each is not None or most_of_flows:
                waiting = yield from _first_with_room(
                    limit=limit, project_id=project_id, most_each=most_each, most_of_flows=most_of_flows
                )
            elif project_id is not None:
                of_project = _FIRST.format("WHERE project_id = :project_id")
                waiting = yield fetch(of_project, project_id=project_id, limit=limit)
            else:
                waiting = yield fetch(_FIRST.format(""), limit=limit)
            # Those that were begun come first; each has its place among its project's already.
            places = dict([*places.items(), *((no, place) for place, (no, _) in enumerate(waiting))][:limit])
            if not places:
                return []
            numbers = list(places)
            yield done("DELETE FROM queue WHERE run_no = ANY (:numbers)", numbers=numbers)
            values = {"owner": owner, "numbers": numbers, "lost": [no for (no,) in lost]}
            claimed: list[RunRecord] = yield every(run_of, _CLAIM, **values)
            return sorted(claimed, key=lambda run: places[run.no])

        return await self._write(work)

    async def hold_budget(self, hold: UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        def work(db: sqlite3.Connection) -> BudgetDecision:
            # Before the project is read: a reservation stored meanwhile counts twice, and never not at all.
            held = ZERO
            for other, (of_run, part) in list(self._holds.items()):
                if of_run.project_id != run.project_id:
                    continue
                sql = "SELECT 1 FROM run WHERE no = ? AND fence = ? AND owner IS NOT NULL"
                if db.execute(sql, (of_run.no, of_run.fence)).fetchone() is None:
                    self._holds.pop(other, None)
                else:
                    held = add_usd(held, part)
            row = db.execute(f"{SQLITE.project} WHERE id = ?", (run.project_id,)).fetchone()
            decision = BudgetDecision(None if row is None else project_of(row), held)
            if decision.has_room_for(usd):
                self._holds[hold] = run, usd
            return decision

        return await self._db.read_inline(work)

    async def release_budget(self, hold: UUID) -> None:
        self._holds.pop(hold, None)


def _first_with_room(
    *, limit: int, project_id: int | None, most_each: int | None, most_of_flows: Mapping[str, int]
) -> Steps[list[tuple[int, float]]]:
    """The first that wait and give no project and no flow more runs with an owner than it may have."""
    begun = "SELECT {0}, count(*) FROM run INDEXED BY run_by_owner WHERE owner IS NOT NULL GROUP BY {0}"
    held = dict((yield fetch(begun.format("project_id"))))
    room_of_flow: dict[str, int] = {}
    if most_of_flows:
        held_by_flow = dict((yield fetch(begun.format("flow_id"))))
        for flow_id, path in (yield fetch(_FLOWS, paths=list(most_of_flows))):
            room_of_flow[flow_id] = most_of_flows[path] - held_by_flow.get(flow_id, 0)
    # The runs of a flow with no room are passed over, and of one with some as many are taken.
    full = [flow_id for flow_id, room in room_of_flow.items() if room <= 0]
    found: list[tuple[int, float]] = []
    for (project,) in (yield fetch(f"WITH RECURSIVE {WAITING_PROJECTS} SELECT id FROM projects")):
        room = limit if most_each is None else min(limit, most_each - held.get(project, 0))
        if room <= 0 or project is None or project_id not in (None, project):
            continue
        for no, pick, flow_id in (yield fetch(_FIRST_OF_FLOWS, project_id=project, full=full, limit=room)):
            left = room_of_flow.get(flow_id, limit)
            if left > 0:
                room_of_flow[flow_id] = left - 1
                found.append((no, pick))
    return sorted(found, key=lambda row: (row[1], row[0]))[:limit]
