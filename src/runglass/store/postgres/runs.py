"""Runs in PostgreSQL: created, appended to, imported, and every row of one.

How appends are written is in `append.py` and in the function `append_rows` of the database; how runs are
created, in `run_creation.py` and in `create_runs`; leases and claims are in `leases.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import asdict

from runglass.store.calls import repeated
from runglass.store.postgres.append import AppendQueue
from runglass.store.postgres.append_rows import RunFacts
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_creation import RunCreation, RunRequests
from runglass.store.postgres.setbacks import Setbacks
from runglass.store.postgres.sql_helpers import page
from runglass.store.records import Append, NewRecording, NewRun, RawRow, RunRecord
from runglass.store.run_logs import SqlRunLog


async def each_row(db: Db, sql: str, key: int | str, take: Callable[[RawRow], None]) -> None:
    """Hands each row to `take`, which may wait."""
    async for row in db.cursor(sql.replace(":key", "$1"), key, prefetch=1):
        await asyncio.to_thread(take, {name: _raw_value(value) for name, value in row.items()})


def _raw_value(value: Any) -> int | float | str | bytes | None:
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value


class PostgresRunLog(SqlRunLog, Setbacks):
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

    async def create_recording(
        self, run: NewRun, *, trace_id: str, due_at: str, continues: str | None
    ) -> RunRecord | None:
        new = {**asdict(run), "call": None}
        return await self._recordings.create(
            NewRecording(**new, trace_id=trace_id, due_at=due_at, continues=continues)
        )

    async def append(self, batch: Append) -> None:
        await self._appends.append(batch)

    async def request(self, run_no: int) -> bytes | None:
        return await self._requests.read(run_no)
