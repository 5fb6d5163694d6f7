"""Removal from an SQLite file for good: whole runs, the content of runs, and the space that they took.

All of it in bites, since there is one writer: an append waits for one of them at most. The file is
made with `secure_delete`, so each byte that goes is also written; that is why bites are measured in bytes.
"""

import sqlite3
from collections.abc import Iterator, Sequence

from runglass.log.content import strip_error, strip_summary
from runglass.store.audit import note_change
from runglass.store.records import ContentPlace
from runglass.store.run_tables import CONTENT, ENDED, ROWS_OF_RUN, SIZES, Stripped
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import count_bytes, count_kept, every, perform
from runglass.wire.admin_api import Actor

SPARE = 20
"""One page in so many may be free: pages given back to the system are soon asked for again."""


class Removal:
    """The part of the store that removes runs and their content."""

    _db: Connections
    _deleted: bool

    async def ended_runs(self, flow_id: str, *, before: str, with_content: bool, limit: int) -> list[int]:
        sql = "SELECT no FROM run WHERE flow_id = ? AND ended_at <= ?"
        if with_content:
            sql += " AND has_content = 1"
        sql += " ORDER BY ended_at LIMIT ?"
        return await self._db.read(every(lambda row: int(row[0]), sql, flow_id, before, limit))

    async def purge_run(self, run_no: int, *, by: Actor | None = None) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            sql = (
                "SELECT id, project_id, flow_id, status, log_bytes + open_bytes FROM run"
                f" WHERE no = ? AND {ENDED}"
            )
            row = db.execute(sql, (run_no,)).fetchone()
            if row is None:
                return False
            run_id, project_id, flow_id, status, size = row
            count_bytes(db, project_id, -size)
            db.execute("INSERT INTO purged_run (run_no) VALUES (?)", (run_no,))
            db.execute("DELETE FROM ended_run WHERE run_no = ?", (run_no,))
            db.execute("DELETE FROM due_outline WHERE run_no = ?", (run_no,))
            db.execute("UPDATE run_number SET last = max(last, ?)", (run_no,))
            db.execute("DELETE FROM run WHERE no = ?", (run_no,))
            # With the run and not later: a call that is sent again is not to get an answer out of it.
            db.execute("DELETE FROM call WHERE run_id = ?", (run_id,))
            if by is not None:
                told = {"flowId": flow_id, "status": status}
                perform(db, note_change(project_id, by, "run.purged", run_id, **told))
            return True

        return await self._db.remove(work)

    async def purged_runs(self) -> list[int]:
        return await self._db.read(every(lambda row: int(row[0]), "SELECT run_no FROM purged_run"))

    async def purge_rows(self, run_no: int, *, limit_rows: int, limit_bytes: int) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            if db.execute("SELECT 1 FROM purged_run WHERE run_no = ?", (run_no,)).fetchone() is None:
                return False
            rows, size = limit_rows, limit_bytes
            for table in ROWS_OF_RUN:
                gone, freed = delete_some(db, table, run_no, limit_rows=rows, limit_bytes=size)
                rows, size = rows - gone, size - freed
                if rows <= 0 or size <= 0:
                    return True
            db.execute("DELETE FROM purged_run WHERE run_no = ?", (run_no,))
            self._deleted = True
            return False

        return await self._db.remove(work)

    async def strip_content(
        self, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
    ) -> ContentPlace | None:
        # What is read here changes no more, as the run has ended; stripped beside the writer, not in its way.
        stripped = await self._db.read(
            lambda db: _strip_some(db, run_no, place, limit_rows=limit_rows, limit_bytes=limit_bytes)
        )

        def work(db: sqlite3.Connection) -> None:
            if stripped.freed:
                sql = "UPDATE run SET log_bytes = log_bytes - ? WHERE no = ? RETURNING project_id"
                for (project_id,) in db.execute(sql, (stripped.freed, run_no)).fetchall():
                    count_bytes(db, project_id, -stripped.freed)
            for table, key, data in stripped.rows:
                same_row = " AND ".join(f"{column} = ?" for column in ("run_no", *ROWS_OF_RUN[table]))
                db.execute(f"UPDATE {table} SET data = ? WHERE {same_row}", (data, run_no, *key))
            if stripped.place is None:
                outcome = "UPDATE run_outcome SET result = NULL, error = ? WHERE run_no = ?"
                db.execute(outcome, (stripped.outcome, run_no))
                count_kept(db, run_no)
                db.execute(
                    "UPDATE run SET has_content = 0, summary = coalesce(?, summary)"
                    f" WHERE no = ? AND {ENDED}",
                    (stripped.summary, run_no),
                )

        await self._db.remove(work)
        return stripped.place

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


_INCREMENTAL = 2


def delete_some(
    db: sqlite3.Connection, table: str, run_no: int, *, limit_rows: int, limit_bytes: int
) -> tuple[int, int]:
    """Deletes the first rows of the run: one at least if there is one. Returns how many, and their bytes."""
    key = ROWS_OF_RUN[table]
    size = SIZES.get(table, "length(data)")
    columns, order = ", ".join((size, *key)), ", ".join(("run_no", *key))
    found = db.execute(
        f"SELECT {columns} FROM {table} WHERE run_no = ? ORDER BY {order} LIMIT ?", (run_no, limit_rows)
    )
    first = first_rows(found, limit_bytes=limit_bytes)
    if first:
        upto = f" AND ({', '.join(key)}) <= ({', '.join('?' * len(key))})" if key else ""
        db.execute(f"DELETE FROM {table} WHERE run_no = ?{upto}", (run_no, *first[-1][1:]))
    return len(first), sum(row[0] for row in first)


def first_rows(rows: sqlite3.Cursor, *, limit_bytes: int) -> list[tuple[int, ...]]:
    """The first rows, each with its bytes in front: one at least if there is one, about `limit_bytes`."""
    found, size = [], 0
    for row in rows:
        found.append(row)
        size += row[0]
        if size >= limit_bytes:
            break
    # A statement that is not at its end would stand in the way of what deletes from its table.
    rows.close()
    return found


def _strip_some(
    db: sqlite3.Connection, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
) -> Stripped:
    rows: list[tuple[str, tuple[int, ...], bytes]] = []
    seen = size = freed = 0
    for table, key, data in _content_of(db, run_no, place):
        stripped = CONTENT[table](data)
        seen, size = seen + 1, size + len(data)
        if stripped != data:
            rows.append((table, key, stripped))
            freed += len(data) - len(stripped)
        if seen >= limit_rows or size >= limit_bytes:
            return Stripped(rows, None, None, ContentPlace(table, key), freed)
    outcome = db.execute("SELECT error FROM run_outcome WHERE run_no = ?", (run_no,)).fetchone()
    run = db.execute("SELECT summary FROM run WHERE no = ?", (run_no,)).fetchone()
    return Stripped(
        rows,
        strip_error(outcome[0]) if outcome else None,
        strip_summary(run[0]) if run else None,
        None,
        freed,
    )


def _content_of(
    db: sqlite3.Connection, run_no: int, place: ContentPlace | None
) -> Iterator[tuple[str, tuple[int, ...], bytes]]:
    """The rows with content after that place, each with its table and its key in its run."""
    tables: Sequence[str] = list(CONTENT)
    after: tuple[int, ...] = ()
    if place is not None:
        tables, after = tables[tables.index(place.table) :], place.key
    for table in tables:
        key = ROWS_OF_RUN[table]
        columns = ", ".join(key)
        beyond = f" AND ({columns}) > ({', '.join('?' * len(after))})" if after else ""
        found = db.execute(
            f"SELECT data, {columns} FROM {table} WHERE run_no = ?{beyond} ORDER BY {columns}",
            (run_no, *after),
        )
        try:
            for data, *numbers in found:
                yield table, tuple(numbers), data
        finally:
            found.close()
        after = ()
