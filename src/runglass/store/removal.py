"""Removal for good: whole runs, the content of runs, and what is kept for callers and for going on.

In bites, so that no transaction lasts long: others may wait for one of them. What a bite may take is measured
in bytes, which some databases overwrite, too. What goes bit by bit counts as bytes of its run until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from runglass.log.content import strip_error, strip_summary
from runglass.store.audit import note_change
from runglass.store.records import Checkpoint, ContentPlace
from runglass.store.run_tables import CONTENT, ENDED, ROWS_OF_RUN, SIZES, Stripped
from runglass.store.statements import (
    COUNT_BYTES,
    COUNT_KEPT,
    COUNT_OPEN,
    Statements,
    Steps,
    as_bytes,
    as_int,
    every,
    one,
)
from runglass.wire.admin_api import Actor

_HOLDS = (
    "NOT EXISTS (SELECT 1 FROM void_checkpoint AS void WHERE void.run_no = checkpoint.run_no"
    " AND void.step_id = checkpoint.step_id AND void.seq >= checkpoint.seq)"
    " AND NOT EXISTS (SELECT 1 FROM ended_run WHERE run_no = checkpoint.run_no)"
)
"""The condition for the checkpoints that are not void."""
_WITH_CHECKPOINTS_LEFT = (
    "SELECT run.no, project_id FROM (SELECT run_no FROM ended_run UNION SELECT run_no FROM void_checkpoint)"
    " AS due JOIN run ON run.no = run_no ORDER BY project_id <= ?1, project_id, run_no LIMIT 1"
)
"""The projects take turns: the first one behind that number, or the first of all."""
_VOID_OF_STEP = (
    "SELECT loop_path, length(data) FROM checkpoint WHERE run_no = ?1 AND step_id = ?2 AND seq <= ?3"
    " ORDER BY loop_path LIMIT ?4"
)
# The answer of a pause is given before its run ends, and goes with the other content that is owed.
_DUE_ANSWERS = (
    "SELECT no, run_no, length(answer) FROM call_answer WHERE answered_at < ?1"
    " AND NOT EXISTS (SELECT 1 FROM run_outcome WHERE run_no = call_answer.run_no)"
    " AND NOT EXISTS (SELECT 1 FROM run WHERE run.no = call_answer.run_no"
    " AND status IN ('pending', 'running')) ORDER BY answered_at LIMIT ?2"
)
_DUE_OUTCOMES = (
    "SELECT run_no, coalesce(length(result), 0) + coalesce(length(error), 0)"
    " FROM run_outcome WHERE ended_at < ?1 ORDER BY ended_at, run_no LIMIT ?2"
)
_NOT_TAKEN = "FOR UPDATE SKIP LOCKED"
"""Passes over what another process deletes at this moment: its bytes are to be counted once."""
_BITE_ROWS, _BITE_BYTES = 250, 1 << 20
"""Others may wait while so much is deleted, and overwritten: some milliseconds."""


class Removal:
    """The part of the store that removes what is no longer to be there.

    `_with_content` is the condition for runs whose content is there, as their index has it, `_drop_month`
    what goes with other runs at once, and `_forget_run` gives the statement for what else there is of a run.
    `_first_rows` gives rows that end with their bytes up to a limit, `_content` rows of a table with content.
    """

    _statements: Statements
    _with_content = "has_content"
    _drop_month: Sequence[str] = ()
    _forget_run: Callable[[int, str], tuple[Any, ...]]
    _first_rows: Callable[..., Any]
    _content: Callable[..., Any]
    _deleted = True
    """Whether content was deleted since the last `scrub`, maybe by the process before this one."""
    _project_before = 0
    """Whose checkpoints went last."""

    async def ended_runs(self, flow_id: str, *, before: str, with_content: bool, limit: int) -> list[int]:
        content = f" AND {self._with_content}" if with_content else ""
        sql = f"SELECT no FROM run WHERE flow_id = ?1 AND ended_at <= ?2{content} ORDER BY ended_at, no"
        return await self._statements.read(every(as_int, f"{sql} LIMIT ?3", flow_id, before, limit))

    async def purge_run(self, run_no: int, *, by: Actor | None = None) -> bool:
        def work() -> Steps[bool]:
            gone = yield (
                f"DELETE FROM run WHERE no = ?1 AND {ENDED}"
                " RETURNING id, project_id, flow_id, status, log_bytes + open_bytes",
                run_no,
            )
            for run_id, project_id, flow_id, status, size in gone:
                yield COUNT_BYTES, project_id, -size
                yield "INSERT INTO purged_run (run_no) VALUES (?1)", run_no
                yield "DELETE FROM ended_run WHERE run_no = ?1", run_no
                yield "DELETE FROM due_outline WHERE run_no = ?1", run_no
                yield self._forget_run(run_no, run_id)
                # With the run and not later: a call that is sent again is not to get an answer out of it.
                yield "DELETE FROM call WHERE run_id = ?1", run_id
                if by is not None:
                    told = {"flowId": flow_id, "status": status}
                    yield from note_change(project_id, by, "run.purged", run_id, **told)
            return bool(gone)

        return await self._statements.remove(work)

    async def purged_runs(self) -> list[int]:
        return await self._statements.read(every(as_int, "SELECT run_no FROM purged_run ORDER BY run_no"))

    async def purge_rows(self, run_no: int, *, limit_rows: int, limit_bytes: int) -> bool:
        def work() -> Steps[bool]:
            if not (yield f"SELECT 1 FROM purged_run WHERE run_no = ?1 {_NOT_TAKEN}", run_no):
                return False
            # In the first place: what goes with its month need not go row by row.
            for sql in self._drop_month:
                yield sql, run_no
            rows, size = limit_rows, limit_bytes
            for table in ROWS_OF_RUN:
                gone, freed = yield from self._delete_some(table, run_no, limit_rows=rows, limit_bytes=size)
                rows, size = rows - gone, size - freed
                if rows <= 0 or size <= 0:
                    return True
            yield "DELETE FROM purged_run WHERE run_no = ?1", run_no
            self._deleted = True
            return False

        return await self._statements.remove(work)

    def _delete_some(
        self, table: str, run_no: int, *, limit_rows: int, limit_bytes: int
    ) -> Steps[tuple[int, int]]:
        """Deletes the first rows of the run, one at least; returns how many, and their bytes."""
        key = ROWS_OF_RUN[table]
        columns, order = ", ".join((*key, SIZES.get(table, "length(data)"))), ", ".join(("run_no", *key))
        sql = f"SELECT {columns} FROM {table} WHERE run_no = ?1 ORDER BY {order} LIMIT ?2"
        first = yield from self._first(sql, run_no, limit_rows, limit_bytes=limit_bytes)
        if first:
            last = tuple(first[-1])[:-1]
            upto = f" AND ({', '.join(key)}) <= ({marks(2, len(key))})" if key else ""
            yield f"DELETE FROM {table} WHERE run_no = ?1{upto}", run_no, *last
        return len(first), sum(row[-1] for row in first)

    def _strip_some(
        self, run_no: int, place: ContentPlace | None, *, limit_rows: int, limit_bytes: int
    ) -> Steps[Stripped]:
        """The first rows with content after that place, without it."""
        tables: Sequence[str] = list(CONTENT)
        after: tuple[int, ...] = ()
        if place is not None:
            tables, after = tables[tables.index(place.table) :], place.key
        rows: list[tuple[str, tuple[int, ...], bytes]] = []
        seen = size = freed = 0
        for table in tables:
            found = yield partial(
                self._content,
                table=table,
                run_no=run_no,
                after=after,
                limit_rows=limit_rows - seen,
                limit_bytes=limit_bytes - size,
            )
            for *key, data in found:
                stripped = CONTENT[table](data)
                seen, size = seen + 1, size + len(data)
                if stripped != data:
                    rows.append((table, tuple(key), stripped))
                    freed += len(data) - len(stripped)
                if seen >= limit_rows or size >= limit_bytes:
                    return Stripped(rows, None, None, ContentPlace(table, tuple(key)), freed)
            after = ()
        error = yield "SELECT error FROM run_outcome WHERE run_no = ?1", run_no
        summary = yield "SELECT summary FROM run WHERE no = ?1", run_no
        return Stripped(
            rows,
            strip_error(error[0][0]) if error else None,
            strip_summary(summary[0][0]) if summary else None,
            None,
            freed,
        )

    def _put_stripped(self, run_no: int, stripped: Stripped) -> Steps[None]:
        if stripped.freed:
            sql = "UPDATE run SET log_bytes = log_bytes - ?1 WHERE no = ?2 RETURNING project_id"
            for (project_id,) in (yield sql, stripped.freed, run_no):
                yield COUNT_BYTES, project_id, -stripped.freed
        for table, key, data in stripped.rows:
            columns = ("run_no", *ROWS_OF_RUN[table])
            same_row = " AND ".join(f"{column} = ?{number}" for number, column in enumerate(columns, 2))
            yield f"UPDATE {table} SET data = ?1 WHERE {same_row}", data, run_no, *key
        if stripped.place is None:
            sql = "UPDATE run_outcome SET result = NULL, error = ?1 WHERE run_no = ?2"
            yield sql, stripped.outcome, run_no
            yield COUNT_KEPT, run_no
            yield (
                "UPDATE run SET has_content = false, summary = coalesce(?1, summary)"
                f" WHERE no = ?2 AND {ENDED}",
                *(stripped.summary, run_no),
            )

    async def checkpoints(self, run_no: int) -> list[Checkpoint]:
        sql = (
            f"SELECT step_id, loop_path, data FROM checkpoint WHERE run_no = ?1 AND {_HOLDS}"
            " ORDER BY step_id, loop_path"
        )
        return await self._statements.read(every(Checkpoint._make, sql, run_no))

    async def checkpoint(self, run_no: int, step_id: str, loop_path: str) -> bytes | None:
        where = "run_no = ?1 AND step_id = ?2 AND loop_path = ?3"
        sql = f"SELECT data FROM checkpoint WHERE {where} AND {_HOLDS}"
        return await self._statements.read(one(as_bytes, sql, run_no, step_id, loop_path))

    async def drop_checkpoints(self, *, limit_rows: int, limit_bytes: int) -> bool:
        def work() -> Steps[bool]:
            rows = yield _WITH_CHECKPOINTS_LEFT, self._project_before
            for run_no, self._project_before in rows:
                # Locked as an append would: what is deleted and what is counted belong together.
                yield "SELECT 1 FROM run WHERE no = ?1 FOR NO KEY UPDATE", run_no
                limits = {"limit_rows": limit_rows, "limit_bytes": limit_bytes}
                if (yield "SELECT 1 FROM ended_run WHERE run_no = ?1", run_no):
                    gone, freed = yield from self._delete_some("checkpoint", run_no, **limits)
                    yield COUNT_OPEN, run_no, -freed
                    if gone < limit_rows and freed < limit_bytes:
                        yield "DELETE FROM ended_run WHERE run_no = ?1", run_no
                        yield "DELETE FROM void_checkpoint WHERE run_no = ?1", run_no
                        yield COUNT_KEPT, run_no
                else:
                    yield from self._drop_void(run_no, **limits)
                self._deleted = True
            return bool(rows)

        left = await self._statements.read(every(tuple, _WITH_CHECKPOINTS_LEFT, self._project_before))
        return bool(left) and await self._statements.remove(work)

    def _drop_void(self, run_no: int, *, limit_rows: int, limit_bytes: int) -> Steps[None]:
        """Deletes some of the void checkpoints of a run that goes on: one at least if there is one."""
        steps = yield (
            "SELECT step_id, seq FROM void_checkpoint WHERE run_no = ?1 ORDER BY step_id LIMIT ?2",
            *(run_no, limit_rows),
        )
        rows, size = limit_rows, limit_bytes
        for step_id, seq in steps:
            void = yield from self._first(_VOID_OF_STEP, run_no, step_id, seq, rows, limit_bytes=size)
            yield (
                "DELETE FROM checkpoint WHERE run_no = ?1 AND step_id = ?2 AND seq <= ?3"
                " AND loop_path = ANY (?4)",
                *(run_no, step_id, seq, [loop_path for loop_path, _ in void]),
            )
            rows, size = rows - len(void), size - sum(length for _, length in void)
            if rows <= 0 or size <= 0:
                break
            yield "DELETE FROM void_checkpoint WHERE run_no = ?1 AND step_id = ?2", run_no, step_id
        yield COUNT_OPEN, run_no, size - limit_bytes

    async def expire_answers(self, *, before: str, limit: int) -> int:
        def work() -> Steps[int]:
            gone, room = 0, _BITE_BYTES
            for run_no, size in (yield f"{_DUE_OUTCOMES} {_NOT_TAKEN}", before, limit):
                if room <= 0:
                    break
                limits = {"limit_rows": _BITE_ROWS, "limit_bytes": room}
                rows, freed = yield from self._delete_some("owed", run_no, **limits)
                gone, room = gone + 1, room - freed
                if rows == _BITE_ROWS or room <= 0:
                    # There may be more of it, which goes with the next bite.
                    yield COUNT_OPEN, run_no, -freed
                    break
                yield "DELETE FROM run_outcome WHERE run_no = ?1", run_no
                yield COUNT_OPEN, run_no, -freed - size
                yield COUNT_KEPT, run_no
                room -= size
            for number, run_no, size in (yield f"{_DUE_ANSWERS} {_NOT_TAKEN}", before, limit):
                if room > 0:
                    yield "DELETE FROM call_answer WHERE no = ?1", number
                    yield COUNT_OPEN, run_no, -size
                    gone, room = gone + 1, room - size
            return gone

        due = f"SELECT EXISTS ({_DUE_OUTCOMES}) OR EXISTS ({_DUE_ANSWERS})"
        if not await self._statements.read(one(lambda row: bool(row[0]), due, before, 1)):
            return 0
        expired = await self._statements.remove(work)
        self._deleted = True
        return expired

    def _first(self, sql: str, *values: Any, limit_bytes: int) -> Steps[list[Any]]:
        found: list[Any] = yield lambda db: self._first_rows(db, sql, *values, limit_bytes=limit_bytes)
        return found


def marks(first: int, count: int) -> str:
    """So many marks of values, from that number on."""
    return ", ".join(f"?{number}" for number in range(first, first + count))
