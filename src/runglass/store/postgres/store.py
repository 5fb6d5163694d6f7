"""The store of many machines: one PostgreSQL, which any number of processes share.

Connections and transactions are in `connections.py`, the schema in `sql/` and `migrations.py`. Appends are
written together (`append.py`), by a function of the database, and new runs as well (`run_creation.py`). Other
queries that PostgreSQL has for itself are in `leases.py`. What both kinds of store do alike is not here.

A setback is what a run had when the server was started anew, with what processes had been told before that it
has. Where a whole month has no run left, its partitions are dropped, which takes no longer for a large month
than for a small one. A deleted row is found by nobody. Its bytes stay in the files of the database until
those are vacuumed and written over, and in its log, its standbys and its backups for as long as these are
kept; that is not for a client of the database to change, see decision 0036.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

import msgspec

from runglass.store.audit import note_change
from runglass.store.base import Store
from runglass.store.calls import repeated
from runglass.store.overview import PoolUse
from runglass.store.postgres.append import AppendQueue
from runglass.store.postgres.append_rows import RunFacts
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.leases import PostgresLeases
from runglass.store.postgres.migrations import make_months, migrate_postgres, migrations, months_ahead
from runglass.store.postgres.run_creation import EXECUTED, RECORDED, RunCreation, RunRequests
from runglass.store.postgres.sql_helpers import POSTGRES, SEARCH_SQL, page, perform
from runglass.store.query_index import USUAL, SearchLimits
from runglass.store.records import Append, NewRecording, NewRun, RawRow, RunRecord, Setback
from runglass.store.removal import MONTH_BITS
from runglass.store.statements import Steps, as_int, done, every, fetch, one
from runglass.support.clock import Clock, iso
from runglass.wire.admin_api import SERVER

log = logging.getLogger(__name__)


class PostgresStore(PostgresLeases, Store):
    """A store in a PostgreSQL database, at an address as `postgresql://user@host/database`.

    `patience_s`: how long a call waits for a database that is away, and `append_patience_s` an append; by
    default as long. `clock` is that of this machine. Unless it `migrates`, a database of an older version is
    refused.
    """

    _sql = POSTGRES
    _search_sql = SEARCH_SQL
    _perform = staticmethod(perform)
    _page = staticmethod(page)

    def __init__(
        self,
        address: str,
        *,
        patience_s: float = 10.0,
        append_patience_s: float | None = None,
        clock: Clock | None = None,
        migrates: bool = True,
        search: SearchLimits = USUAL,
    ) -> None:
        self._search = search
        self._migrates = migrates
        self._db = Connections(address, patience_s=patience_s, clock=clock)
        self.clock = self._db.clock
        self._appends = AppendQueue(self._db, patience_s=append_patience_s or patience_s)
        self._creation = RunCreation(self._db, EXECUTED)
        self._recordings = RunCreation(self._db, RECORDED)
        self._requests = RunRequests(self._db)
        self._importing = set()
        self._months_gone: set[int] = set()
        self._holder = uuid.uuid4()
        self._months_ahead = months_ahead()

    async def __aenter__(self) -> Self:
        await self._db.open()
        try:
            await migrate_postgres(self._db, migrations(), migrates=self._migrates)
            await self._db.read(self._db.starts.begin)
        except BaseException:
            await self._db.close()
            raise
        return self

    @property
    def pool(self) -> PoolUse | None:
        return self._db.pool

    @property
    def generation(self) -> int:
        return self._db.starts.generation

    async def __aexit__(self, *exc: object) -> None:
        await self._creation.aclose()
        await self._recordings.aclose()
        await self._appends.aclose()
        await self._db.close()

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

        if noted := await self._write(work):
            log.error("the store has gone back, and %s: %d were stored, or others", noted, had)

    async def setbacks(self, run_id: str) -> list[Setback]:
        sql = "SELECT head, had, noticed_at FROM run_setback WHERE run_id = :run_id ORDER BY noticed_at DESC"
        return await self._read(every(lambda row: Setback(row[0], row[1], iso(row[2])), sql, run_id=run_id))

    async def purge_rows(self, runs: Sequence[int], *, limit_rows: int, limit_bytes: int) -> int:
        for month in {run_no >> MONTH_BITS for run_no in runs} - self._months_gone:
            # By itself: everybody who reads or appends waits until it is committed.
            sql = "SELECT drop_month_of(:run_no)"
            if await self._read(one(lambda row: bool(row[0]), sql, run_no=month << MONTH_BITS)):
                self._months_gone.add(month)
        return await super().purge_rows(runs, limit_rows=limit_rows, limit_bytes=limit_bytes)

    async def compact(self, *, limit_bytes: int) -> bool:
        # Months that are due are dropped with their last run, and all other space is the database's. Marks
        # are asked for within seconds.
        async def work(db: Db) -> None:
            await db.execute("DELETE FROM commit_mark WHERE made_at < now() - interval '1 day'")

        await self._db.write(work)
        await make_months(self._db, self._months_ahead)
        return False

    @staticmethod
    async def _each_row(db: Db, sql: str, key: int | str, take: Callable[[RawRow], None]) -> None:
        """Hands each row to `take`, which may wait."""
        async for row in db.cursor(sql.replace(":key", "$1"), key, prefetch=1):
            await asyncio.to_thread(take, {name: _raw_value(value) for name, value in row.items()})


def _raw_value(value: Any) -> int | float | str | bytes | None:
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value
