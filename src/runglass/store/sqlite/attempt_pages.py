"""All attempts of a run in the order of its trace, page by page: what outlines are made of."""

import sqlite3

from runglass.errors import RunPurged
from runglass.outlines.builder import AttemptRow
from runglass.store.records import RunRecord
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.run_rows import RUN, run_of

_COLUMNS = "position, step_id, loop_path, attempt, status, data"
_WHERE = "run_no = ?1 AND position >= ?2 AND (position > ?2 OR attempt > ?3)"
# Both come in the order of their keys, so SQLite merges them and sorts nothing.
_ATTEMPTS = (
    f"SELECT {_COLUMNS} FROM step WHERE {_WHERE}"
    f" UNION ALL SELECT {_COLUMNS} FROM step_attempt WHERE {_WHERE} ORDER BY position, attempt"
)


class AttemptPages:
    """The part of the store that reads whole runs without their events."""

    _db: Connections

    async def attempt_page(
        self, run_no: int, *, after: tuple[int, int], limit_bytes: int
    ) -> tuple[RunRecord, list[AttemptRow]]:
        def work(db: sqlite3.Connection) -> tuple[RunRecord, list[AttemptRow]]:
            db.execute("BEGIN")
            # Leaves the transaction, well or not; an error on the way out hides none that came before it.
            with db:
                row = db.execute(f"{RUN} WHERE no = ?", (run_no,)).fetchone()
                if row is None:
                    raise RunPurged(f"run number {run_no} was deleted while it was read")
                return run_of(row), _first(db.execute(_ATTEMPTS, (run_no, *after)), limit_bytes)

        return await self._db.read(work)

    async def last_position(self, run_no: int) -> int:
        sql = "SELECT coalesce(max(position), 0) FROM step WHERE run_no = ?"
        return int((await self._db.read(lambda db: db.execute(sql, (run_no,)).fetchone()))[0])


def _first(rows: sqlite3.Cursor, limit_bytes: int) -> list[AttemptRow]:
    found: list[AttemptRow] = []
    size = 0
    for row in rows:
        found.append(row)
        size += len(row[5])
        if size >= limit_bytes:
            break
    # An unfinished SELECT would hold its read transaction open, and with it the WAL.
    rows.close()
    return found
