"""How content leaves the SQLite store: rows kept for callers long enough, and every trace of them.

`secure_delete` overwrites what is deleted, in the file. Two things it does not reach: the write-ahead log,
which has each page as it was, and copies that a page keeps of rows which have been moved to another one. So
the log is emptied, and small tables are written anew.
"""

import sqlite3
from collections.abc import Sequence
from functools import partial

from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.removal import delete_some
from runglass.store.sqlite.sql_helpers import count_kept, count_open, one

# The answer to a job is given long before its run ends, and goes with the other content that is owed.
_DUE_ANSWERS = (
    "SELECT no, run_no, length(answer) FROM call_answer WHERE answered_at < ?1"
    " AND NOT EXISTS (SELECT 1 FROM run_outcome WHERE run_no = call_answer.run_no)"
    " AND NOT EXISTS (SELECT 1 FROM run WHERE no = call_answer.run_no AND status IN ('pending', 'running'))"
    " ORDER BY answered_at LIMIT ?2"
)
_DUE_OUTCOMES = (
    "SELECT run_no, coalesce(length(result), 0) + coalesce(length(error), 0)"
    " FROM run_outcome WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2"
)
_CONTENT = {
    "run_request": "run_no",
    "checkpoint": "run_no, step_id, loop_path",
    "run_outcome": "run_no",
    "owed": "run_no, seq",
    "call_answer": "no",
}
"""The tables whose rows have content and go before their run does, each with its key."""
_BITE_ROWS, _BITE_BYTES = 250, 1 << 20
"""Others wait for the writer while so much is deleted, and overwritten: some milliseconds."""
_REWRITTEN_ROWS = 2000
_REWRITTEN_BYTES = 1 << 20
"""As much is written anew in some milliseconds."""


class Expiry:
    """The part of the store that forgets."""

    _db: Connections
    _deleted = True
    """Whether content was deleted since the last `scrub`, maybe by the process before this one."""

    async def expire_answers(self, *, before: str, limit: int) -> int:
        def work(db: sqlite3.Connection) -> int:
            gone, room = 0, _BITE_BYTES
            for run_no, size in db.execute(_DUE_OUTCOMES, (before, limit)).fetchall():
                if room <= 0:
                    break
                rows, freed = delete_some(db, "owed", run_no, limit_rows=_BITE_ROWS, limit_bytes=room)
                gone, room = gone + 1, room - freed
                if rows == _BITE_ROWS or room <= 0:
                    # There may be more of it, which goes with the next bite.
                    count_open(db, run_no, -freed)
                    break
                db.execute("DELETE FROM run_outcome WHERE run_no = ?", (run_no,))
                count_open(db, run_no, -freed - size)
                count_kept(db, run_no)
                room -= size
            for number, run_no, size in db.execute(_DUE_ANSWERS, (before, limit)).fetchall():
                if room > 0:
                    db.execute("DELETE FROM call_answer WHERE no = ?", (number,))
                    count_open(db, run_no, -size)
                    gone, room = gone + 1, room - size
            return gone

        due = f"SELECT EXISTS ({_DUE_OUTCOMES}) OR EXISTS ({_DUE_ANSWERS})"
        if not await self._db.read(one(bool, due, before, 1)):
            return 0
        expired = await self._db.remove(work)
        self._deleted = True
        return expired

    async def scrub(self) -> bool:
        if not self._deleted:
            return True
        emptied = False
        # Now: rows deleted from here on may come too late for this.
        self._deleted = False
        try:
            # One after the other: other writers have a turn in between.
            for table, key in _CONTENT.items():
                await self._db.remove(partial(_rewrite_if_small, table=table, key=key))
            emptied = await self._db.empty_log()
        finally:
            self._deleted = self._deleted or not emptied
        return emptied


def _rewrite_if_small(db: sqlite3.Connection, *, table: str, key: str) -> None:
    rows = _rows_of(db, f"SELECT * FROM {table} ORDER BY {key}")
    if rows is None:
        return
    # Without a condition: this frees all pages, and overwrites each of them as a whole.
    db.execute(f"DELETE FROM {table}")
    if rows:
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _rows_of(db: sqlite3.Connection, sql: str) -> list[Sequence[str | int | bytes | None]] | None:
    """All rows; None where they are many, or large."""
    rows, size = [], 0
    found = db.execute(sql)
    for row in found:
        rows.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes))
        if len(rows) > _REWRITTEN_ROWS or size > _REWRITTEN_BYTES:
            found.close()
            return None
    return rows
