"""What is removed from an SQLite file, for good: rows, content, every trace of both, and their space.

There is one writer: an append waits for one bite at most. The file is made with `secure_delete`, so each byte
that goes is also written; that is why bites are measured in bytes. Two things it does not reach: the
write-ahead log, which has each page as it was, and copies that a page keeps of rows which have been moved to
another one. So the log is emptied, and small tables are written anew; such copies of events and steps stay
until `runglass data vacuum`.
"""

import sqlite3
from collections.abc import Sequence
from functools import partial

from runglass.store.removal import Removal
from runglass.store.sqlite.connections import Connections

SPARE = 20
"""One page in so many may be free: pages given back to the system are soon asked for again."""
_INCREMENTAL = 2
_KEPT = ("run_request", "checkpoint", "run_outcome", "owed", "call_answer", "run_error")
"""The tables whose rows have content and go before their run does."""
_REWRITTEN_ROWS = 2000
_REWRITTEN_BYTES = 1 << 20
"""As much is written anew in some milliseconds."""


class SqliteRemoval(Removal):
    """What SQLite does in a way of its own."""

    _db: Connections

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
