"""Parts of budgets that are held between the decision about a reservation and its event, over all processes.

The decision locks the row of the project, for no longer than it takes. A hold is given back once the log has
the reservation; one whose process is gone ends when its run is taken over.
"""

import uuid
from decimal import Decimal

from runglass.store.catalog_records import project_of
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.dialect import POSTGRES
from runglass.store.process_records import BudgetDecision
from runglass.store.records import RunRecord

_ENDED_HOLDS = (
    "DELETE FROM budget_hold WHERE project_id = $1 AND NOT EXISTS (SELECT FROM run"
    " WHERE run.no = for_run AND run.fence = budget_hold.fence AND run.owner IS NOT NULL)"
)


class Budgets:
    """The part of the store that decides who gets a part of a budget."""

    _db: Connections

    async def hold_budget(self, hold: uuid.UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        async def work(db: Db) -> BudgetDecision:
            await db.execute("SELECT FROM project WHERE id = $1 FOR NO KEY UPDATE", run.project_id)
            await db.execute(_ENDED_HOLDS, run.project_id)
            # Before the totals are: a reservation stored meanwhile counts twice, and never not at all.
            held = await db.fetchval("SELECT sum(usd) FROM budget_hold WHERE project_id = $1", run.project_id)
            row = await db.fetchrow(f"{POSTGRES.project} WHERE id = $1", run.project_id)
            decision = BudgetDecision(None if row is None else project_of(row), held or Decimal(0))
            if decision.has_room_for(usd):
                await db.execute(
                    "INSERT INTO budget_hold (id, project_id, for_run, fence, usd)"
                    " VALUES ($1, $2, $3, $4, $5)",
                    *(hold, run.project_id, run.no, run.fence, usd),
                )
            return decision

        return await self._db.write(work)

    async def release_budget(self, hold: uuid.UUID) -> None:
        await self._db.repeat(lambda db: db.execute("DELETE FROM budget_hold WHERE id = $1", hold))
