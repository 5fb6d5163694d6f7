"""Runs in PostgreSQL: created, appended to, and read back as logs and traces.

How appends are written is in `append.py` and in the function `append_rows` of the database; how runs are
created, in `run_creation.py` and in `create_runs`; lists are in `run_lists.py`, calls in `calls.py`, leases
and claims in `leases.py`.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from runglass.errors import DuplicateIdempotencyKey, RunPurged, StoreError
from runglass.store.postgres.append import AppendQueue
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_creation import RunCreation
from runglass.store.postgres.run_requests import RunRequests
from runglass.store.postgres.run_rows import RUN, run_of
from runglass.store.postgres.sql_helpers import every, one, page
from runglass.store.records import Append, AttemptKey, NewRun, OpenedTrace, RawRow, RunRecord, StepRow

_EVENTS = "SELECT seq, data FROM event WHERE run_no = $1 AND seq > $2 ORDER BY seq"
_STEPS = "SELECT position, data FROM step WHERE run_no = $1 AND position > $2 ORDER BY position"
_CONTENT = "SELECT data FROM event WHERE run_no = $1 AND seq IN ($2, $3) ORDER BY seq"
_STEP = "SELECT position, step_id, loop_path, attempt, status, data"
_KEYS = "SELECT position, loop_path, attempt"
_OF_STEP = (
    "WHERE run_no = $1 AND step_id = $2 AND ($3::text IS NULL"
    " OR right(',' || loop_path, length($3) + 1) = ',' || $3)"
)
"""The condition for attempts of a step, in iterations whose path ends like this where it is given."""


class Runs:
    """The part of the store that grows with every run."""

    _db: Connections
    _appends: AppendQueue
    _creation: RunCreation
    _requests: RunRequests

    async def create_run(self, run: NewRun) -> RunRecord:
        created = await self._creation.create(run)
        if created is None:
            key = None if run.call is None else run.call.key
            raise DuplicateIdempotencyKey(f"there has been a call under the Idempotency-Key {key!r}")
        return created

    async def append(self, batch: Append) -> None:
        await self._appends.append(batch)

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._db.read(one(run_of, f"{RUN} WHERE id = $1", run_id))

    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        sql = "SELECT result, error FROM run_outcome WHERE run_no = $1"
        return await self._db.read(one(_outcome, sql, run_no)) or (None, None)

    async def session_runs(
        self, project_id: int, session_id: str, *, after: str, limit: int
    ) -> list[RunRecord]:
        sql = f"{RUN} WHERE session_id = $1 AND id > $2 AND project_id = $3 ORDER BY id LIMIT $4"
        return await self._db.read(every(run_of, sql, session_id, after, project_id, limit))

    async def request(self, run_no: int) -> bytes | None:
        return await self._requests.read(run_no)

    async def paused_runs(self) -> list[RunRecord]:
        return await self._db.read(every(run_of, f"{RUN} WHERE status = 'paused' ORDER BY no"))

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        async def work(db: Db) -> list[tuple[int, bytes]]:
            found = await page(db, _EVENTS, run_no, after, limit_bytes=limit_bytes)
            if not found or found[0][0] != after + 1:
                await _require_run(db, run_no)
            return found

        return await self._db.read(work)

    async def trace(
        self,
        run_id: str,
        *,
        project_id: int,
        flow_id: str | None = None,
        limit_bytes: int,
        most_log_bytes: int = sys.maxsize,
    ) -> OpenedTrace | None:
        async def work(db: Db) -> OpenedTrace | None:
            row = await db.fetchrow(f"{RUN} WHERE id = $1", run_id)
            run = None if row is None else run_of(row)
            if run is None or run.project_id != project_id or flow_id not in (None, run.flow_id):
                return None
            if run.log_bytes > most_log_bytes:
                return OpenedTrace(run, [])
            steps = await page(db, _STEPS, run.no, 0, limit_bytes=limit_bytes)
            seqs = run.content_seqs
            content = [row[0] for row in await db.fetch(_CONTENT, run.no, *seqs)] if seqs else []
            return OpenedTrace(run, steps, content)

        return await self._db.read_at_one_moment(work)

    async def trace_page(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        async def work(db: Db) -> list[tuple[int, bytes]]:
            found = await page(db, _STEPS, run_no, after, limit_bytes=limit_bytes)
            # A page that is short for want of rows would pass for the last one of the trace.
            await _require_run(db, run_no)
            return found

        return await self._db.read(work)

    async def steps(self, run_no: int) -> list[StepRow]:
        sql = f"{_STEP} FROM step WHERE run_no = $1 ORDER BY position"
        return await self._db.read(every(StepRow._make, sql, run_no))

    async def attempts(self, run_no: int, step_id: str) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step WHERE run_no = $1 AND step_id = $2 UNION ALL"
            f" {_STEP} FROM step_attempt WHERE run_no = $1 AND step_id = $2 ORDER BY 1, 4"
        )
        return await self._db.read(every(StepRow._make, sql, run_no, step_id))

    async def attempt_keys(
        self, run_no: int, step_id: str, *, position: int | None = None, loop_index: str | None = None
    ) -> list[AttemptKey]:
        where = f"{_OF_STEP} AND ($4::bigint IS NULL OR position = $4)"
        sql = f"{_KEYS} FROM step {where} UNION ALL {_KEYS} FROM step_attempt {where} ORDER BY 1, 3"
        return await self._db.read(
            every(lambda row: AttemptKey(*row), sql, run_no, step_id, loop_index, position)
        )

    async def newest_position(
        self, run_no: int, step_id: str, *, loop_index: str | None = None
    ) -> int | None:
        sql = f"SELECT position FROM step {_OF_STEP} ORDER BY position DESC LIMIT 1"
        return await self._db.read(one(lambda row: int(row[0]), sql, run_no, step_id, loop_index))

    async def attempt_data(self, run_no: int, keys: Sequence[AttemptKey], *, limit_bytes: int) -> list[bytes]:
        # An attempt is in one of the two, and moves from the first to the second when the next one starts.
        sql = (
            "SELECT data FROM step WHERE run_no = $1 AND position = $2 AND attempt = $3 UNION ALL"
            " SELECT data FROM step_attempt WHERE run_no = $1 AND position = $2 AND attempt = $3"
        )

        async def work(db: Db) -> list[bytes]:
            found, size = [], 0
            for key in keys:
                data = await db.fetchval(sql, run_no, key.position, key.attempt)
                if data is None:
                    await _require_run(db, run_no)
                found.append(data)
                size += len(data)
                if size >= limit_bytes:
                    break
            return found

        return await self._db.read(work)

    async def open_steps(self, run_no: int) -> tuple[list[StepRow], int]:
        async def work(db: Db) -> tuple[list[StepRow], int]:
            rows = await db.fetch(
                f"{_STEP} FROM step WHERE run_no = $1 AND status IN ('running', 'failed') ORDER BY position",
                run_no,
            )
            last = await db.fetchval("SELECT coalesce(max(position), 0) FROM step WHERE run_no = $1", run_no)
            return [StepRow._make(row) for row in rows], int(last)

        return await self._db.read_at_one_moment(work)

    async def attempts_at(self, run_no: int, position: int) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step_attempt WHERE run_no = $1 AND position = $2 UNION ALL"
            f" {_STEP} FROM step WHERE run_no = $1 AND position = $2 ORDER BY 4"
        )
        return await self._db.read(every(StepRow._make, sql, run_no, position))

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


async def _require_run(db: Db, run_no: int) -> None:
    """Raises RunPurged if there is no such run any more. To be asked after the read that it is about."""
    if await db.fetchval("SELECT 1 FROM run WHERE no = $1", run_no) is None:
        raise RunPurged(f"run number {run_no} was deleted while it was read")


def _raw(row: Any) -> RawRow:
    return {name: _raw_value(value) for name, value in row.items()}


def _raw_value(value: Any) -> int | float | str | bytes | None:
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list) else value


def _outcome(row: Any) -> tuple[bytes | None, bytes | None]:
    return row[0], row[1]
