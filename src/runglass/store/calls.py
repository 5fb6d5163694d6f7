"""Calls under an Idempotency-Key: their answers, and the content that a repeat is owed."""

from __future__ import annotations

from runglass.errors import DuplicateIdempotencyKey
from runglass.store.records import IdempotencyKey, IdempotencyRecord
from runglass.store.statements import (
    Steps,
    StorePart,
    as_bytes,
    changed,
    count_open,
    done,
    fetch,
    one,
    subtract,
)


class Calls(StorePart):
    """The part of the store that lets a call be sent again."""

    async def call(self, project_id: int, key: str) -> IdempotencyRecord | None:
        """The call that was made under this Idempotency-Key, with its answer where that is kept."""
        sql = (
            "SELECT key, digest, run_id, head, status, answer FROM call LEFT JOIN call_answer"
            " USING (project_id, key) WHERE project_id = :project_id AND key = :key"
        )
        found = await self._read(fetch(sql, project_id=project_id, key=key))
        fields = IdempotencyRecord.__struct_fields__
        return IdempotencyRecord(**dict(zip(fields, found[0], strict=True))) if found else None

    async def answer_call(self, project_id: int, key: str, *, status: int, answer: bytes) -> None:
        """Keeps an answer that the run does not tell, for repeats of the call; the first one stays."""
        open_call = (
            "UPDATE call SET status = :status WHERE project_id = :project_id AND key = :key"
            " AND status IS NULL AND EXISTS (SELECT 1 FROM run WHERE id = run_id)"
            " RETURNING (SELECT no FROM run WHERE id = run_id)"
        )
        keep = (
            "INSERT INTO call_answer (project_id, key, run_no, answered_at, answer)"
            " VALUES (:project_id, :key, :run_no, now(), :answer)"
        )

        def work() -> Steps[None]:
            for (run_no,) in (yield fetch(open_call, status=status, project_id=project_id, key=key)):
                yield done(keep, project_id=project_id, key=key, run_no=run_no, answer=answer)
                yield count_open(run_no, len(answer))

        await self._write(work)

    async def forget_calls(self, *, before: str) -> int:
        """Drops the calls older than this ISO time, with the content kept for them; returns how many."""

        def work() -> Steps[int]:
            gone = yield fetch(
                "DELETE FROM owed WHERE run_no IN (SELECT no FROM call JOIN run ON run.id = run_id"
                " WHERE created_at < :before AND NOT EXISTS (SELECT 1 FROM call AS newer"
                " WHERE newer.run_id = call.run_id AND newer.created_at >= :before))"
                " RETURNING run_no, length(data)",
                before=before,
            )
            gone += yield fetch(
                "DELETE FROM call_answer WHERE (project_id, key) IN (SELECT project_id, key FROM call"
                " WHERE created_at < :before) RETURNING run_no, length(answer)",
                before=before,
            )
            yield from subtract(count_open, gone)
            [(calls,)] = yield fetch("SELECT count(*) FROM call WHERE created_at < :before", before=before)
            yield done("DELETE FROM call WHERE created_at < :before", before=before)
            return int(calls)

        due = "SELECT EXISTS (SELECT 1 FROM call WHERE created_at < :before)"
        if not await self._read(one(lambda row: bool(row[0]), due, before=before)):
            return 0
        forgotten = await self._remove(work)
        self._deleted = self._deleted or forgotten > 0
        return forgotten

    async def owed(self, run_no: int, seq: int) -> bytes | None:
        """The content that `Append.owed` kept for the event with this seq."""
        sql = "SELECT data FROM owed WHERE run_no = :run_no AND seq = :seq"
        return await self._read(one(as_bytes, sql, run_no=run_no, seq=seq))


UNUSED_KEY = (
    "NOT EXISTS (SELECT 1 FROM call WHERE call.project_id = run.project_id AND call.key = :key"
    " AND (call.run_id <> run.id OR call.head <> run.head))"
)
"""The condition for a run that a call under `:key` may resume: it is the key of no other call."""


def begin_call(project_id: int, call: IdempotencyKey, run_id: str, *, head: int) -> Steps[None]:
    """Stores the key of a call. Raises DuplicateIdempotencyKey for one that is used, be it just now.

    The same call may be there: the version before this one stored it before it resumed the run.
    """
    added = yield changed(
        "INSERT INTO call (project_id, key, digest, run_id, head, created_at)"
        " VALUES (:project_id, :key, :digest, :run_id, :head, now()) ON CONFLICT (project_id, key)"
        " DO UPDATE SET head = excluded.head"
        " WHERE call.run_id = excluded.run_id AND call.head = excluded.head",
        project_id=project_id,
        **call._asdict(),
        run_id=run_id,
        head=head,
    )
    if not added:
        raise repeated(call.key)


def repeated(key: str | None) -> DuplicateIdempotencyKey:
    """The error about a key under which there has been a call."""
    return DuplicateIdempotencyKey(f"there has been a call under the Idempotency-Key {key!r}")
