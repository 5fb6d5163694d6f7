"""Runs in PostgreSQL: created, appended to, imported, every row of one, and what a failover has lost of them.

How appends are written is in `append.py` and in the function `append_rows` of the database; how runs are
created, in `run_creation.py` and in `create_runs`; leases and claims are in `leases.py`. A setback is what a
run had when the server was started anew, with what processes had been told before that it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from runglass.store.audit import note_change
from runglass.store.calls import repeated
from runglass.store.postgres.append import AppendQueue
from runglass.store.postgres.append_rows import RunFacts
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_creation import RunCreation, RunRequests
from runglass.store.postgres.sql_helpers import page
from runglass.store.records import Append, NewRecording, NewRun, RawRow, RunRecord, Setback
from runglass.store.run_logs import SqlRunLog
from runglass.store.statements import Steps, as_int, done, every, fetch, one
from runglass.support.clock import iso
from runglass.wire.admin_api import SERVER

log = logging.getLogger(__name__)


async def each_row(db: Db, sql: str, key: int | str, take: Callable[[RawRow], None]) -> None:
    """Hands each row to `take`, which may wait."""
    async for row in db.cursor(sql.replace(":key", "$1"), key, prefetch=1):
        await asyncio.to_thread(take, {name: _raw_value(value) for name, value in row.items()})


def _raw_value(value: Any) -> int | float | str | bytes | None:
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value


class PostgresRunLog(SqlRunLog):
    """The part of the store that grows with every run."""

    _db: Connections
    _appends: AppendQueue
    _creation: RunCreation[NewRun]
    _recordings: RunCreation[NewRecording]
    _requests: RunRequests
    _page = staticmethod(page)
    _each_row = staticmethod(each_row)

    def _columns_of(self, summary: bytes) -> Mapping[str, Any]:
        return RunFacts.of(summary).columns

    async def create_run(self, run: NewRun) -> RunRecord:
        created = await self._creation.create(run)
        if created is None:
            raise repeated(None if run.call is None else run.call.key)
        return created

    async def create_recording(self, run: NewRecording) -> RunRecord | None:
        return await self._recordings.create(run)

    async def append(self, batch: Append) -> None:
        await self._appends.append(batch)

    async def request(self, run_no: int) -> bytes | None:
        return await self._requests.read(run_no)

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> None:
        was_purged = (
            "SELECT 1 FROM audit WHERE project_id = :project_id AND action = 'run.purged'"
            " AND subject = :run_id"
        )
        last_start = "SELECT started_at FROM database_start ORDER BY noticed_at DESC LIMIT 1"
        where = "WHERE run_id = :run_id AND started_at = :started_at"

        def work() -> Steps[str | None]:
            head = yield one(as_int, "SELECT head FROM run WHERE id = :run_id", run_id=run_id)
            if head is None and (yield fetch(was_purged, project_id=project_id, run_id=run_id)):
                return None
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
            if had_before is not None:
                return None
            return f"run {run_id} is lost" if head is None else f"run {run_id} has {head} events"

        if noted := await self._statements.write(work):
            log.error("the store has gone back, and %s: %d were stored, or others", noted, had)

    async def setbacks(self, run_id: str) -> list[Setback]:
        sql = "SELECT head, had, noticed_at FROM run_setback WHERE run_id = :run_id ORDER BY noticed_at DESC"
        return await self._statements.read(every(_setback_of, sql, run_id=run_id))


def _setback_of(row: Any) -> Setback:
    head, had, noticed_at = row
    return Setback(head, had, iso(noticed_at))
