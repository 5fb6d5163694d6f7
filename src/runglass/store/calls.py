"""Calls under an Idempotency-Key: their answers, and the content that a repeat is owed."""

from __future__ import annotations

from runglass.errors import DuplicateIdempotencyKey
from runglass.store.records import IdempotencyKey, IdempotencyRecord, RunRecord
from runglass.store.statements import COUNT_OPEN, Statements, Steps, as_bytes, done, fetch, one


class Calls:
    """The part of the store that lets a call be sent again."""

    _statements: Statements
    _deleted: bool

    async def call(self, project_id: int, key: str) -> IdempotencyRecord | None:
        sql = (
            "SELECT key, digest, run_id, head, status, answer FROM call LEFT JOIN call_answer"
            " USING (project_id, key) WHERE project_id = ?1 AND key = ?2"
        )
        names = IdempotencyRecord.__struct_fields__
        found = one(lambda row: IdempotencyRecord(**dict(zip(names, row, strict=True))), sql, project_id, key)
        return await self._statements.read(found)

    async def begin_call(self, project_id: int, call: IdempotencyKey, run: RunRecord) -> None:
        await self._statements.write(lambda: begin_call(project_id, call, run.id, head=run.head))

    async def answer_call(self, project_id: int, key: str, *, status: int, answer: bytes) -> None:
        def work() -> Steps[None]:
            runs = yield (
                "UPDATE call SET status = ?1 WHERE project_id = ?2 AND key = ?3"
                " AND status IS NULL AND EXISTS (SELECT 1 FROM run WHERE id = run_id)"
                " RETURNING (SELECT no FROM run WHERE id = run_id)",
                *(status, project_id, key),
            )
            for (run_no,) in runs:
                yield (
                    "INSERT INTO call_answer (project_id, key, run_no, answered_at, answer)"
                    " VALUES (?1, ?2, ?3, now(), ?4)",
                    *(project_id, key, run_no, answer),
                )
                yield COUNT_OPEN, run_no, len(answer)

        await self._statements.write(work)

    async def forget_calls(self, *, before: str) -> int:
        def work() -> Steps[int]:
            gone = yield (
                "DELETE FROM owed WHERE run_no IN (SELECT no FROM call JOIN run ON run.id = run_id"
                " GROUP BY no HAVING max(created_at) < ?1) RETURNING run_no, length(data)",
                before,
            )
            gone += yield (
                "DELETE FROM call_answer WHERE (project_id, key) IN"
                " (SELECT project_id, key FROM call WHERE created_at < ?1) RETURNING run_no, length(answer)",
                before,
            )
            freed: dict[int, int] = {}
            for run_no, size in gone:
                freed[run_no] = freed.get(run_no, 0) + size
            for run_no, size in sorted(freed.items()):
                yield COUNT_OPEN, run_no, -size
            [(calls,)] = yield fetch("SELECT count(*) FROM call WHERE created_at < :before", before=before)
            yield done("DELETE FROM call WHERE created_at < :before", before=before)
            return int(calls)

        forgotten = await self._statements.remove(work)
        self._deleted = self._deleted or forgotten > 0
        return forgotten

    async def owed(self, run_no: int, seq: int) -> bytes | None:
        sql = "SELECT data FROM owed WHERE run_no = ?1 AND seq = ?2"
        return await self._statements.read(one(as_bytes, sql, run_no, seq))


def begin_call(project_id: int, call: IdempotencyKey, run_id: str, *, head: int) -> Steps[None]:
    """Notes the call. Raises DuplicateIdempotencyKey, also once a transaction with the same key has ended."""
    added = yield (
        "INSERT INTO call (project_id, key, digest, run_id, head, created_at)"
        " VALUES (?1, ?2, ?3, ?4, ?5, now()) ON CONFLICT DO NOTHING RETURNING 1",
        *(project_id, call.key, call.digest, run_id, head),
    )
    if not added:
        raise repeated(call.key)


def repeated(key: str | None) -> DuplicateIdempotencyKey:
    """The error about a key under which there has been a call."""
    return DuplicateIdempotencyKey(f"there has been a call under the Idempotency-Key {key!r}")
