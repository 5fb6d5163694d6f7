"""Parts of budgets that are held between the decision about a reservation and its event.

One process has the file, so it remembers them itself.
"""

import sqlite3
import uuid
from decimal import Decimal
from typing import NamedTuple

from runglass.log.money import ZERO, add_usd
from runglass.store.catalog_records import project_of
from runglass.store.process_records import BudgetDecision
from runglass.store.records import RunRecord
from runglass.store.sqlite.connections import Connections

PROJECT = (
    "SELECT id, org, name, capture, budget_usd, spent_usd, retention_days, content_retention_days,"
    " reserved_usd, allowed_models, data_bytes, capture_failed, capture_sample FROM project"
)


class Hold(NamedTuple):
    """A part of a budget that is held for a run."""

    run: RunRecord
    usd: Decimal


class Budgets:
    """The part of the store that decides who gets a part of a budget."""

    _db: Connections
    _holds: dict[uuid.UUID, Hold]

    async def hold_budget(self, hold: uuid.UUID, run: RunRecord, usd: Decimal) -> BudgetDecision:
        def work(db: sqlite3.Connection) -> BudgetDecision:
            held = ZERO
            for other, (of_run, part) in list(self._holds.items()):
                sql = "SELECT 1 FROM run WHERE no = ? AND fence = ? AND owner IS NOT NULL"
                if db.execute(sql, (of_run.no, of_run.fence)).fetchone() is None:
                    del self._holds[other]
                elif of_run.project_id == run.project_id:
                    held = add_usd(held, part)
            row = db.execute(f"{PROJECT} WHERE id = ?", (run.project_id,)).fetchone()
            decision = BudgetDecision(None if row is None else project_of(row), held)
            if decision.has_room_for(usd):
                self._holds[hold] = Hold(run, usd)
            return decision

        return await self._db.write(work)

    async def release_budget(self, hold: uuid.UUID) -> None:
        self._holds.pop(hold, None)
