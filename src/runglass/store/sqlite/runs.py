"""Runs in SQLite: created, appended to, imported, and every row of one.

How an append is written is in `append.py`, leases and claims are in `leases.py`.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from runglass.log.trace import TERMINAL
from runglass.store.calls import begin_call
from runglass.store.imports import Imports
from runglass.store.records import Append, NewRun, RawRow, RunRecord, StepRow
from runglass.store.run_logs import RunLogs
from runglass.store.run_tables import RUN, run_of
from runglass.store.sqlite.append import write_append, write_steps
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import NEXT_NO, count_new_run, page, perform
from runglass.store.statements import as_bytes, one


def write_rows(
    db: sqlite3.Connection, run_no: int, events: Sequence[tuple[int, bytes]], steps: Sequence[StepRow]
) -> None:
    """Writes events, each with its seq, and states of attempts."""
    db.executemany(
        "INSERT INTO event (run_no, seq, data) VALUES (?, ?, ?)",
        [(run_no, seq, data) for seq, data in events],
    )
    write_steps(db, run_no, steps)


class Runs(RunLogs, Imports):
    """The part of the store that grows with every run."""

    _db: Connections
    _page = staticmethod(page)
    _write_rows = staticmethod(write_rows)
    _deleted: bool

    async def create_run(self, run: NewRun) -> RunRecord:
        def work(db: sqlite3.Connection) -> RunRecord:
            if run.call is not None:
                perform(partial(begin_call, run.project_id, run.call, run.id, head=0), db)
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
        await write(partial(write_append, batch=batch))
        if batch.dropped or batch.status in TERMINAL:
            self._deleted = True

    async def request(self, run_no: int) -> bytes | None:
        sql = "SELECT request FROM run_request WHERE run_no = :run_no"
        return await self._statements.read(one(as_bytes, sql, run_no=run_no))

    async def raw_rows(self, run_id: str, take: Callable[[str, RawRow], None]) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            found = db.execute("SELECT no FROM run WHERE id = ?", (run_id,)).fetchone()
            if found is None:
                return False
            keys = {"no": found[0], "run_no": found[0], "run_id": run_id}
            # Told by their columns, so that a table which a later version adds is not forgotten here.
            for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"):
                columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
                names = ("no",) if table == "run" else ("run_no", "run_id")
                for name in set(names).intersection(columns):
                    for row in db.execute(f"SELECT * FROM {table} WHERE {name} = ?", (keys[name],)):
                        take(table, dict(zip(columns, row, strict=True)))
            return True

        return await self._db.read_at_one_moment(work)
