"""The outlines of large runs, kept in SQLite once these have ended.

They come part by part, each in a transaction of its own, and go with the rows of their run.
"""

import sqlite3

from runglass.store.records import RunRecord
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.run_rows import RUN, run_of
from runglass.store.sqlite.sql_helpers import changed, count_bytes, one

_DUE = f"{RUN} WHERE no = (SELECT max(run_no) FROM due_outline)"
_WHOLE = "SELECT 1 FROM kept_outline WHERE run_no = ? AND part = 0"
_DUE_AGAIN = "INSERT OR IGNORE INTO due_outline (run_no) SELECT no FROM run WHERE no = ?"
_NO_MORE_DUE = "DELETE FROM due_outline WHERE run_no = ?"


class KeptOutlines:
    """The part of the store that keeps outlines."""

    _db: Connections

    async def due_outline(self) -> RunRecord | None:
        return await self._db.read(one(run_of, _DUE))

    async def keep_outline(self, run_no: int, part: int, data: bytes) -> None:
        def work(db: sqlite3.Connection) -> None:
            run = db.execute("SELECT project_id FROM run WHERE no = ?", (run_no,)).fetchone()
            if run is None:
                return
            key = (run_no, part)
            before = db.execute(
                "SELECT length(data) FROM kept_outline WHERE run_no = ? AND part = ?", key
            ).fetchone()
            size = len(data) - (before[0] if before else 0)
            db.execute(
                "INSERT OR REPLACE INTO kept_outline (run_no, part, data) VALUES (?, ?, ?)", (*key, data)
            )
            db.execute("UPDATE run SET log_bytes = log_bytes + ? WHERE no = ?", (size, run_no))
            count_bytes(db, run[0], size)
            if part == 0:
                db.execute(_NO_MORE_DUE, (run_no,))

        await self._db.write(work)

    async def pass_over_outline(self, run_no: int) -> None:
        await self._db.write(changed(_NO_MORE_DUE, run_no))

    async def renew_outline(self, run_no: int) -> None:
        await self._db.write(changed(_DUE_AGAIN, run_no))

    async def kept_outline(self, run_no: int) -> list[bytes]:
        def work(db: sqlite3.Connection) -> list[bytes]:
            db.execute("BEGIN")
            with db:
                if db.execute(_WHOLE, (run_no,)).fetchone() is None:
                    return []
                sql = "SELECT data FROM kept_outline WHERE run_no = ? ORDER BY part"
                return [data for (data,) in db.execute(sql, (run_no,))]

        return await self._db.read(work)
