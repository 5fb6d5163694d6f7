"""Runs in PostgreSQL: created, appended to, imported, and every row of one.

How appends are written is in `append.py` and in the function `append_rows` of the database; how runs are
created, in `run_creation.py` and in `create_runs`; leases and claims are in `leases.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from runglass.errors import StoreError
from runglass.store.calls import repeated
from runglass.store.postgres.append import AppendQueue
from runglass.store.postgres.append_rows import RunFacts
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_creation import RunCreation, RunRequests
from runglass.store.postgres.setbacks import Setbacks
from runglass.store.postgres.sql_helpers import page
from runglass.store.records import Append, NewRun, RawRow, RunRecord
from runglass.store.run_logs import SqlRunLog


class PostgresRunLog(SqlRunLog, Setbacks):
    """The part of the store that grows with every run."""

    _db: Connections
    _appends: AppendQueue
    _creation: RunCreation
    _requests: RunRequests
    _page = staticmethod(page)

    def _columns_of(self, summary: bytes) -> Mapping[str, Any]:
        return RunFacts.of(summary).columns

    async def create_run(self, run: NewRun) -> RunRecord:
        created = await self._creation.create(run)
        if created is None:
            raise repeated(None if run.call is None else run.call.key)
        return created

    async def append(self, batch: Append) -> None:
        await self._appends.append(batch)

    async def request(self, run_no: int) -> bytes | None:
        return await self._requests.read(run_no)

    async def raw_rows(self, run_id: str, take: Callable[[str, RawRow], None]) -> bool:
        began = False

        async def work(db: Db) -> bool:
            nonlocal began
            if began:
                raise StoreError(f"the connection was lost while the rows of run {run_id!r} were read")
            run_no = await db.fetchval("SELECT no FROM run WHERE id = $1", run_id)
            if run_no is None:
                return False
            began = True
            for table, column in await db.fetch(_TABLES_OF_RUNS):
                key = run_id if column == "run_id" else run_no
                sql = f"SELECT * FROM {table} WHERE {column} = $1"
                async for row in db.cursor(sql, key, prefetch=1):
                    await asyncio.to_thread(take, table, _raw(row))
            return True

        return await self._db.read_at_one_moment(work)


_TABLES_OF_RUNS = (
    "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
    " WHERE relkind IN ('r', 'p') AND NOT relispartition"
    " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('run'))"
    " AND (attname IN ('run_no', 'run_id') OR relname = 'run' AND attname = 'no') ORDER BY relname, attname"
)
"""Each table with rows of runs, told by its column that says of which, so that none is forgotten.

They are where `run` is found: a schema that bears the name of the role comes before it, and may be empty.
"""


def _raw(row: Any) -> RawRow:
    return {name: _raw_value(value) for name, value in row.items()}


def _raw_value(value: Any) -> int | float | str | bytes | None:
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value
