"""Runs in SQLite: created, appended to, imported, and every row of one.

How an append is written is in `append.py`, leases and claims are in `leases.py`.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from runglass.log.trace import TERMINAL
from runglass.outlines.builder import AttemptRow
from runglass.store.calls import begin_call
from runglass.store.imports import ImportedRun, Imports
from runglass.store.records import Append, NewRun, RawRow, RunRecord, StepRow
from runglass.store.run_logs import RunLogs
from runglass.store.run_tables import RUN, run_of
from runglass.store.sqlite.append import write_append, write_steps
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import NOTE_ERROR, count_new_run, first_rows, perform
from runglass.store.statements import Steps, as_bytes, done, one

# SQLite would give the number of a deleted row again, and readers and rows of the old run may still be there.
NEXT_NO = "(SELECT max(coalesce((SELECT max(no) FROM run), 0), last) + 1 FROM run_number)"
_COLUMNS = "position, step_id, loop_path, attempt, status, data"
_WHERE = "run_no = ?1 AND position >= ?2 AND (position > ?2 OR attempt > ?3)"
# Both come in the order of their keys, so SQLite merges them and sorts nothing.
_ATTEMPTS = (
    f"SELECT {_COLUMNS} FROM step WHERE {_WHERE}"
    f" UNION ALL SELECT {_COLUMNS} FROM step_attempt WHERE {_WHERE} ORDER BY position, attempt"
)


def attempts_after(
    db: sqlite3.Connection, run_no: int, after: tuple[int, int], *, limit_bytes: int
) -> list[AttemptRow]:
    """The first attempts of the run behind a position and number, as `first_rows` gives them."""
    return first_rows(db, _ATTEMPTS, run_no, *after, limit_bytes=limit_bytes)


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
    _page = staticmethod(first_rows)
    _attempts_after = staticmethod(attempts_after)
    _write_rows = staticmethod(write_rows)
    # One process has the file: what it does not import itself, nobody does.
    _abandoned = "NOT run_no = ANY (?1)"
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
        sql = "SELECT request FROM run_request WHERE run_no = ?1"
        return await self._statements.read(one(as_bytes, sql, run_no))

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

    @staticmethod
    def _begin_import() -> Steps[int]:
        [(number,)] = yield (f"SELECT {NEXT_NO}",)
        yield "UPDATE run_number SET last = ?1", number
        yield "INSERT INTO importing_run (run_no) VALUES (?1)", number
        return int(number)

    @staticmethod
    def _insert_run(run: ImportedRun) -> Steps[bool]:
        yield (
            "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture,"
            " session_id, head, summary, ended_at, duration_ms, cost_usd, tokens, log_bytes, change_no)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,"
            " coalesce((SELECT run_changes + 1 FROM project WHERE id = ?3), 0))",
            *(run.no, run.id, run.project_id, run.flow.id, run.version, run.status),
            *(run.trigger_type, run.capture, run.session_id, run.head, run.summary),
            *(run.ended_at, *run.numbers, run.log_bytes),
        )
        yield done(NOTE_ERROR, run_no=run.no)
        yield lambda db: count_new_run(db, run.project_id, run.log_bytes)
        return True
