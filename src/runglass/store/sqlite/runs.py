"""Runs in SQLite: created, appended to, imported, and every row of one.

How an append is written is in `append.py`, leases and claims are in `leases.py`.
"""

import sqlite3
from collections.abc import Callable
from functools import partial

from msgspec.structs import asdict

from runglass.log.trace import TERMINAL
from runglass.store.calls import begin_call
from runglass.store.records import Append, NewRun, RawRow, RunRecord
from runglass.store.run_logs import SqlRunLog
from runglass.store.run_tables import ADD_PART, OF_TRACE, RUN, RUN_COLUMNS, run_of
from runglass.store.sqlite.append import write_append
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import NEXT_NO, page, perform
from runglass.store.statements import NEW_RUN_NO, Steps, as_bytes, done, fetch, next_change, one

_CREATE = (
    "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, session_id,"
    f" summary, owner, key_id, open_bytes, change_no) VALUES ({NEXT_NO}, ?1, ?2, ?3, ?4, 'pending', ?5, ?6,"
    " ?7, ?8, ?9, ?10, ?11, coalesce((SELECT run_changes + 1 FROM project WHERE id = ?2), 0))"
)
_RECORD = (
    "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, session_id,"
    " summary, key_id, change_no) VALUES (:no, :id, :project_id, :flow_id, :version, 'pending',"
    " :trigger_type, :capture, :session_id, :summary, :key_id, :change_no)"
    f" RETURNING {RUN_COLUMNS}"
)


def each_row(db: sqlite3.Connection, sql: str, key: int | str, take: Callable[[RawRow], None]) -> None:
    """Hands each row to `take`, which may wait."""
    rows = db.execute(sql, {"key": key})
    names = [name for name, *_ in rows.description]
    for row in rows:
        take(dict(zip(names, row, strict=True)))


class SqliteRunLog(SqlRunLog):
    """The part of the store that grows with every run."""

    _db: Connections
    _page = staticmethod(page)
    _each_row = staticmethod(each_row)
    _deleted: bool

    async def create_run(self, run: NewRun) -> RunRecord:
        def work(db: sqlite3.Connection) -> RunRecord:
            if run.call is not None:
                perform(partial(begin_call, run.project_id, run.call, run.id, head=0), db)
            size = len(run.request)
            values = (
                *(run.id, run.project_id, run.flow_id, run.version, run.trigger_type, run.capture),
                *(run.session_id, run.summary, run.owner, run.key_id, size),
            )
            no = db.execute(_CREATE, values).lastrowid
            counted = "data_bytes = data_bytes + ?, run_changes = run_changes + 1"
            db.execute(f"UPDATE project SET {counted} WHERE id = ?", (size, run.project_id))
            created = run_of(db.execute(f"{RUN} WHERE no = ?", (no,)).fetchone())
            db.execute("INSERT INTO run_request (run_no, request) VALUES (?, ?)", (created.no, run.request))
            if run.owner is None:
                place = (created.no, run.project_id)
                db.execute("INSERT INTO queue (run_no, project_id) VALUES (?, ?)", place)
            return created

        return await self._db.write(work)

    async def create_recording(
        self, run: NewRun, *, trace_id: str, due_at: str, continues: str | None
    ) -> RunRecord | None:
        trace = {"project_id": run.project_id, "trace_id": trace_id}

        def work() -> Steps[RunRecord | None]:
            newest = yield fetch(
                "SELECT part, (SELECT id FROM run WHERE no = run_no) FROM recorded_trace"
                f" WHERE {OF_TRACE} ORDER BY part DESC LIMIT 1",
                **trace,
            )
            part, last = newest[0] if newest else (-1, None)
            if last != continues or (newest and last is None):
                return None
            run_no = yield NEW_RUN_NO
            plain_at = due_at if run.trigger_type == "plain" else None
            values = {"part": part + 1, "run_no": run_no, "due_at": due_at, "plain_at": plain_at}
            yield done(ADD_PART, **trace, **values)
            columns = {**asdict(run), "no": run_no, "change_no": (yield next_change(run.project_id))}
            created: RunRecord = yield one(run_of, _RECORD, **columns)
            return created

        return await self._statements.write(work)

    async def append(self, batch: Append) -> None:
        if batch.spent_usd:
            batch.check_charge()
        # A run that is cancelled lets its request and its checkpoints go.
        write = self._db.remove if batch.status == "cancelled" else self._db.write
        await write(partial(write_append, batch=batch))
        if batch.dropped or batch.status in TERMINAL:
            self._deleted = True

    async def request(self, run_no: int) -> bytes | None:
        sql = "SELECT request FROM run_request WHERE run_no = :run_no"
        return await self._statements.read(one(as_bytes, sql, run_no=run_no))
