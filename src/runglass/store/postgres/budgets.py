"""Parts of budgets that are held between the decision about a reservation and its event, over all processes.

The decision locks the row of the project, for no longer than it takes. A hold is given back once the log has
the reservation; one whose process is gone ends when its run is taken over.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from functools import partial

from runglass.store.catalog_records import project_of
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.dialect import POSTGRES
from runglass.store.postgres.sql_helpers import perform
from runglass.store.process_records import BudgetDecision
from runglass.store.records import RunRecord
from runglass.store.statements import Statements, Steps, done, fetch, one

_ENDED_HOLDS = (
    "DELETE FROM budget_hold WHERE project_id = :project_id AND NOT EXISTS (SELECT FROM run"
    " WHERE run.no = for_run AND run.fence = budget_hold.fence AND run.owner IS NOT NULL)"
)


class Budgets:
    """The part of the store that decides who gets a part of a budget."""

    _db: Connections
    _statements: Statements

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

        return await self._statements.write(work)

    async def release_budget(self, hold: uuid.UUID) -> None:
        sql = "DELETE FROM budget_hold WHERE id = :hold"
        await self._db.repeat(partial(perform, done(sql, hold=hold)))
