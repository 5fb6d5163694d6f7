"""What runs had when the server was started anew, and what processes had been told before that they have.

Which processes know of a loss, and how, is not known here.
"""

from functools import partial
from typing import Any

from runglass.store.audit import note_change
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.sql_helpers import perform
from runglass.store.records import Setback
from runglass.store.statements import Statements, every
from runglass.support.clock import iso
from runglass.wire.admin_api import SERVER


class Setbacks:
    """The part of the store that remembers what it has lost."""

    _db: Connections
    _statements: Statements

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> bool:
        async def work(db: Db) -> bool:
            head = await db.fetchval("SELECT head FROM run WHERE id = $1", run_id)
            if head is None and await _was_purged(db, run_id, project_id):
                return False
            started_at = await db.fetchval(
                "SELECT started_at FROM database_start ORDER BY noticed_at DESC LIMIT 1"
            )
            # A run that had ended, or is gone, has no row yet; others may note the same just now.
            await db.execute(
                "INSERT INTO run_setback (run_id, started_at, project_id, head)"
                " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                *(run_id, started_at, project_id, head),
            )
            noted = await db.fetchrow(
                "SELECT head, had FROM run_setback WHERE run_id = $1 AND started_at = $2 FOR UPDATE",
                *(run_id, started_at),
            )
            # How far it had gone back is not known where others have gone on with it since.
            head = None if noted["head"] is None else min(noted["head"], had - 1)
            await db.execute(
                "UPDATE run_setback SET head = $3, had = greatest(had, $4)"
                " WHERE run_id = $1 AND started_at = $2",
                *(run_id, started_at, head, had),
            )
            # Whoever knows of most may not be the first to come.
            if noted["had"] is None or had > noted["had"]:
                action, now = (
                    ("run.lost", {}) if head is None else ("run.set_back", {"after": {"events": head}})
                )
                before = {"events": had}
                await perform(
                    partial(note_change, project_id, SERVER, action, run_id, before=before, **now), db
                )
            return noted["had"] is None

        return await self._db.write(work)

    async def setbacks(self, run_id: str) -> list[Setback]:
        sql = (
            "SELECT run_id, project_id, head, had, noticed_at FROM run_setback WHERE run_id = $1"
            " ORDER BY noticed_at DESC"
        )
        return await self._statements.read(every(_setback_of, sql, run_id))


async def _was_purged(db: Db, run_id: str, project_id: int) -> bool:
    sql = "SELECT EXISTS (SELECT FROM audit WHERE project_id = $2 AND action = 'run.purged' AND subject = $1)"
    return bool(await db.fetchval(sql, run_id, project_id))


def _setback_of(row: Any) -> Setback:
    run_id, project_id, head, had, noticed_at = row
    return Setback(run_id, project_id, head, had, iso(noticed_at))
