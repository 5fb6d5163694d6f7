"""Runs read back: their rows, logs, traces and attempts, and the outlines that are kept of large ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from runglass.errors import RunPurged, StoreError
from runglass.outlines.builder import AttemptRow
from runglass.store.calls import Calls
from runglass.store.imports import Imports
from runglass.store.records import AttemptKey, OpenedTrace, RawRow, RunRecord, StepRow
from runglass.store.run_tables import ATTEMPTS, EVENTS, RUN, STEPS, run_of
from runglass.store.statements import (
    Steps,
    as_bytes,
    as_int,
    count_bytes,
    done,
    every,
    fetch,
    one,
)

LOOK_UP_BYTES = 128 * 1024
"""Reading a log that is no longer takes a fraction of a millisecond, so it may stand before look-ups."""
_STEP = "SELECT position, step_id, loop_path, attempt, status, data"
_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM step WHERE run_no = :run_no"
_CONTENT = "SELECT data FROM event WHERE run_no = :run_no AND seq IN (:first, :last) ORDER BY seq"
_OF_STEP = "WHERE run_no = :run_no AND step_id = :step_id"
# Compared by the database, which leaves the interpreter to others while it goes through a long loop.
_IN_ITERATION = (
    "substr(',' || loop_path, length(loop_path) - length(CAST(:loop_index AS text)) + 1)"
    " = ',' || CAST(:loop_index AS text)"
)
_NO_MORE_DUE = "DELETE FROM due_outline WHERE run_no = :run_no"


class SqlRunLog(Calls, Imports):
    """The part of the store that has the runs, and here what has become of them.

    `_page` gives rows of a run behind a key: one at least if there is one, about `limit_bytes`. `_each_row`
    hands the rows of a statement on, one by one.
    """

    _page: Callable[..., Any]
    _each_row: Callable[..., Any]

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._statements.look_up(one(run_of, f"{RUN} WHERE id = :id", id=run_id))

    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        sql = "SELECT result, error FROM run_outcome WHERE run_no = :run_no"
        found = one(lambda row: (row[0], row[1]), sql, run_no=run_no)
        return await self._statements.read(found) or (None, None)

    async def session_runs(
        self, project_id: int, session_id: str, *, after: str, limit: int
    ) -> list[RunRecord]:
        sql = (
            f"{RUN} WHERE session_id = :session_id AND id > :after AND project_id = :project_id"
            " AND trigger_type <> 'plain' ORDER BY id LIMIT :limit"
        )
        values = {"session_id": session_id, "after": after, "project_id": project_id, "limit": limit}
        return await self._statements.read(every(run_of, sql, **values))

    async def paused_runs(self) -> list[RunRecord]:
        return await self._statements.read(every(run_of, f"{RUN} WHERE status = 'paused' ORDER BY no"))

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        def work() -> Steps[list[tuple[int, bytes]]]:
            found: list[tuple[int, bytes]]
            found = yield lambda db: self._page(db, EVENTS, run_no, (after,), limit_bytes=limit_bytes)
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
            run: RunRecord | None = yield one(run_of, f"{RUN} WHERE id = :id", id=run_id)
            if run is None or run.project_id != project_id or flow_id not in (None, run.flow_id):
                return None
            if run.log_bytes > most_log_bytes:
                return OpenedTrace(run, [])
            steps = yield lambda db: self._page(db, STEPS, run.no, (0,), limit_bytes=limit_bytes)
            content: list[bytes] = []
            if seqs := run.content_seqs:
                content = yield every(as_bytes, _CONTENT, run_no=run.no, first=seqs[0], last=seqs[-1])
            return OpenedTrace(run, steps, content)

        if most_log_bytes > LOOK_UP_BYTES:
            return await self._statements.read_at_one_moment(work)
        return await self._statements.look_up_at_one_moment(work)

    async def trace_page(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        def work() -> Steps[list[tuple[int, bytes]]]:
            found: list[tuple[int, bytes]]
            found = yield lambda db: self._page(db, STEPS, run_no, (after,), limit_bytes=limit_bytes)
            # A page that is short for want of rows would pass for the last one of the trace.
            yield from _require_run(run_no)
            return found

        return await self._statements.read(work)

    async def steps(self, run_no: int) -> list[StepRow]:
        sql = f"{_STEP} FROM step WHERE run_no = :run_no ORDER BY position"
        return await self._statements.read(every(StepRow._make, sql, run_no=run_no))

    async def attempt_keys(
        self, run_no: int, step_id: str, *, position: int | None = None, loop_index: str | None = None
    ) -> list[AttemptKey]:
        where = _OF_STEP if loop_index is None else f"{_OF_STEP} AND {_IN_ITERATION}"
        if position is not None:
            where += " AND position = :position"
        keys = "SELECT position, loop_path, attempt"
        sql = f"{keys} FROM step {where} UNION ALL {keys} FROM step_attempt {where} ORDER BY 1, 3"
        values = {"run_no": run_no, "step_id": step_id, "position": position, "loop_index": loop_index}
        return await self._statements.read(every(lambda row: AttemptKey(*row), sql, **values))

    async def newest_position(
        self, run_no: int, step_id: str, *, loop_index: str | None = None
    ) -> int | None:
        where = _OF_STEP if loop_index is None else f"{_OF_STEP} AND {_IN_ITERATION}"
        sql = f"SELECT position FROM step {where} ORDER BY position DESC LIMIT 1"
        values = {"run_no": run_no, "step_id": step_id, "loop_index": loop_index}
        return await self._statements.read(one(as_int, sql, **values))

    async def attempt_data(self, run_no: int, keys: Sequence[AttemptKey], *, limit_bytes: int) -> list[bytes]:
        where = "WHERE run_no = :run_no AND position = :position AND attempt = :attempt"
        # An attempt is in one of the two, and moves from the first to the second when the next one starts.
        sql = f"SELECT data FROM step {where} UNION ALL SELECT data FROM step_attempt {where}"

        def work() -> Steps[list[bytes]]:
            found, size = [], 0
            for key in keys:
                rows = yield fetch(sql, run_no=run_no, position=key.position, attempt=key.attempt)
                if not rows:
                    yield from _require_run(run_no)
                found.append(rows[0][0])
                size += len(rows[0][0])
                if size >= limit_bytes:
                    break
            return found

        return await self._statements.read(work)

    async def open_steps(self, run_no: int) -> tuple[list[StepRow], int]:
        sql = (
            f"{_STEP} FROM step WHERE run_no = :run_no AND status IN ('running', 'failed') ORDER BY position"
        )

        def work() -> Steps[tuple[list[StepRow], int]]:
            open_steps = yield every(StepRow._make, sql, run_no=run_no)
            return open_steps, (yield one(as_int, _LAST_POSITION, run_no=run_no))

        return await self._statements.read_at_one_moment(work)

    async def attempts_at(self, run_no: int, position: int) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step_attempt WHERE run_no = :run_no AND position = :position UNION ALL"
            f" {_STEP} FROM step WHERE run_no = :run_no AND position = :position ORDER BY 4"
        )
        return await self._statements.read(every(StepRow._make, sql, run_no=run_no, position=position))

    async def attempt_page(
        self, run_no: int, *, after: tuple[int, int], limit_bytes: int
    ) -> tuple[RunRecord, list[AttemptRow]]:
        def work() -> Steps[tuple[RunRecord, list[AttemptRow]]]:
            run: RunRecord | None = yield one(run_of, f"{RUN} WHERE no = :run_no", run_no=run_no)
            if run is None:
                raise _purged(run_no)
            found = yield lambda db: self._page(db, ATTEMPTS, run_no, after, limit_bytes=limit_bytes)
            return run, found

        return await self._statements.read_at_one_moment(work)

    async def last_position(self, run_no: int) -> int:
        return await self._statements.read(one(as_int, _LAST_POSITION, run_no=run_no)) or 0

    async def due_outline(self) -> RunRecord | None:
        sql = f"{RUN} WHERE no = (SELECT max(run_no) FROM due_outline)"
        return await self._statements.read(one(run_of, sql))

    async def raw_rows(self, run_id: str, take: Callable[[str, RawRow], None]) -> bool:
        began = False

        def work() -> Steps[bool]:
            nonlocal began
            if began:
                raise StoreError(f"the connection was lost while the rows of run {run_id!r} were read")
            run_no = yield one(as_int, "SELECT no FROM run WHERE id = :run_id", run_id=run_id)
            if run_no is None:
                return False
            began = True
            # Told by their columns, so that a table which a later version adds is not forgotten here.
            for table, column in (yield fetch(self._sql.tables_of_runs)):
                sql = f"SELECT * FROM {table} WHERE {column} = :key"
                key = run_id if column == "run_id" else run_no
                yield partial(self._each_row, sql=sql, key=key, take=partial(take, table))
            return True

        return await self._statements.read_at_one_moment(work)

    async def keep_outline(self, run_no: int, part: int, data: bytes) -> None:
        def work() -> Steps[None]:
            # Locked, so that no purge comes between.
            sql = "SELECT project_id FROM run WHERE no = :run_no FOR NO KEY UPDATE"
            for (project_id,) in (yield fetch(sql, run_no=run_no)):
                sql = "SELECT length(data) FROM kept_outline WHERE run_no = :run_no AND part = :part"
                size = len(data) - ((yield one(as_int, sql, run_no=run_no, part=part)) or 0)
                yield done(
                    "INSERT INTO kept_outline (run_no, part, data) VALUES (:run_no, :part, :data)"
                    " ON CONFLICT (run_no, part) DO UPDATE SET data = excluded.data",
                    run_no=run_no,
                    part=part,
                    data=data,
                )
                sql = "UPDATE run SET log_bytes = log_bytes + :size WHERE no = :run_no"
                yield done(sql, size=size, run_no=run_no)
                yield count_bytes(project_id, size)
                if part == 0:
                    yield done(_NO_MORE_DUE, run_no=run_no)

        await self._statements.write(work)

    async def pass_over_outline(self, run_no: int) -> None:
        await self._statements.write(done(_NO_MORE_DUE, run_no=run_no))

    async def renew_outline(self, run_no: int) -> None:
        # Locked as well.
        sql = (
            "INSERT INTO due_outline (run_no) SELECT no FROM run WHERE no = :run_no FOR NO KEY UPDATE"
            " ON CONFLICT DO NOTHING"
        )
        await self._statements.write(done(sql, run_no=run_no))

    async def kept_outline(self, run_no: int) -> list[bytes]:
        sql = (
            "SELECT data FROM kept_outline WHERE run_no = :run_no"
            " AND EXISTS (SELECT 1 FROM kept_outline WHERE run_no = :run_no AND part = 0) ORDER BY part"
        )
        return await self._statements.read(every(as_bytes, sql, run_no=run_no))


def _require_run(run_no: int) -> Steps[None]:
    """Raises RunPurged if there is no such run any more. To be asked after the read that it is about."""
    if not (yield fetch("SELECT 1 FROM run WHERE no = :run_no", run_no=run_no)):
        raise _purged(run_no)


def _purged(run_no: int) -> RunPurged:
    return RunPurged(f"run number {run_no} was deleted while it was read")
