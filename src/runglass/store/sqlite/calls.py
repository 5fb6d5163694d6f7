"""Calls under an Idempotency-Key: their answers, and the content that a repeat is owed."""

import sqlite3
from typing import Any

from runglass.errors import DuplicateIdempotencyKey
from runglass.store.records import IdempotencyKey, IdempotencyRecord, RunRecord
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import as_bytes, count_open, now_text, one


class Calls:
    """The part of the store that lets a call be sent again."""

    _db: Connections
    _deleted: bool

    async def call(self, project_id: int, key: str) -> IdempotencyRecord | None:
        sql = (
            "SELECT key, digest, run_id, head, status, answer FROM call LEFT JOIN call_answer"
            " USING (project_id, key) WHERE project_id = ? AND key = ?"
        )
        return await self._db.read(one(_call, sql, project_id, key))

    async def begin_call(self, project_id: int, call: IdempotencyKey, run: RunRecord) -> None:
        await self._db.write(lambda db: begin_call(db, project_id, call, run.id, head=run.head))

    async def answer_call(self, project_id: int, key: str, *, status: int, answer: bytes) -> None:
        def work(db: sqlite3.Connection) -> None:
            sql = "UPDATE call SET status = ? WHERE project_id = ? AND key = ?"
            db.execute(sql, (status, project_id, key))
            db.execute(
                "INSERT OR REPLACE INTO call_answer (project_id, key, run_no, answered_at, answer)"
                " SELECT call.project_id, key, no, ?, ? FROM call JOIN run ON run.id = run_id"
                " WHERE call.project_id = ? AND key = ?",
                (now_text(), answer, project_id, key),
            )
            sql = "SELECT run_no FROM call_answer WHERE project_id = ? AND key = ?"
            for (run_no,) in db.execute(sql, (project_id, key)).fetchall():
                count_open(db, run_no, len(answer))

        await self._db.write(work)

    async def forget_calls(self, *, before: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            gone = db.execute(
                "DELETE FROM owed WHERE run_no IN (SELECT no FROM call JOIN run ON run.id = run_id"
                " GROUP BY no HAVING max(created_at) < ?) RETURNING run_no, length(data)",
                (before,),
            ).fetchall()
            gone += db.execute(
                "DELETE FROM call_answer WHERE (project_id, key) IN"
                " (SELECT project_id, key FROM call WHERE created_at < ?) RETURNING run_no, length(answer)",
                (before,),
            ).fetchall()
            for run_no, size in gone:
                count_open(db, run_no, -size)
            return db.execute("DELETE FROM call WHERE created_at < ?", (before,)).rowcount

        forgotten = await self._db.remove(work)
        self._deleted = self._deleted or forgotten > 0
        return forgotten

    async def owed(self, run_no: int, seq: int) -> bytes | None:
        sql = "SELECT data FROM owed WHERE run_no = ? AND seq = ?"
        return await self._db.read(one(as_bytes, sql, run_no, seq))


def begin_call(
    db: sqlite3.Connection, project_id: int, call: IdempotencyKey, run_id: str, *, head: int
) -> None:
    added = db.execute(
        "INSERT OR IGNORE INTO call (project_id, key, digest, run_id, head, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (project_id, call.key, call.digest, run_id, head, now_text()),
    ).rowcount
    if added != 1:
        raise DuplicateIdempotencyKey(f"there has been a call under the Idempotency-Key {call.key!r}")


def _call(row: Any) -> IdempotencyRecord:
    return IdempotencyRecord(
        key=row[0], digest=row[1], run_id=row[2], head=row[3], status=row[4], answer=row[5]
    )
