"""What runs had when the server was started anew, and what processes had been told before that they have.

Which processes know of a loss, and how, is not known here.
"""

from __future__ import annotations

from typing import Any

from runglass.store.audit import note_change
from runglass.store.records import Setback
from runglass.store.statements import Statements, Steps, as_int, done, every, fetch, one
from runglass.support.clock import iso
from runglass.wire.admin_api import SERVER


class Setbacks:
    """The part of the store that remembers what it has lost."""

    _statements: Statements

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> bool:
        was_purged = (
            "SELECT 1 FROM audit WHERE project_id = :project_id AND action = 'run.purged'"
            " AND subject = :run_id"
        )
        last_start = "SELECT started_at FROM database_start ORDER BY noticed_at DESC LIMIT 1"
        where = "WHERE run_id = :run_id AND started_at = :started_at"

        def work() -> Steps[bool]:
            head = yield one(as_int, "SELECT head FROM run WHERE id = :run_id", run_id=run_id)
            if head is None and (yield fetch(was_purged, project_id=project_id, run_id=run_id)):
                return False
            [(started_at,)] = yield fetch(last_start)
            row = {"run_id": run_id, "started_at": started_at, "project_id": project_id, "head": head}
            # A run that had ended, or is gone, has no row yet; others may note the same just now.
            yield done(
                "INSERT INTO run_setback (run_id, started_at, project_id, head)"
                " VALUES (:run_id, :started_at, :project_id, :head) ON CONFLICT DO NOTHING",
                **row,
            )
            sql = f"SELECT head, had FROM run_setback {where} FOR UPDATE"
            [(head, had_before)] = yield fetch(sql, **row)
            # How far it had gone back is not known where others have gone on with it since.
            head = None if head is None else min(head, had - 1)
            sql = f"UPDATE run_setback SET head = :head, had = greatest(had, :had) {where}"
            yield done(sql, **{**row, "head": head, "had": had})
            # Whoever knows of most may not be the first to come.
            if had_before is None or had > had_before:
                action, now = (
                    ("run.lost", {}) if head is None else ("run.set_back", {"after": {"events": head}})
                )
                yield from note_change(
                    project_id, SERVER, action, run_id, **{"before": {"events": had}, **now}
                )
            return had_before is None

        return await self._statements.write(work)

    async def setbacks(self, run_id: str) -> list[Setback]:
        sql = (
            "SELECT run_id, project_id, head, had, noticed_at FROM run_setback WHERE run_id = :run_id"
            " ORDER BY noticed_at DESC"
        )
        return await self._statements.read(every(_setback_of, sql, run_id=run_id))


def _setback_of(row: Any) -> Setback:
    run_id, project_id, head, had, noticed_at = row
    return Setback(run_id, project_id, head, had, iso(noticed_at))
