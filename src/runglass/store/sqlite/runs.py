"""Runs in SQLite: created, appended to, and read back as logs and traces.

How an append is written is in `append.py`; lists are in `run_lists.py`, calls in `calls.py`, leases and
claims in `leases.py`.
"""

import sqlite3
import sys
from collections.abc import Callable, Sequence
from typing import Any

from runglass.errors import RunPurged
from runglass.log.trace import TERMINAL
from runglass.store.records import (
    Append,
    AttemptKey,
    NewRun,
    OpenedTrace,
    RawRow,
    RunRecord,
    StepRow,
)
from runglass.store.sqlite.append import write_append
from runglass.store.sqlite.calls import begin_call
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.run_rows import RUN, run_of
from runglass.store.sqlite.sql_helpers import (
    as_bytes,
    count_new_run,
    every,
    one,
    page,
)

# SQLite would give the number of a deleted row again, and readers and rows of the old run may still be there.
NEXT_NO = "(SELECT max(coalesce((SELECT max(no) FROM run), 0), last) + 1 FROM run_number)"
_STEPS = "SELECT position, data FROM step WHERE run_no = ? AND position > ? ORDER BY position"
_CONTENT = "SELECT data FROM event WHERE run_no = ? AND seq IN (?, ?) ORDER BY seq"
_STEP = "SELECT position, step_id, loop_path, attempt, status, data"
_KEYS = "SELECT position, loop_path, attempt"


class Runs:
    """The part of the store that grows with every run."""

    _db: Connections
    _deleted: bool

    async def create_run(self, run: NewRun) -> RunRecord:
        def work(db: sqlite3.Connection) -> RunRecord:
            if run.call is not None:
                begin_call(db, run.project_id, run.call, run.id, head=0)
            db.execute(
                "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture,"
                " session_id, summary, owner, key_id, open_bytes, change_no)"
                f" VALUES ({NEXT_NO}, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?,"
                " coalesce((SELECT run_changes + 1 FROM project WHERE id = ?), 0))",
                (
                    run.id,
                    run.project_id,
                    run.flow_id,
                    run.version,
                    run.trigger_type,
                    run.capture,
                    run.session_id,
                    run.summary,
                    run.owner,
                    run.key_id,
                    len(run.request),
                    run.project_id,
                ),
            )
            count_new_run(db, run.project_id, len(run.request))
            created = run_of(db.execute(f"{RUN} WHERE id = ?", (run.id,)).fetchone())
            db.execute("INSERT INTO run_request (run_no, request) VALUES (?, ?)", (created.no, run.request))
            return created

        return await self._db.write(work)

    async def append(self, batch: Append) -> None:
        if batch.spent_usd:
            batch.check_charge()
        # A run that is cancelled lets its request and its checkpoints go.
        write = self._db.remove if batch.status == "cancelled" else self._db.write
        await write(lambda db: write_append(db, batch))
        if batch.dropped or batch.status in TERMINAL:
            self._deleted = True

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._db.look_up(one(run_of, f"{RUN} WHERE id = ?", run_id))

    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        sql = "SELECT result, error FROM run_outcome WHERE run_no = ?"
        return await self._db.read(one(_outcome, sql, run_no)) or (None, None)

    async def session_runs(
        self, project_id: int, session_id: str, *, after: str, limit: int
    ) -> list[RunRecord]:
        sql = f"{RUN} WHERE session_id = ? AND id > ? AND project_id = ? ORDER BY id LIMIT ?"
        return await self._db.read(every(run_of, sql, session_id, after, project_id, limit))

    async def request(self, run_no: int) -> bytes | None:
        sql = "SELECT request FROM run_request WHERE run_no = ?"
        return await self._db.read(one(as_bytes, sql, run_no))

    async def paused_runs(self) -> list[RunRecord]:
        return await self._db.read(every(run_of, f"{RUN} WHERE status = 'paused' ORDER BY no"))

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        sql = "SELECT seq, data FROM event WHERE run_no = ? AND seq > ? ORDER BY seq"

        def work(db: sqlite3.Connection) -> list[tuple[int, bytes]]:
            found = page(db, sql, run_no, after, limit_bytes=limit_bytes)
            if not found or found[0][0] != after + 1:
                _require_run(db, run_no)
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
        def work(db: sqlite3.Connection) -> OpenedTrace | None:
            db.execute("BEGIN")
            # Leaves the transaction, well or not; an error on the way out hides none that came before it.
            with db:
                row = db.execute(f"{RUN} WHERE id = ?", (run_id,)).fetchone()
                run = None if row is None else run_of(row)
                if run is None or run.project_id != project_id or flow_id not in (None, run.flow_id):
                    return None
                if run.log_bytes > most_log_bytes:
                    return OpenedTrace(run, [])
                steps = page(db, _STEPS, run.no, 0, limit_bytes=limit_bytes)
                seqs = run.content_seqs
                content = [data for (data,) in db.execute(_CONTENT, (run.no, *seqs))] if seqs else []
                return OpenedTrace(run, steps, content)

        return await self._db.read(work)

    async def trace_page(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        def work(db: sqlite3.Connection) -> list[tuple[int, bytes]]:
            found = page(db, _STEPS, run_no, after, limit_bytes=limit_bytes)
            # A page that is short for want of rows would pass for the last one of the trace.
            _require_run(db, run_no)
            return found

        return await self._db.read(work)

    async def steps(self, run_no: int) -> list[StepRow]:
        sql = f"{_STEP} FROM step WHERE run_no = ? ORDER BY position"
        return await self._db.read(every(StepRow._make, sql, run_no))

    async def attempts(self, run_no: int, step_id: str) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step WHERE run_no = ?1 AND step_id = ?2 UNION ALL"
            f" {_STEP} FROM step_attempt WHERE run_no = ?1 AND step_id = ?2 ORDER BY 1, 4"
        )
        return await self._db.read(every(StepRow._make, sql, run_no, step_id))

    async def attempt_keys(
        self, run_no: int, step_id: str, *, position: int | None = None, loop_index: str | None = None
    ) -> list[AttemptKey]:
        where, values = _of_step(run_no, step_id, loop_index)
        if position is not None:
            where, values = f"{where} AND position = :position", values | {"position": position}
        sql = f"{_KEYS} FROM step {where} UNION ALL {_KEYS} FROM step_attempt {where} ORDER BY 1, 3"
        return await self._db.read(lambda db: [AttemptKey(*row) for row in db.execute(sql, values)])

    async def newest_position(
        self, run_no: int, step_id: str, *, loop_index: str | None = None
    ) -> int | None:
        where, values = _of_step(run_no, step_id, loop_index)
        sql = f"SELECT position FROM step {where} ORDER BY position DESC LIMIT 1"

        def work(db: sqlite3.Connection) -> int | None:
            row = db.execute(sql, values).fetchone()
            return None if row is None else int(row[0])

        return await self._db.read(work)

    async def attempt_data(self, run_no: int, keys: Sequence[AttemptKey], *, limit_bytes: int) -> list[bytes]:
        # An attempt is in one of the two, and moves from the first to the second when the next one starts.
        sql = (
            "SELECT data FROM step WHERE run_no = ?1 AND position = ?2 AND attempt = ?3 UNION ALL"
            " SELECT data FROM step_attempt WHERE run_no = ?1 AND position = ?2 AND attempt = ?3"
        )

        def work(db: sqlite3.Connection) -> list[bytes]:
            found, size = [], 0
            for key in keys:
                row = db.execute(sql, (run_no, key.position, key.attempt)).fetchone()
                if row is None:
                    _require_run(db, run_no)
                (data,) = row
                found.append(data)
                size += len(data)
                if size >= limit_bytes:
                    break
            return found

        return await self._db.read(work)

    async def open_steps(self, run_no: int) -> tuple[list[StepRow], int]:
        def work(db: sqlite3.Connection) -> tuple[list[StepRow], int]:
            rows = db.execute(
                f"{_STEP} FROM step WHERE run_no = ? AND status IN ('running', 'failed') ORDER BY position",
                (run_no,),
            ).fetchall()
            last = db.execute(
                "SELECT coalesce(max(position), 0) FROM step WHERE run_no = ?", (run_no,)
            ).fetchone()[0]
            return [StepRow._make(row) for row in rows], int(last)

        return await self._db.read(work)

    async def attempts_at(self, run_no: int, position: int) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step_attempt WHERE run_no = ?1 AND position = ?2 UNION ALL"
            f" {_STEP} FROM step WHERE run_no = ?1 AND position = ?2 ORDER BY 4"
        )
        return await self._db.read(every(StepRow._make, sql, run_no, position))

    async def raw_rows(self, run_id: str, take: Callable[[str, RawRow], None]) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            db.execute("BEGIN")
            with db:
                found = db.execute("SELECT no FROM run WHERE id = ?", (run_id,)).fetchone()
                if found is None:
                    return False
                keys = {"no": found[0], "run_no": found[0], "run_id": run_id}
                # Told by their columns, so that a table which a later version adds is not forgotten here.
                for (table,) in db.execute(
                    "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
                ):
                    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                    names = ("no",) if table == "run" else ("run_no", "run_id")
                    for name in set(names).intersection(columns):
                        for row in db.execute(f"SELECT * FROM {table} WHERE {name} = ?", (keys[name],)):
                            take(table, dict(zip(columns, row, strict=True)))
                return True

        return await self._db.read(work)


def _of_step(run_no: int, step_id: str, loop_index: str | None) -> tuple[str, dict[str, int | str]]:
    """The condition for attempts of a step, and its values."""
    where = "WHERE run_no = :run_no AND step_id = :step_id"
    values: dict[str, int | str] = {"run_no": run_no, "step_id": step_id}
    if loop_index is None:
        return where, values
    # Compared by SQLite, which leaves the interpreter to others while it goes through a long loop.
    ends = "substr(',' || loop_path, -length(:loop_index)) = :loop_index"
    return f"{where} AND {ends}", values | {"loop_index": f",{loop_index}"}


def _require_run(db: sqlite3.Connection, run_no: int) -> None:
    """Raises RunPurged if there is no such run any more. To be asked after the read that it is about."""
    if db.execute("SELECT 1 FROM run WHERE no = ?", (run_no,)).fetchone() is None:
        raise RunPurged(f"run number {run_no} was deleted while it was read")


def _outcome(row: Any) -> tuple[bytes | None, bytes | None]:
    return row[0], row[1]
