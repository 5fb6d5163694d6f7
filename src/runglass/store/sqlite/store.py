"""The store of a single machine: one SQLite file. How its runs are created, and what it removes for good.

Threads and transactions are in `connections.py`; how an append is written, in `append.py`; other queries that
SQLite has for itself are in `leases.py`. What both kinds of store do alike is not here.

There is one writer: an append waits for one bite of a removal at most. The file is made with `secure_delete`,
so each byte that goes is also written; that is why bites are measured in bytes. Two things it does not reach:
the write-ahead log, which has each page as it was, and copies that a page keeps of rows which have been moved
to another one. So the log is emptied, and small tables are written anew; such copies of events and steps stay
until `runglass data vacuum`.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Self

from runglass.log.trace import TERMINAL
from runglass.store.base import Store
from runglass.store.calls import begin_call
from runglass.store.query_index import USUAL, SearchLimits
from runglass.store.records import Append, NewRecording, NewRun, RawRow, RunRecord
from runglass.store.run_tables import ADD_PART, OF_TRACE, RUN, run_of
from runglass.store.sqlite.append import write_append
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.leases import SqliteLeases
from runglass.store.sqlite.sql_helpers import NEXT_NO, SEARCH_SQL, SQLITE, page, perform
from runglass.support.clock import SystemClock

_CREATE = (
    "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, session_id,"
    f" summary, owner, key_id, open_bytes, change_no) VALUES ({NEXT_NO}, ?1, ?2, ?3, ?4, 'pending', ?5, ?6,"
    " ?7, ?8, ?9, ?10, ?11, coalesce((SELECT run_changes + 1 FROM project WHERE id = ?2), 0))"
)
SPARE = 20
"""One page in so many may be free: pages given back to the system are soon asked for again."""
_INCREMENTAL = 2
_KEPT = ("run_request", "checkpoint", "run_outcome", "owed", "call_answer", "run_error")
"""The tables whose rows have content and go before their run does."""
_REWRITTEN_ROWS = 2000
_REWRITTEN_BYTES = 1 << 20
"""As much is written anew in some milliseconds."""


class SqliteStore(SqliteLeases, Store):
    """A store in one file. `synchronous`: a commit survives a power cut (FULL) or a crash of the process."""

    # The file is of one process, which ends before another file is put in its place.
    generation = 0
    _sql = SQLITE
    _search_sql = SEARCH_SQL
    _perform = staticmethod(perform)
    _page = staticmethod(page)

    def __init__(
        self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL", search: SearchLimits = USUAL
    ) -> None:
        self._search = search
        self._db = Connections(path, synchronous=synchronous)
        self._importing = set()
        self._holds = {}
        self.clock = SystemClock()

    @property
    def connections(self) -> Connections:
        """The connections to the file, for statements that are of SQLite alone, such as pragmas."""
        return self._db

    async def __aenter__(self) -> Self:
        await self._db.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._db.close()

    async def create_run(self, run: NewRun) -> RunRecord:
        def work(db: sqlite3.Connection) -> RunRecord:
            if run.call is not None:
                perform(partial(begin_call, run.project_id, run.call, run.id, head=0), db)
            created = _create(db, run, size=len(run.request))
            db.execute("INSERT INTO run_request (run_no, request) VALUES (?, ?)", (created.no, run.request))
            if run.owner is None:
                place = (created.no, run.project_id)
                db.execute("INSERT INTO queue (run_no, project_id) VALUES (?, ?)", place)
            return created

        return await self._db.write(work)

    async def create_recording(self, run: NewRecording) -> RunRecord | None:
        trace = {"project_id": run.project_id, "trace_id": run.trace_id}

        def work(db: sqlite3.Connection) -> RunRecord | None:
            newest = db.execute(
                "SELECT part, (SELECT id FROM run WHERE no = run_no) FROM recorded_trace"
                f" WHERE {OF_TRACE} ORDER BY part DESC LIMIT 1",
                trace,
            ).fetchone()
            part, last = newest or (-1, None)
            if last != run.continues or (newest and last is None):
                return None
            created = _create(db, run, size=0)
            plain_at = run.due_at if run.trigger_type == "plain" else None
            values = {"part": part + 1, "run_no": created.no, "due_at": run.due_at, "plain_at": plain_at}
            db.execute(ADD_PART, {**trace, **values})
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

    async def compact(self, *, limit_bytes: int) -> bool:
        def free_pages(db: sqlite3.Connection) -> int:
            """How many are to be given back now."""
            (free,), (pages,), (size,), (mode,) = (
                db.execute(f"PRAGMA {name}").fetchone()
                for name in ("freelist_count", "page_count", "page_size", "auto_vacuum")
            )
            # An older file gives nothing back until `runglass data vacuum` has rebuilt it.
            # Free pages are of no use to a log that the disk has no room for.
            spare = 0 if self._db.reserve.is_short else pages // SPARE
            return min(free - spare, limit_bytes // size) if mode == _INCREMENTAL else 0

        def work(db: sqlite3.Connection) -> None:
            for _ in range(pages):
                # One page for each call: Python ends a statement whose rows have no columns at the first row.
                db.execute("PRAGMA incremental_vacuum(1)")

        pages = await self._db.read(free_pages)
        if pages > 0:
            await self._db.remove(work)
            return True
        await self._db.empty_log()
        return False

    async def scrub(self) -> bool:
        if not self._deleted:
            return True
        emptied = False
        # Now: rows deleted from here on may come too late for this.
        self._deleted, with_errors = False, self._errors_deleted
        self._errors_deleted = False
        try:
            # One after the other: other writers have a turn in between.
            for table in _KEPT:
                if table == "run_error" and not with_errors:
                    continue
                await self._db.remove(partial(_rewrite_if_small, table=table))
            emptied = await self._db.empty_log()
        finally:
            self._deleted = self._deleted or not emptied
            self._errors_deleted |= with_errors and not emptied
        return emptied

    @staticmethod
    def _each_row(db: sqlite3.Connection, sql: str, key: int | str, take: Callable[[RawRow], None]) -> None:
        """Hands each row to `take`, which may wait."""
        rows = db.execute(sql, {"key": key})
        names = [name for name, *_ in rows.description]
        for row in rows:
            take(dict(zip(names, row, strict=True)))


def _create(db: sqlite3.Connection, run: NewRun, *, size: int) -> RunRecord:
    """Makes the row of the run, which begins with so many bytes beside its log, and counts it."""
    values = (
        *(run.id, run.project_id, run.flow_id, run.version, run.trigger_type, run.capture),
        *(run.session_id, run.summary, run.owner, run.key_id, size),
    )
    no = db.execute(_CREATE, values).lastrowid
    counted = "data_bytes = data_bytes + ?, run_changes = run_changes + 1"
    db.execute(f"UPDATE project SET {counted} WHERE id = ?", (size, run.project_id))
    return run_of(db.execute(f"{RUN} WHERE no = ?", (no,)).fetchone())


def _rewrite_if_small(db: sqlite3.Connection, *, table: str) -> None:
    rows: list[Sequence[str | int | bytes | None]] = []
    size = 0
    found = db.execute(f"SELECT * FROM {table}")
    for row in found:
        rows.append(row)
        size += sum(len(value) for value in row if isinstance(value, (bytes, str)))
        if len(rows) > _REWRITTEN_ROWS or size > _REWRITTEN_BYTES:
            found.close()
            return
    # Without a condition: this frees all pages, and overwrites each of them as a whole.
    db.execute(f"DELETE FROM {table}")
    if rows:
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
