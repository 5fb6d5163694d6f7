"""Calls under an Idempotency-Key: their answers, and the content that a repeat is owed."""

from typing import Any

from runglass.errors import DuplicateIdempotencyKey
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.sql_helpers import NOW, as_bytes, one, rows_of
from runglass.store.records import IdempotencyKey, IdempotencyRecord, RunRecord


class Calls:
    """The part of the store that lets a call be sent again."""

    _db: Connections

    async def call(self, project_id: int, key: str) -> IdempotencyRecord | None:
        sql = (
            "SELECT key, digest, run_id, head, status, answer FROM call LEFT JOIN call_answer"
            " USING (project_id, key) WHERE project_id = $1 AND key = $2"
        )
        return await self._db.read(one(_call, sql, project_id, key))

    async def begin_call(self, project_id: int, call: IdempotencyKey, run: RunRecord) -> None:
        await self._db.write(lambda db: begin_call(db, project_id, call, run.id, head=run.head))

    async def answer_call(self, project_id: int, key: str, *, status: int, answer: bytes) -> None:
        async def work(db: Db) -> None:
            sql = (
                "UPDATE call SET status = $1 FROM run WHERE call.project_id = $2 AND key = $3"
                " AND run.id = run_id RETURNING run.no"
            )
            run_no = await db.fetchval(sql, status, project_id, key)
            if run_no is None:
                return
            sql = "SELECT length(answer) FROM call_answer WHERE project_id = $1 AND key = $2"
            before = await db.fetchval(sql, project_id, key) or 0
            await db.execute(
                "INSERT INTO call_answer (project_id, key, run_no, answered_at, answer)"
                f" VALUES ($1, $2, $3, {NOW}, $4) ON CONFLICT (project_id, key) DO UPDATE"
                " SET answered_at = excluded.answered_at, answer = excluded.answer",
                *(project_id, key, run_no, answer),
            )
            await db.execute("SELECT count_open($1, $2)", run_no, len(answer) - before)

        await self._db.write(work)

    async def forget_calls(self, *, before: str) -> int:
        async def work(db: Db) -> int:
            gone = await db.fetch(
                "DELETE FROM owed WHERE run_no IN (SELECT no FROM call JOIN run ON run.id = run_id"
                " GROUP BY no HAVING max(created_at) < $1) RETURNING run_no, length(data)",
                before,
            )
            gone += await db.fetch(
                "DELETE FROM call_answer WHERE (project_id, key) IN"
                " (SELECT project_id, key FROM call WHERE created_at < $1) RETURNING run_no, length(answer)",
                before,
            )
            freed: dict[int, int] = {}
            for run_no, size in gone:
                freed[run_no] = freed.get(run_no, 0) + size
            for run_no, size in sorted(freed.items()):
                await db.execute("SELECT count_open($1, $2)", run_no, -size)
            return rows_of(await db.execute("DELETE FROM call WHERE created_at < $1", before))

        return await self._db.write(work)

    async def owed(self, run_no: int, seq: int) -> bytes | None:
        sql = "SELECT data FROM owed WHERE run_no = $1 AND seq = $2"
        return await self._db.read(one(as_bytes, sql, run_no, seq))


async def begin_call(db: Db, project_id: int, call: IdempotencyKey, run_id: str, *, head: int) -> None:
    """Notes the call. Raises DuplicateIdempotencyKey, also once a transaction with the same key has ended."""
    added = await db.execute(
        "INSERT INTO call (project_id, key, digest, run_id, head, created_at)"
        f" VALUES ($1, $2, $3, $4, $5, {NOW}) ON CONFLICT DO NOTHING",
        *(project_id, call.key, call.digest, run_id, head),
    )
    if rows_of(added) != 1:
        raise DuplicateIdempotencyKey(f"there has been a call under the Idempotency-Key {call.key!r}")


def _call(row: Any) -> IdempotencyRecord:
    return IdempotencyRecord(
        key=row[0], digest=row[1], run_id=row[2], head=row[3], status=row[4], answer=row[5]
    )
