"""Removal for good: whole runs, and what is kept for callers and for going on.

In bites, so that no transaction lasts long: others may wait for one of them. What a bite may take is measured
in bytes, which some databases overwrite, too. What goes bit by bit counts as bytes of its run until then.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence, Set
from datetime import timedelta

from runglass.store.audit import note_change
from runglass.store.overview import count_unsent
from runglass.store.records import RECORDED
from runglass.store.run_tables import (
    ENDED,
    IS_RECORDED,
    ROWS_OF_RUN,
    SIZES,
    count_that_fit,
    first_that_fit,
    placeholders,
)
from runglass.store.statements import (
    Steps,
    StorePart,
    as_int,
    count_bytes,
    count_kept,
    count_open,
    done,
    every,
    fetch,
    one,
    subtract,
)
from runglass.support.clock import iso
from runglass.wire.admin_api import Actor

_WITH_CHECKPOINTS_LEFT = (
    "SELECT run.no, project_id FROM (SELECT run_no FROM ended_run UNION SELECT run_no FROM void_checkpoint)"
    " AS due JOIN run ON run.no = run_no ORDER BY project_id <= :before, project_id, run_no LIMIT 1"
)
"""The projects take turns: the first one behind that number, or the first of all."""
_VOID_OF_STEP = (
    "SELECT loop_path, length(data) FROM checkpoint WHERE run_no = :run_no AND step_id = :step_id"
    " AND seq <= :seq ORDER BY loop_path LIMIT :most"
)
# The answer of a pause is given before its run ends, and goes with the other content that is owed.
_DUE_ANSWERS = (
    "SELECT call_answer.no, run_no, length(answer) FROM call_answer JOIN run ON run.no = run_no"
    " WHERE answered_at < :before AND NOT EXISTS (SELECT 1 FROM run_outcome WHERE run_no = run.no)"
    " AND status NOT IN ('pending', 'running') ORDER BY answered_at LIMIT :limit"
)
_DUE_OUTCOMES = (
    "SELECT run_no, coalesce(length(result), 0) + coalesce(length(due.error), 0) FROM run_outcome AS due"
    " JOIN run ON run.no = run_no WHERE due.ended_at < :before ORDER BY due.ended_at, run_no LIMIT :limit"
)
# One with checkpoints left is counted with them: it goes by itself.
_KEPT = (
    "SELECT no, (SELECT count(*) FROM (SELECT 1 FROM owed WHERE run_no = run.no LIMIT :most) AS few),"
    " open_bytes FROM run WHERE no = ANY (:runs)"
    " AND NOT EXISTS (SELECT 1 FROM ended_run WHERE run_no = run.no)"
)
_BURY = (
    "UPDATE recorded_trace SET run_no = NULL, plain_at = NULL, due_at = :forgotten_at"
    " WHERE run_no = ANY (:runs)"
)
_NOT_TAKEN = "FOR UPDATE SKIP LOCKED"
"""Passes over what another process has locked, or whose run: its bytes are to be counted once.

Others lock a run before its rows, and nobody waits here while he has one of these."""
_BITE_ROWS, _BITE_BYTES = 250, 1 << 20
"""Others may wait while so much is deleted, and overwritten: some milliseconds."""
TOMBSTONE_DAYS = 30
"""So long spans of a deleted trace are refused: longer than a sender keeps what it could not send."""
MONTH_BITS = 40
"""The bits of a run's number behind those of its month, where numbers have one."""


class Removal(StorePart):
    """The part of the store that removes what is no longer to be there."""

    _months_gone: Set[int] = frozenset()
    """Months whose events and steps went as a whole, as the numbers of runs have them."""
    _project_before = 0
    """Whose checkpoints went last."""

    async def scrub(self) -> bool:
        """Takes deleted content out of every file of the store; False where it cannot yet: call it again.

        Costs nothing where no content was deleted since, nor where the files are not the store's own.
        """
        return True

    @abstractmethod
    async def compact(self, *, limit_bytes: int) -> bool:
        """Gives about so much unused space back to the system; False if there is none worth it."""

    async def ended_runs(self, flow_id: str, *, before: str, with_content: bool, limit: int) -> list[int]:
        """Numbers of the flow's runs that ended before this ISO time or at it, oldest end first.

        Of those `with_content` it finds the ones that `strip_content` has not been through. Costs no more
        than what it finds.
        """
        content = f" AND {self._sql.has_content}" if with_content else ""
        sql = (
            f"SELECT no FROM run WHERE flow_id = :flow_id AND ended_at <= :before{content}"
            " ORDER BY ended_at, no LIMIT :limit"
        )
        return await self._read(every(as_int, sql, flow_id=flow_id, before=before, limit=limit))

    async def purge_runs(self, runs: Sequence[int], *, by: Actor | None = None) -> int:
        """Deletes those of the runs that have ended, in one transaction; returns how many.

        The audit log has them where an actor asked for it, and not where retention did.

        From then on no method finds them, and their calls are forgotten. The space that they took is free
        when `purge_rows` is through with them. No other run gets their numbers.
        """

        def work() -> Steps[int]:
            # Whoever else purges some of them waits here, and finds them noted.
            sql = (
                "INSERT INTO purged_run (run_no, events, bytes)"
                " SELECT no, head, log_bytes + open_bytes FROM run WHERE no = ANY (:runs)"
                f" AND ({ENDED} OR {IS_RECORDED}) ORDER BY no FOR UPDATE"
                " ON CONFLICT DO NOTHING RETURNING run_no"
            )
            if not (noted := (yield every(as_int, sql, runs=list(runs)))):
                return 0
            gone = yield fetch(
                "DELETE FROM run WHERE no = ANY (:runs)"
                " RETURNING id, project_id, flow_id, status, log_bytes + open_bytes, change_no, trigger_type",
                runs=noted,
            )
            ids = [row[0] for row in gone]
            if not RECORDED.isdisjoint(row[-1] for row in gone):
                if by is None:
                    # There are many, and one that comes anew is gone again within a day.
                    sql = "DELETE FROM recorded_trace WHERE run_no = ANY (:runs) AND plain_at IS NOT NULL"
                    yield done(sql, runs=noted)
                forgotten_at = iso(self.clock.now() + timedelta(days=TOMBSTONE_DAYS))
                yield done(_BURY, runs=noted, forgotten_at=forgotten_at)
            yield done("DELETE FROM ended_run WHERE run_no = ANY (:runs)", runs=noted)
            yield done("DELETE FROM due_outline WHERE run_no = ANY (:runs)", runs=noted)
            yield done(self._sql.forget_runs, ids=ids, last=max(noted))
            # With the runs and not later: a call that is sent again is not to get an answer out of one.
            yield done("DELETE FROM call WHERE run_id = ANY (:ids)", ids=ids)
            yield from count_unsent([(row[1], row[5]) for row in gone if row[6] not in RECORDED])
            for run_id, project_id, flow_id, status, *_ in gone:
                if by is not None:
                    told = {"flowId": flow_id, "status": status}
                    yield from note_change(project_id, by, "run.purged", run_id, **told)
            # Last, as appends wait for these rows.
            yield from subtract(count_bytes, [(row[1], row[4]) for row in gone])
            return len(gone)

        return await self._remove(work)

    async def purged_runs(self, *, after: int = 0, limit: int) -> list[int]:
        """The first numbers above that one of runs that are purged and whose rows are still there."""
        sql = "SELECT run_no FROM purged_run WHERE run_no > :after ORDER BY run_no LIMIT :limit"
        return await self._read(every(as_int, sql, after=after, limit=limit))

    async def purge_rows(self, runs: Sequence[int], *, limit_rows: int, limit_bytes: int) -> int:
        """Deletes rows that these purged runs left behind; returns with how many of the first it is through.

        It takes as many of the first as fit into the limits together. Of one that does not fit it deletes
        some rows, and is not through with it before the last of them: 0.
        """

        def work() -> Steps[int]:
            sql = "SELECT run_no, events, bytes FROM purged_run WHERE run_no = ANY (:runs)"
            noted = {run_no: size for run_no, *size in (yield fetch(sql, runs=list(runs)))}
            sizes = [
                # Of a month that is gone each run has little left.
                (0, 0) if run_no >> MONTH_BITS in self._months_gone else noted.get(run_no, (0, 0))
                for run_no in runs
            ]
            count = count_that_fit(sizes, limit_rows=limit_rows, limit_bytes=limit_bytes)
            some = runs[: count or 1]
            together = [run_no for run_no in some if run_no in noted]
            rows, size = limit_rows, limit_bytes
            for table in ROWS_OF_RUN:
                if count:
                    yield done(f"DELETE FROM {table} WHERE run_no = ANY (:runs)", runs=together)
                    continue
                gone, freed = yield from _delete_some(table, runs[0], limit_rows=rows, limit_bytes=size)
                rows, size = rows - gone, size - freed
                if rows <= 0 or size <= 0:
                    return 0
            yield done("DELETE FROM purged_run WHERE run_no = ANY (:runs)", runs=together)
            # Here: who purged them may have been another process.
            self._deleted = self._errors_deleted = True
            return len(some)

        return await self._remove(work)

    async def drop_checkpoints(self, *, limit_rows: int, limit_bytes: int) -> bool:
        """Deletes some checkpoints that long and large runs left behind; False if there are none."""

        def work() -> Steps[bool]:
            rows = yield fetch(_WITH_CHECKPOINTS_LEFT, before=self._project_before)
            for run_no, self._project_before in rows:
                # Locked as an append would: what is deleted and what is counted belong together.
                yield done("SELECT 1 FROM run WHERE no = :run_no FOR NO KEY UPDATE", run_no=run_no)
                limits = {"limit_rows": limit_rows, "limit_bytes": limit_bytes}
                if (yield fetch("SELECT 1 FROM ended_run WHERE run_no = :run_no", run_no=run_no)):
                    gone, freed = yield from _delete_some("checkpoint", run_no, **limits)
                    yield count_open(run_no, -freed)
                    if gone < limit_rows and freed < limit_bytes:
                        yield done("DELETE FROM ended_run WHERE run_no = :run_no", run_no=run_no)
                        yield done("DELETE FROM void_checkpoint WHERE run_no = :run_no", run_no=run_no)
                        yield count_kept([run_no])
                else:
                    yield from _drop_void(run_no, **limits)
                self._deleted = True
            return bool(rows)

        left = await self._read(fetch(_WITH_CHECKPOINTS_LEFT, before=self._project_before))
        return bool(left) and await self._remove(work)

    async def expire_answers(self, *, before: str, limit: int) -> int:
        """Drops content kept for callers of runs that ended before this ISO time, and older answers to calls.

        Of each the oldest, as many as `limit` at most and fewer where they are large; returns how many. That
        a call was made stays known. Costs next to nothing where nothing is due.
        """

        def work() -> Steps[int]:
            outcomes = dict((yield fetch(f"{_DUE_OUTCOMES} {_NOT_TAKEN}", before=before, limit=limit)))
            runs = list(outcomes)
            kept = {run_no: size for run_no, *size in (yield fetch(_KEPT, runs=runs, most=_BITE_ROWS))}
            limits = {"limit_rows": _BITE_ROWS, "limit_bytes": _BITE_BYTES}
            count = count_that_fit([kept.get(run_no, (None, None)) for run_no in runs], **limits)
            some = runs[: count or 1]
            if some and not count:
                rows, freed = yield from _delete_some("owed", some[0], **limits)
                # There may be more of it, which goes with the next bite.
                is_through = rows < _BITE_ROWS and freed < _BITE_BYTES
                yield count_open(some[0], -freed - is_through * outcomes[some[0]])
                if not is_through:
                    return 1
            for table in ("owed", "run_outcome"):
                yield done(f"DELETE FROM {table} WHERE run_no = ANY (:runs)", runs=some)
            yield count_kept(some)
            gone, room = len(some), _BITE_BYTES
            answers = yield fetch(f"{_DUE_ANSWERS} {_NOT_TAKEN}", before=before, limit=limit)
            for number, run_no, size in answers:
                if room > 0:
                    yield done("DELETE FROM call_answer WHERE no = :no", no=number)
                    yield count_open(run_no, -size)
                    gone, room = gone + 1, room - size
            return gone

        due = f"SELECT EXISTS ({_DUE_OUTCOMES}) OR EXISTS ({_DUE_ANSWERS})"
        if not await self._read(one(lambda row: bool(row[0]), due, before=before, limit=1)):
            return 0
        expired = await self._remove(work)
        self._deleted = True
        return expired


def _delete_some(table: str, run_no: int, *, limit_rows: int, limit_bytes: int) -> Steps[tuple[int, int]]:
    """Deletes the first rows of the run, one at least; returns how many, and their bytes."""
    key = ROWS_OF_RUN[table]
    columns, order = ", ".join((*key, SIZES.get(table, "length(data)"))), ", ".join(("run_no", *key))
    sql = f"SELECT {columns} FROM {table} WHERE run_no = :run_no ORDER BY {order} LIMIT :most"
    found = yield fetch(sql, run_no=run_no, most=limit_rows)
    first = first_that_fit(found, limit_bytes=limit_bytes)
    if first:
        upto = f" AND ({', '.join(key)}) <= ({placeholders(key)})" if key else ""
        last = dict(zip(key, first[-1], strict=False))
        yield done(f"DELETE FROM {table} WHERE run_no = :run_no{upto}", run_no=run_no, **last)
    return len(first), sum(row[-1] for row in first)


def _drop_void(run_no: int, *, limit_rows: int, limit_bytes: int) -> Steps[None]:
    """Deletes some of the void checkpoints of a run that goes on: one at least if there is one."""
    sql = "SELECT step_id, seq FROM void_checkpoint WHERE run_no = :run_no ORDER BY step_id LIMIT :most"
    rows, size = limit_rows, limit_bytes
    for step_id, seq in (yield fetch(sql, run_no=run_no, most=limit_rows)):
        of_step = {"run_no": run_no, "step_id": step_id}
        found = yield fetch(_VOID_OF_STEP, **of_step, seq=seq, most=rows)
        void = first_that_fit(found, limit_bytes=size)
        yield done(
            "DELETE FROM checkpoint WHERE run_no = :run_no AND step_id = :step_id AND seq <= :seq"
            " AND loop_path = ANY (:paths)",
            **of_step,
            seq=seq,
            paths=[loop_path for loop_path, _ in void],
        )
        rows, size = rows - len(void), size - sum(length for _, length in void)
        if rows <= 0 or size <= 0:
            break
        yield done("DELETE FROM void_checkpoint WHERE run_no = :run_no AND step_id = :step_id", **of_step)
    yield count_open(run_no, size - limit_bytes)
