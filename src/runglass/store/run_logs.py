"""Runs read back: their rows, logs, traces and attempts, and the outlines that are kept of large ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from runglass.errors import RunPurged
from runglass.outlines.builder import AttemptRow
from runglass.store.records import AttemptKey, OpenedTrace, RunRecord, StepRow
from runglass.store.run_tables import RUN, run_of
from runglass.store.statements import COUNT_BYTES, Statements, Steps, as_bytes, as_int, done, every, one

LOOK_UP_BYTES = 128 * 1024
"""Reading a log that is no longer takes a fraction of a millisecond, so it may stand before look-ups."""
_STEPS = "SELECT position, data FROM step WHERE run_no = ?1 AND position > ?2 ORDER BY position"
_STEP = "SELECT position, step_id, loop_path, attempt, status, data"
_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM step WHERE run_no = ?1"
_CONTENT = "SELECT data FROM event WHERE run_no = ?1 AND seq IN (?2, ?3) ORDER BY seq"
_NO_MORE_DUE = "DELETE FROM due_outline WHERE run_no = ?1"


class RunLogs:
    """The part of the store that reads what has become of runs.

    `_page` gives the first rows of a statement for numbers and data behind a number, `_attempts_after` the
    first attempts of a run behind a position and number.
    """

    _statements: Statements
    _page: Callable[..., Any]
    _attempts_after: Callable[..., Any]

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._statements.look_up(one(run_of, f"{RUN} WHERE id = ?1", run_id))

    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        sql = "SELECT result, error FROM run_outcome WHERE run_no = ?1"
        return await self._statements.read(one(lambda row: (row[0], row[1]), sql, run_no)) or (None, None)

    async def session_runs(
        self, project_id: int, session_id: str, *, after: str, limit: int
    ) -> list[RunRecord]:
        sql = f"{RUN} WHERE session_id = ?1 AND id > ?2 AND project_id = ?3 ORDER BY id LIMIT ?4"
        return await self._statements.read(every(run_of, sql, session_id, after, project_id, limit))

    async def paused_runs(self) -> list[RunRecord]:
        return await self._statements.read(every(run_of, f"{RUN} WHERE status = 'paused' ORDER BY no"))

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        sql = "SELECT seq, data FROM event WHERE run_no = ?1 AND seq > ?2 ORDER BY seq"

        def work() -> Steps[list[tuple[int, bytes]]]:
            found: list[tuple[int, bytes]]
            found = yield lambda db: self._page(db, sql, run_no, after, limit_bytes=limit_bytes)
            if not found or found[0][0] != after + 1:
                yield from _require_run(run_no)
            return found

        return await self._statements.read(work)

    async def trace(
        self,
        run_id: str,
        *,
        project_id: int,
        flow_id: str | None = None,
        limit_bytes: int,
        most_log_bytes: int = sys.maxsize,
    ) -> OpenedTrace | None:
        def work() -> Steps[OpenedTrace | None]:
            rows = yield f"{RUN} WHERE id = ?1", run_id
            run = run_of(rows[0]) if rows else None
            if run is None or run.project_id != project_id or flow_id not in (None, run.flow_id):
                return None
            if run.log_bytes > most_log_bytes:
                return OpenedTrace(run, [])
            steps = yield lambda db: self._page(db, _STEPS, run.no, 0, limit_bytes=limit_bytes)
            seqs = run.content_seqs
            rows = (yield _CONTENT, run.no, *seqs) if seqs else []
            return OpenedTrace(run, steps, [row[0] for row in rows])

        if most_log_bytes > LOOK_UP_BYTES:
            return await self._statements.read_at_one_moment(work)
        return await self._statements.look_up_at_one_moment(work)

    async def trace_page(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        def work() -> Steps[list[tuple[int, bytes]]]:
            found: list[tuple[int, bytes]]
            found = yield lambda db: self._page(db, _STEPS, run_no, after, limit_bytes=limit_bytes)
            # A page that is short for want of rows would pass for the last one of the trace.
            yield from _require_run(run_no)
            return found

        return await self._statements.read(work)

    async def steps(self, run_no: int) -> list[StepRow]:
        sql = f"{_STEP} FROM step WHERE run_no = ?1 ORDER BY position"
        return await self._statements.read(every(StepRow._make, sql, run_no))

    async def attempts(self, run_no: int, step_id: str) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step WHERE run_no = ?1 AND step_id = ?2 UNION ALL"
            f" {_STEP} FROM step_attempt WHERE run_no = ?1 AND step_id = ?2 ORDER BY 1, 4"
        )
        return await self._statements.read(every(StepRow._make, sql, run_no, step_id))

    async def attempt_keys(
        self, run_no: int, step_id: str, *, position: int | None = None, loop_index: str | None = None
    ) -> list[AttemptKey]:
        where, values = _of_step(run_no, step_id, loop_index)
        if position is not None:
            values = (*values, position)
            where += f" AND position = ?{len(values)}"
        keys = "SELECT position, loop_path, attempt"
        sql = f"{keys} FROM step {where} UNION ALL {keys} FROM step_attempt {where} ORDER BY 1, 3"
        return await self._statements.read(every(lambda row: AttemptKey(*row), sql, *values))

    async def newest_position(
        self, run_no: int, step_id: str, *, loop_index: str | None = None
    ) -> int | None:
        where, values = _of_step(run_no, step_id, loop_index)
        sql = f"SELECT position FROM step {where} ORDER BY position DESC LIMIT 1"
        return await self._statements.read(one(as_int, sql, *values))

    async def attempt_data(self, run_no: int, keys: Sequence[AttemptKey], *, limit_bytes: int) -> list[bytes]:
        # An attempt is in one of the two, and moves from the first to the second when the next one starts.
        sql = (
            "SELECT data FROM step WHERE run_no = ?1 AND position = ?2 AND attempt = ?3 UNION ALL"
            " SELECT data FROM step_attempt WHERE run_no = ?1 AND position = ?2 AND attempt = ?3"
        )

        def work() -> Steps[list[bytes]]:
            found, size = [], 0
            for key in keys:
                rows = yield sql, run_no, key.position, key.attempt
                if not rows:
                    yield from _require_run(run_no)
                found.append(rows[0][0])
                size += len(rows[0][0])
                if size >= limit_bytes:
                    break
            return found

        return await self._statements.read(work)

    async def open_steps(self, run_no: int) -> tuple[list[StepRow], int]:
        sql = f"{_STEP} FROM step WHERE run_no = ?1 AND status IN ('running', 'failed') ORDER BY position"

        def work() -> Steps[tuple[list[StepRow], int]]:
            rows = yield sql, run_no
            [last] = yield _LAST_POSITION, run_no
            return [StepRow._make(row) for row in rows], as_int(last)

        return await self._statements.read_at_one_moment(work)

    async def attempts_at(self, run_no: int, position: int) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step_attempt WHERE run_no = ?1 AND position = ?2 UNION ALL"
            f" {_STEP} FROM step WHERE run_no = ?1 AND position = ?2 ORDER BY 4"
        )
        return await self._statements.read(every(StepRow._make, sql, run_no, position))

    async def attempt_page(
        self, run_no: int, *, after: tuple[int, int], limit_bytes: int
    ) -> tuple[RunRecord, list[AttemptRow]]:
        def work() -> Steps[tuple[RunRecord, list[AttemptRow]]]:
            rows = yield f"{RUN} WHERE no = ?1", run_no
            if not rows:
                raise _purged(run_no)
            found = yield lambda db: self._attempts_after(db, run_no, after, limit_bytes=limit_bytes)
            return run_of(rows[0]), found

        return await self._statements.read_at_one_moment(work)

    async def last_position(self, run_no: int) -> int:
        return await self._statements.read(one(as_int, _LAST_POSITION, run_no)) or 0

    async def due_outline(self) -> RunRecord | None:
        sql = f"{RUN} WHERE no = (SELECT max(run_no) FROM due_outline)"
        return await self._statements.read(one(run_of, sql))

    async def keep_outline(self, run_no: int, part: int, data: bytes) -> None:
        def work() -> Steps[None]:
            # Locked, so that no purge comes between.
            runs = yield "SELECT project_id FROM run WHERE no = ?1 FOR NO KEY UPDATE", run_no
            for (project_id,) in runs:
                sql = "SELECT length(data) FROM kept_outline WHERE run_no = ?1 AND part = ?2"
                before = yield sql, run_no, part
                size = len(data) - sum(length for (length,) in before)
                yield (
                    "INSERT INTO kept_outline (run_no, part, data) VALUES (?1, ?2, ?3)"
                    " ON CONFLICT (run_no, part) DO UPDATE SET data = excluded.data",
                    *(run_no, part, data),
                )
                yield "UPDATE run SET log_bytes = log_bytes + ?1 WHERE no = ?2", size, run_no
                yield COUNT_BYTES, project_id, size
                if part == 0:
                    yield _NO_MORE_DUE, run_no

        await self._statements.write(work)

    async def pass_over_outline(self, run_no: int) -> None:
        await self._statements.write(done(_NO_MORE_DUE, run_no))

    async def renew_outline(self, run_no: int) -> None:
        # Locked as well.
        sql = (
            "INSERT INTO due_outline (run_no) SELECT no FROM run WHERE no = ?1 FOR NO KEY UPDATE"
            " ON CONFLICT DO NOTHING"
        )
        await self._statements.write(done(sql, run_no))

    async def kept_outline(self, run_no: int) -> list[bytes]:
        sql = (
            "SELECT data FROM kept_outline WHERE run_no = ?1"
            " AND EXISTS (SELECT 1 FROM kept_outline WHERE run_no = ?1 AND part = 0) ORDER BY part"
        )
        return await self._statements.read(every(as_bytes, sql, run_no))


def _of_step(run_no: int, step_id: str, loop_index: str | None) -> tuple[str, tuple[Any, ...]]:
    """The condition for attempts of a step, in iterations whose path ends like this where it is given."""
    where, values = "WHERE run_no = ?1 AND step_id = ?2", (run_no, step_id)
    if loop_index is None:
        return where, values
    # Compared by the database, which leaves the interpreter to others while it goes through a long loop.
    ending = "substr(',' || loop_path, length(loop_path) - length(CAST(?3 AS text)) + 1)"
    return f"{where} AND {ending} = ',' || CAST(?3 AS text)", (*values, loop_index)


def _require_run(run_no: int) -> Steps[None]:
    """Raises RunPurged if there is no such run any more. To be asked after the read that it is about."""
    if not (yield "SELECT 1 FROM run WHERE no = ?1", run_no):
        raise _purged(run_no)


def _purged(run_no: int) -> RunPurged:
    return RunPurged(f"run number {run_no} was deleted while it was read")
