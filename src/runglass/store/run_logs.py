"""Runs read back: their rows, logs, traces and attempts, and the outlines that are kept of large ones.

More than 300 lines: beside its statement each method has what it promises, which nothing else says.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from runglass.errors import RunPurged, StoreError
from runglass.outlines.builder import AttemptRow
from runglass.store.calls import Calls
from runglass.store.imports import Imports
from runglass.store.records import (
    Append,
    AttemptKey,
    Checkpoint,
    NewRun,
    OpenedTrace,
    RawRow,
    RunRecord,
    Setback,
    StepRow,
)
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
_HOLDS = (
    "NOT EXISTS (SELECT 1 FROM void_checkpoint AS void WHERE void.run_no = checkpoint.run_no"
    " AND void.step_id = checkpoint.step_id AND void.seq >= checkpoint.seq)"
    " AND NOT EXISTS (SELECT 1 FROM ended_run WHERE run_no = checkpoint.run_no)"
)
"""The condition for the checkpoints that are not void."""
_NO_MORE_DUE = "DELETE FROM due_outline WHERE run_no = :run_no"


class RunLog(Calls, Imports):
    """The part of the store that has the runs, and here what has become of them.

    The one rule that all stores keep: an `Append` is one transaction. Events, run row, step attempts and
    checkpoints are written together or not at all, and only if the log's head is where the writer believes it
    to be. Everything a store returns is already on disk, as far as its durability setting goes.

    `_page` gives rows of a run behind a key: one at least if there is one, about `limit_bytes`. `_each_row`
    hands the rows of a statement on, one by one.
    """

    _page: Callable[..., Any]
    _each_row: Callable[..., Any]

    @abstractmethod
    async def create_run(self, run: NewRun) -> RunRecord:
        """A pending run without events.

        Raises DuplicateIdempotencyKey, and creates nothing, if there has been a call under the same key.
        """

    @abstractmethod
    async def append(self, batch: Append) -> None:
        """Writes the batch. Raises WrongExpectedVersion if head or fence are not the run's."""

    async def request(self, run_no: int) -> bytes | None:
        """`NewRun.request`, as long as the run has not ended."""
        sql = "SELECT request FROM run_request WHERE run_no = :run_no"
        return await self._read(one(as_bytes, sql, run_no=run_no))

    @property
    @abstractmethod
    def generation(self) -> int:
        """Rises where the store may have lost its newest commits: it was restarted, or replaced by a standby.

        Whoever holds something that it has read compares it then. 0 for ever where that cannot be.
        """

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> None:
        """Notes that the store had the run's events up to `had`, and now has less or others.

        The audit log has it, too, and once the log of the process, unless the run was deleted by hand.
        Nothing is kept where no other database could have less.
        """

    async def setbacks(self, run_id: str) -> list[Setback]:
        """What the run had at starts of the database, newest first: the last start, and those with a loss.

        Of the last 30 days. Also of a run that is gone; none of one that was created since.
        """
        return []

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._look_up(one(run_of, f"{RUN} WHERE id = :id", id=run_id))

    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        """Result and error of a run, as its caller is to have them; both None once they have expired."""
        sql = "SELECT result, error FROM run_outcome WHERE run_no = :run_no"
        found = one(lambda row: (row[0], row[1]), sql, run_no=run_no)
        return await self._read(found) or (None, None)

    async def session_runs(
        self, project_id: int, session_id: str, *, after: str, limit: int
    ) -> list[RunRecord]:
        """The first runs tagged with this session that come after run id `after`, oldest first.

        Plain ones are left out.
        """
        sql = (
            f"{RUN} WHERE session_id = :session_id AND id > :after AND project_id = :project_id"
            " AND trigger_type <> 'plain' ORDER BY id LIMIT :limit"
        )
        values = {"session_id": session_id, "after": after, "project_id": project_id, "limit": limit}
        return await self._read(every(run_of, sql, **values))

    async def paused_runs(self) -> list[RunRecord]:
        """All runs whose status is paused, oldest first."""
        return await self._read(every(run_of, f"{RUN} WHERE status = 'paused' ORDER BY no"))

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Seq and JSON of the events after `after`: one at least if there is one, about `limit_bytes`."""

        def work() -> Steps[list[tuple[int, bytes]]]:
            found: list[tuple[int, bytes]]
            found = yield lambda db: self._page(db, EVENTS, run_no, (after,), limit_bytes=limit_bytes)
            if not found or found[0][0] != after + 1:
                yield from _require_run(run_no)
            return found

        return await self._read(work)

    async def trace(
        self,
        run_id: str,
        *,
        project_id: int,
        flow_id: str | None = None,
        limit_bytes: int,
        most_log_bytes: int = sys.maxsize,
    ) -> OpenedTrace | None:
        """The run and the first page of its trace, as of one moment.

        None if the project, or the flow where one is given, has no such run; then no step is read either. Nor
        is one of a run with a longer log than `most_log_bytes`.
        """

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
            return await self._read_at_one_moment(work)
        return await self._look_up_at_one_moment(work)

    async def trace_page(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Position and data of the latest attempt of each step, in order of first start, after `after`.

        One at least if there is one, about `limit_bytes`.
        """

        def work() -> Steps[list[tuple[int, bytes]]]:
            found: list[tuple[int, bytes]]
            found = yield lambda db: self._page(db, STEPS, run_no, (after,), limit_bytes=limit_bytes)
            # A page that is short for want of rows would pass for the last one of the trace.
            yield from _require_run(run_no)
            return found

        return await self._read(work)

    async def steps(self, run_no: int) -> list[StepRow]:
        """The latest attempt of each step, in order of first start."""
        sql = f"{_STEP} FROM step WHERE run_no = :run_no ORDER BY position"
        return await self._read(every(StepRow._make, sql, run_no=run_no))

    async def attempt_keys(
        self, run_no: int, step_id: str, *, position: int | None = None, loop_index: str | None = None
    ) -> list[AttemptKey]:
        """Every attempt of the step, by position, then number: as cheap for large ones as for small ones.

        Where they are given, those at `position` alone, and in iterations whose path ends in `loop_index`.
        """
        where = _OF_STEP if loop_index is None else f"{_OF_STEP} AND {_IN_ITERATION}"
        if position is not None:
            where += " AND position = :position"
        keys = "SELECT position, loop_path, attempt"
        sql = f"{keys} FROM step {where} UNION ALL {keys} FROM step_attempt {where} ORDER BY 1, 3"
        values = {"run_no": run_no, "step_id": step_id, "position": position, "loop_index": loop_index}
        return await self._read(every(lambda row: AttemptKey(*row), sql, **values))

    async def newest_position(
        self, run_no: int, step_id: str, *, loop_index: str | None = None
    ) -> int | None:
        """The position of the step in that of its iterations that began last, None if there is none.

        Of the iterations whose path ends in `loop_index` where it is given, for which all may be looked at.
        """
        where = _OF_STEP if loop_index is None else f"{_OF_STEP} AND {_IN_ITERATION}"
        sql = f"SELECT position FROM step {where} ORDER BY position DESC LIMIT 1"
        values = {"run_no": run_no, "step_id": step_id, "loop_index": loop_index}
        return await self._read(one(as_int, sql, **values))

    async def attempt_data(self, run_no: int, keys: Sequence[AttemptKey], *, limit_bytes: int) -> list[bytes]:
        """The data of the first of these attempts, in their order: one at least, about `limit_bytes`."""
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

        return await self._read(work)

    async def open_steps(self, run_no: int) -> tuple[list[StepRow], int]:
        """The steps whose latest attempt is running or has failed, and the last position given out."""
        sql = (
            f"{_STEP} FROM step WHERE run_no = :run_no AND status IN ('running', 'failed') ORDER BY position"
        )

        def work() -> Steps[tuple[list[StepRow], int]]:
            open_steps = yield every(StepRow._make, sql, run_no=run_no)
            return open_steps, (yield one(as_int, _LAST_POSITION, run_no=run_no))

        return await self._read_at_one_moment(work)

    async def attempts_at(self, run_no: int, position: int) -> list[StepRow]:
        """Every attempt of the step at one position, that is in one iteration, by attempt number."""
        sql = (
            f"{_STEP} FROM step_attempt WHERE run_no = :run_no AND position = :position UNION ALL"
            f" {_STEP} FROM step WHERE run_no = :run_no AND position = :position ORDER BY 4"
        )
        return await self._read(every(StepRow._make, sql, run_no=run_no, position=position))

    async def checkpoints(self, run_no: int) -> list[Checkpoint]:
        sql = (
            f"SELECT step_id, loop_path, data FROM checkpoint WHERE run_no = :run_no AND {_HOLDS}"
            " ORDER BY step_id, loop_path"
        )
        return await self._read(every(Checkpoint._make, sql, run_no=run_no))

    async def checkpoint(self, run_no: int, step_id: str, loop_path: str) -> bytes | None:
        """The data of one checkpoint; None if there is none, as after the end of the run."""
        where = "run_no = :run_no AND step_id = :step_id AND loop_path = :loop_path"
        sql = f"SELECT data FROM checkpoint WHERE {where} AND {_HOLDS}"
        found = one(as_bytes, sql, run_no=run_no, step_id=step_id, loop_path=loop_path)
        return await self._read(found)

    async def attempt_page(
        self, run_no: int, *, after: tuple[int, int], limit_bytes: int
    ) -> tuple[RunRecord, list[AttemptRow]]:
        """The run, and of the same moment the attempts of all steps after this position and number.

        One at least if there is one, about `limit_bytes`, in order of position and number.
        """

        def work() -> Steps[tuple[RunRecord, list[AttemptRow]]]:
            run: RunRecord | None = yield one(run_of, f"{RUN} WHERE no = :run_no", run_no=run_no)
            if run is None:
                raise _purged(run_no)
            found = yield lambda db: self._page(db, ATTEMPTS, run_no, after, limit_bytes=limit_bytes)
            return run, found

        return await self._read_at_one_moment(work)

    async def last_position(self, run_no: int) -> int:
        """The position of the step and iteration that began last; 0 where none has."""
        return await self._read(one(as_int, _LAST_POSITION, run_no=run_no)) or 0

    async def due_outline(self) -> RunRecord | None:
        """The newest run that has ended with `LARGE_RUN_EVENTS` or more and whose outline is not kept yet.

        None if there is none. Costs no more than what it finds.
        """
        sql = f"{RUN} WHERE no = (SELECT max(run_no) FROM due_outline)"
        return await self._read(one(run_of, sql))

    async def raw_rows(self, run_id: str, take: Callable[[str, RawRow], None]) -> bool:
        """Hands every row that belongs to a run to `take`, with its table, as it is; False if there is none.

        `take` is called in another thread, and the next row is read when it returns.
        """
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

        return await self._read_at_one_moment(work)

    async def keep_outline(self, run_no: int, part: int, data: bytes) -> None:
        """Keeps a part of the packed outline of a run that has ended: it counts among the run's bytes.

        Part 0 comes last, and the outline is due no more. Does nothing where the run is not there any more.
        """

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

        await self._write(work)

    async def pass_over_outline(self, run_no: int) -> None:
        """The outline of this run is due no more."""
        await self._write(done(_NO_MORE_DUE, run_no=run_no))

    async def renew_outline(self, run_no: int) -> None:
        """The outline of this run, which has ended, is due once more. Does nothing where it is not there."""
        # Locked as well.
        sql = (
            "INSERT INTO due_outline (run_no) SELECT no FROM run WHERE no = :run_no FOR NO KEY UPDATE"
            " ON CONFLICT DO NOTHING"
        )
        await self._write(done(sql, run_no=run_no))

    async def kept_outline(self, run_no: int) -> list[bytes]:
        """The parts of the run's outline in their order, from part 0 on; none where it is not whole."""
        sql = (
            "SELECT data FROM kept_outline WHERE run_no = :run_no"
            " AND EXISTS (SELECT 1 FROM kept_outline WHERE run_no = :run_no AND part = 0) ORDER BY part"
        )
        return await self._read(every(as_bytes, sql, run_no=run_no))


def _require_run(run_no: int) -> Steps[None]:
    """Raises RunPurged if there is no such run any more. To be asked after the read that it is about."""
    if not (yield fetch("SELECT 1 FROM run WHERE no = :run_no", run_no=run_no)):
        raise _purged(run_no)


def _purged(run_no: int) -> RunPurged:
    return RunPurged(f"run number {run_no} was deleted while it was read")
