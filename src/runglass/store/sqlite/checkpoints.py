"""Checkpoints in SQLite: read back, made void, and deleted in bites.

They hold outputs and may be large. `secure_delete` overwrites each byte that goes, and there is one writer:
what a large run no longer needs goes bit by bit, and counts as its bytes until then.
"""

import sqlite3

from runglass.store.records import Append, Checkpoint
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.removal import delete_some, first_rows
from runglass.store.sqlite.sql_helpers import as_bytes, count_kept, count_open, every, one

NOT_VOID = (
    "NOT EXISTS (SELECT 1 FROM void_checkpoint AS void WHERE void.run_no = checkpoint.run_no"
    " AND void.step_id = checkpoint.step_id AND void.seq >= checkpoint.seq)"
)
"""The condition for the checkpoints that hold."""
AT_ONCE_EVENTS = 1000
AT_ONCE_BYTES = 1 << 20
"""A run with no more events and bytes of checkpoints has these deleted as it ends or goes back, any other bit
by bit after that: each byte is overwritten, and other writers wait for it."""

_VOID = (
    "INSERT OR REPLACE INTO void_checkpoint (run_no, step_id, seq) SELECT ?1, ?2, ?3"
    " WHERE EXISTS (SELECT 1 FROM checkpoint WHERE run_no = ?1 AND step_id = ?2)"
)

_WITH_CHECKPOINTS_LEFT = (
    "SELECT run_no, project_id FROM (SELECT run_no FROM ended_run UNION SELECT run_no FROM void_checkpoint)"
    " JOIN run ON no = run_no ORDER BY project_id <= ?, project_id, run_no LIMIT 1"
)
"""The projects take turns: the first one behind that number, or the first of all."""
_VOID_OF_STEP = (
    "SELECT length(data), rowid FROM checkpoint WHERE run_no = ? AND step_id = ? AND seq <= ?"
    " ORDER BY loop_path LIMIT ?"
)


class Checkpoints:
    """The part of the store that keeps checkpoints."""

    _db: Connections
    _deleted: bool
    _project_before = 0
    """Whose checkpoints went last."""

    async def checkpoints(self, run_no: int) -> list[Checkpoint]:
        sql = f"SELECT step_id, loop_path, data FROM checkpoint WHERE run_no = ? AND {NOT_VOID}"
        return await self._db.read(every(Checkpoint._make, sql, run_no))

    async def checkpoint(self, run_no: int, step_id: str, loop_path: str) -> bytes | None:
        sql = f"SELECT data FROM checkpoint WHERE run_no = ? AND step_id = ? AND loop_path = ? AND {NOT_VOID}"
        return await self._db.read(one(as_bytes, sql, run_no, step_id, loop_path))

    async def drop_checkpoints(self, *, limit_rows: int, limit_bytes: int) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            row = db.execute(_WITH_CHECKPOINTS_LEFT, (self._project_before,)).fetchone()
            if row is None:
                return False
            run_no, self._project_before = row
            if db.execute("SELECT 1 FROM ended_run WHERE run_no = ?", (run_no,)).fetchone():
                gone, freed = delete_some(
                    db, "checkpoint", run_no, limit_rows=limit_rows, limit_bytes=limit_bytes
                )
                count_open(db, run_no, -freed)
                if gone < limit_rows and freed < limit_bytes:
                    db.execute("DELETE FROM ended_run WHERE run_no = ?", (run_no,))
                    db.execute("DELETE FROM void_checkpoint WHERE run_no = ?", (run_no,))
                    count_kept(db, run_no)
            else:
                _drop_void(db, run_no, limit_rows=limit_rows, limit_bytes=limit_bytes)
            self._deleted = True
            return True

        left = await self._db.read(every(lambda row: row, _WITH_CHECKPOINTS_LEFT, self._project_before))
        return bool(left) and await self._db.remove(work)


def drop_checkpoints(db: sqlite3.Connection, batch: Append) -> None:
    """Makes void what earlier appends wrote of these steps, or deletes it at once where it is little."""
    if has_much(db, batch):
        db.executemany(_VOID, [(batch.run_no, step_id, batch.head) for step_id in batch.dropped])
        return
    freed = 0
    for step_id in batch.dropped:
        of_step = "FROM checkpoint WHERE run_no = ? AND step_id = ?"
        found = db.execute(f"SELECT length(data) {of_step}", (batch.run_no, step_id)).fetchall()
        if found:
            freed += sum(size for (size,) in found)
            db.execute(f"DELETE {of_step}", (batch.run_no, step_id))
    count_open(db, batch.run_no, -freed)


def has_much(db: sqlite3.Connection, batch: Append) -> bool:
    """Whether to delete the run's checkpoints holds other writers up; most of its open bytes are in them."""
    if batch.head > AT_ONCE_EVENTS:
        return True
    (size,) = db.execute("SELECT open_bytes FROM run WHERE no = ?", (batch.run_no,)).fetchone()
    return int(size) > AT_ONCE_BYTES


def _drop_void(db: sqlite3.Connection, run_no: int, *, limit_rows: int, limit_bytes: int) -> None:
    """Deletes some of the void checkpoints of a run that goes on: one at least if there is one."""
    steps = db.execute(
        "SELECT step_id, seq FROM void_checkpoint WHERE run_no = ? ORDER BY step_id LIMIT ?",
        (run_no, limit_rows),
    ).fetchall()
    rows, size = limit_rows, limit_bytes
    for step_id, seq in steps:
        found = db.execute(_VOID_OF_STEP, (run_no, step_id, seq, rows))
        void = first_rows(found, limit_bytes=size)
        db.executemany("DELETE FROM checkpoint WHERE rowid = ?", [(rowid,) for _, rowid in void])
        rows, size = rows - len(void), size - sum(length for length, _ in void)
        if rows <= 0 or size <= 0:
            break
        db.execute("DELETE FROM void_checkpoint WHERE run_no = ? AND step_id = ?", (run_no, step_id))
    count_open(db, run_no, size - limit_bytes)
