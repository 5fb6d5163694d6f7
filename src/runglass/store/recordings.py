"""Recorded runs by the ids of their traces: a row of `recorded_trace` for each part of a trace.

How they are created is up to each kind of store.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from uuid_utils import uuid7

from runglass.errors import StoreError
from runglass.store.catalog import FLOW, NOT_DELETED, flow_of
from runglass.store.records import FlowRecord, NewRecording, RunRecord
from runglass.store.run_tables import OF_TRACE, RUN, run_of
from runglass.store.statements import (
    ForEach,
    Steps,
    StorePart,
    as_int,
    done,
    every,
    fetch,
    next_change,
    one,
)

DEFAULT_SLUG = "otel"
LONGEST_SLUG = 128


class RecordedTraces(StorePart):
    """The runs that are recorded: no process has them, and none waits in the queue.

    A trace has a run, and another one for what comes after that has ended, and so on: its parts.
    """

    @abstractmethod
    async def create_recording(self, run: NewRecording) -> RunRecord | None:
        """A pending run without events, of a new trace or behind the run that it `continues`.

        None, with nothing done, where the trace has a run already, or another one than that as its newest.
        """

    async def recorded_flow(self, project_id: int, slug: str, *, most: int) -> FlowRecord:
        """The flow for recorded runs under this slug, made where it is new.

        Where that one is executable: the flow `otel-SLUG`. Where one is missing and the project has `most`
        recorded flows: the flow `otel`.
        """
        by_slug = f"{FLOW} WHERE project_id = :project_id AND slug = :slug"
        count = "SELECT count(*) FROM flow WHERE project_id = :project_id AND recorded"
        count += f" AND {NOT_DELETED}"

        def work() -> Steps[FlowRecord]:
            # Those behind are made even where there is no room for more.
            last = [DEFAULT_SLUG, f"otel-{DEFAULT_SLUG}"]
            names = [slug, f"otel-{slug}"[:LONGEST_SLUG], *last]
            while names:
                name = names.pop(0)
                flow: FlowRecord | None = yield one(flow_of, by_slug, project_id=project_id, slug=name)
                if flow is None:
                    if len(names) >= len(last) and (yield one(as_int, count, project_id=project_id)) >= most:
                        names = [*last]
                        continue
                    yield done(
                        "INSERT INTO flow (id, project_id, slug, updated_at, recorded)"
                        " VALUES (:id, :project_id, :slug, now(), true) ON CONFLICT DO NOTHING",
                        id=str(uuid7()),
                        project_id=project_id,
                        slug=name,
                    )
                    # Somebody else may have made another one meanwhile.
                    flow = yield one(flow_of, by_slug, project_id=project_id, slug=name)
                if flow is not None and flow.recorded:
                    return flow
            raise StoreError(f"the flows {', '.join(last)} of project {project_id} are executable")

        found = await self._look_up(one(flow_of, by_slug, project_id=project_id, slug=slug))
        return found if found is not None and found.recorded else await self._write(work)

    async def recorded_traces(self, project_id: int, trace_ids: Sequence[str]) -> dict[str, RunRecord | None]:
        """The newest run of each of the traces that the project has or had; None where that was deleted."""
        parts = (
            "SELECT trace_id, run_no FROM recorded_trace WHERE project_id = :project_id"
            " AND trace_id = ANY (:trace_ids) ORDER BY part"
        )

        def work() -> Steps[dict[str, RunRecord | None]]:
            found = dict((yield fetch(parts, project_id=project_id, trace_ids=list(trace_ids))))
            sql = f"{RUN} WHERE no = ANY (:runs)"
            rows = yield every(run_of, sql, runs=[no for no in found.values() if no is not None])
            runs = {run.no: run for run in rows}
            return {trace_id: runs.get(no) for trace_id, no in found.items()}

        return await self._read_at_one_moment(work)

    async def earlier_parts(self, run_no: int) -> list[RunRecord]:
        """The runs of a run's trace that it comes after, the first one first."""
        sql = (
            f"{RUN} JOIN (SELECT other.run_no, other.part FROM recorded_trace AS own"
            " JOIN recorded_trace AS other ON other.project_id = own.project_id"
            " AND other.trace_id = own.trace_id AND other.part < own.part WHERE own.run_no = :run_no)"
            " AS earlier ON earlier.run_no = no ORDER BY part"
        )
        return await self._read(every(run_of, sql, run_no=run_no))

    async def due_recordings(self, *, now: str, limit: int) -> list[RunRecord]:
        """Runs that have not ended and are due at this ISO time, those first that were due first."""
        due = (
            "SELECT project_id, trace_id, part, run_no FROM recorded_trace WHERE due_at <= :now"
            " ORDER BY due_at LIMIT :limit"
        )
        key = f"WHERE {OF_TRACE} AND part = :part"

        def work() -> Steps[tuple[int, list[RunRecord]]]:
            rows = yield fetch(due, now=now, limit=limit)
            sql = f"{RUN} WHERE no = ANY (:runs)"
            found = yield every(run_of, sql, runs=[row[3] for row in rows if row[3] is not None])
            runs = {run.no: run for run in found}
            ended, forgotten = list[dict[str, object]](), list[dict[str, object]]()
            open_runs = []
            for project_id, trace_id, part, run_no in rows:
                trace = {"project_id": project_id, "trace_id": trace_id, "part": part}
                if run_no is None:
                    forgotten.append(trace)
                elif run_no not in runs or runs[run_no].ended:
                    ended.append(trace)
                else:
                    open_runs.append(runs[run_no])
            yield ForEach(f"UPDATE recorded_trace SET due_at = NULL {key}", ended)
            yield ForEach(f"DELETE FROM recorded_trace {key} AND run_no IS NULL", forgotten)
            return len(rows), open_runs

        if not await self._look_up(fetch(due, now=now, limit=1)):
            return []
        while True:
            looked, open_runs = await self._remove(work)
            # Else there may be more behind those that were none any more.
            if len(open_runs) == looked or looked < limit:
                return open_runs

    async def defer_recording(self, run_no: int, *, due_at: str) -> None:
        """The run is due at this ISO time, unless it has ended."""
        # Of one that has ended and was looked at, nothing is due any more.
        sql = "UPDATE recorded_trace SET due_at = :due_at WHERE run_no = :run_no AND due_at IS NOT NULL"
        await self._write(done(sql, run_no=run_no, due_at=due_at))

    async def show_recording(
        self, run_no: int, *, is_plain: bool = False, session_id: str | None = None
    ) -> None:
        """Lists and sessions show the run as it is known now: not as `plain` any more, and in its session.

        One that was shown without `is_plain` stays so.
        """

        def work() -> Steps[None]:
            # Locked, as an append would: the number of the change is taken behind that.
            sql = "SELECT project_id, id, trigger_type, session_id FROM run WHERE no = :run_no"
            for project_id, run_id, *row in (yield fetch(f"{sql} FOR NO KEY UPDATE", run_no=run_no)):
                trigger_type = row[0] if is_plain else "recorded"
                known = [trigger_type, session_id or row[1]]
                if known == row:
                    continue
                yield done(
                    "UPDATE run SET trigger_type = :trigger_type, session_id = :session_id,"
                    " change_no = :change_no WHERE no = :run_no",
                    trigger_type=trigger_type,
                    session_id=known[1],
                    change_no=(yield next_change(project_id)),
                    run_no=run_no,
                )
                if trigger_type == row[0]:
                    continue
                yield done("UPDATE recorded_trace SET plain_at = NULL WHERE run_no = :run_no", run_no=run_no)
                sql = "UPDATE run_error SET trigger_type = 'recorded' WHERE project_id = :project_id"
                yield done(f"{sql} AND id = :id", project_id=project_id, id=run_id)

        await self._write(work)

    async def ended_plain_runs(self, project_id: int, *, before: str, limit: int) -> list[int]:
        """Numbers of the project's plain runs that ended before this ISO time or at it, oldest first.

        Costs no more than what it finds, and what of that age goes on.
        """
        sql = (
            "SELECT run.no FROM recorded_trace JOIN run ON run.no = run_no"
            " WHERE recorded_trace.project_id = :project_id AND plain_at <= :before AND ended_at <= :before"
            " ORDER BY plain_at LIMIT :limit"
        )
        values = {"project_id": project_id, "before": before, "limit": limit}
        return await self._read(every(as_int, sql, **values))
