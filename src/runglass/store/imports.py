"""Runs that are imported: rows come bit by bit, and nobody finds a run before it is whole.

The mirror of a purge: a run that is being imported has rows under a number of its own and no row in `run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from runglass.errors import ImportConflict, StoreError
from runglass.store.audit import note_change
from runglass.store.catalog import FLOW, flow_of
from runglass.store.records import LARGE_RUN_EVENTS, NO_RETENTION, Retention, RunNumbers, StepRow
from runglass.store.run_tables import ADD_PART, split_attempts
from runglass.store.statements import (
    NEW_RUN_NO,
    ForEach,
    Steps,
    StorePart,
    changed,
    count_bytes,
    done,
    fetch,
    next_change,
    one,
)
from runglass.wire.admin_api import Actor
from runglass.wire.run_api import CaptureMode

_COLUMNS = "(run_no, position, step_id, loop_path, attempt, status, data)"
_VALUES = "VALUES (:run_no, :position, :step_id, :loop_path, :attempt, :status, :data)"
_ADD_EVENT = "INSERT INTO event (run_no, seq, data) VALUES (:run_no, :seq, :data)"
_ADD_ATTEMPT = f"INSERT INTO step_attempt {_COLUMNS} {_VALUES} ON CONFLICT DO NOTHING"
_MOVE_ATTEMPT = (
    f"INSERT INTO step_attempt {_COLUMNS} SELECT {_COLUMNS[1:-1]} FROM step"
    " WHERE run_no = :run_no AND position = :position AND attempt < :attempt ON CONFLICT DO NOTHING"
)
_ADD_STEP = (
    f"INSERT INTO step {_COLUMNS} {_VALUES} ON CONFLICT (run_no, position) DO UPDATE SET"
    " step_id = excluded.step_id, loop_path = excluded.loop_path, attempt = excluded.attempt,"
    " status = excluded.status, data = excluded.data"
)
_ADD_VERSION = (
    "INSERT INTO flow_version (flow_id, version, source, created_at, imported)"
    " VALUES (:flow_id, :version, :source, now(), :imported) ON CONFLICT (flow_id, version) DO NOTHING"
)
_PARTS = (
    "SELECT part, id, ended_at FROM recorded_trace LEFT JOIN run ON no = run_no"
    " WHERE recorded_trace.project_id = :project_id AND trace_id = :trace_id ORDER BY part"
)


class ImportedFlow(NamedTuple):
    """The flow of a run that is imported; `source` is the version that ran, as JSON.

    Of a `recorded` one there is none.
    """

    id: str
    slug: str
    source: bytes
    name: str | None = None
    capture: CaptureMode | None = None
    retention: Retention = NO_RETENTION
    recorded: bool = False


class ImportedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose events and steps have been imported as number `no`, and what its row has beside them.

    `flow` is made where there is none with this id, and so is its version. `trace_id` is that of a recorded
    run.
    """

    no: int
    id: str
    project_id: int
    flow: ImportedFlow
    version: int
    status: str
    trigger_type: str
    capture: CaptureMode
    session_id: str | None
    head: int
    summary: bytes
    ended_at: str
    numbers: RunNumbers
    log_bytes: int
    trace_id: str | None = None


class Imports(StorePart):
    """The part of the store that takes in whole runs of other stores."""

    _owner: str | None = None
    """Who holds the newest lease that was taken by way of this store."""
    _importing: set[int]
    """Runs that are imported by way of this store."""

    async def begin_import(self, project_id: int, run_id: str) -> int:
        """The number of a run to import. Nobody finds it before `finish_import`.

        Raises ImportConflict where there is a run with this id.
        """

        def work() -> Steps[int]:
            yield from _require_new(run_id)
            run_no: int = yield NEW_RUN_NO
            yield done(self._sql.new_import, run_no=run_no, owner=self._owner)
            # Here and not after the commit, which another one that gives up imports may follow at once.
            self._importing.add(run_no)
            return run_no

        return await self._write(work)

    async def import_rows(
        self, run_no: int, events: Sequence[tuple[int, bytes]], steps: Sequence[StepRow]
    ) -> None:
        """Writes events, each with its seq, and states of attempts of a run that is being imported."""

        def work() -> Steps[None]:
            yield from _require_import(run_no)
            yield ForEach(_ADD_EVENT, [{"run_no": run_no, "seq": seq, "data": data} for seq, data in events])
            latest, earlier = (
                [{"run_no": run_no, **step._asdict()} for step in each] for each in split_attempts(steps)
            )
            yield ForEach(_ADD_ATTEMPT, earlier)
            yield ForEach(_MOVE_ATTEMPT, [step for step in latest if step["attempt"] > 1])
            yield ForEach(_ADD_STEP, latest)

        await self._write(work)

    async def finish_import(self, run: ImportedRun, *, by: Actor) -> None:
        """Makes the run that was imported one of the project's, and its flow where that is new.

        Raises ImportConflict, with nothing done, where the run is there by now, or the flow is another one.
        """

        def work() -> Steps[None]:
            yield from _require_import(run.no)
            yield from _require_new(run.id)
            yield from _require_flow(run)
            made = yield from _make_flow(run)
            yield count_bytes(run.project_id, run.log_bytes)
            columns = {
                **msgspec.structs.asdict(run),
                "flow_id": run.flow.id,
                **run.numbers._asdict(),
                "change_no": (yield next_change(run.project_id)),
                **self._columns_of(run.summary),
            }
            del columns["flow"], columns["numbers"], columns["trace_id"]
            names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
            sql = f"INSERT INTO run ({names}) VALUES ({values}) ON CONFLICT (id) DO NOTHING"
            if not (yield changed(sql, **columns)):
                raise _there_already(run.id)
            if self._sql.note_error:
                yield done(self._sql.note_error, run_no=run.no)
            yield done("DELETE FROM importing_run WHERE run_no = :run_no", run_no=run.no)
            if run.trace_id is not None:
                # The newest of its trace, unless another one goes on or has begun later.
                trace = {"project_id": run.project_id, "trace_id": run.trace_id}
                parts = yield fetch(_PARTS, **trace)
                first, (last, newest, ended_at) = (parts[0][0], parts[-1]) if parts else (0, (-1, None, None))
                # Ids are in the order of time.
                is_newest = newest is None or (ended_at is not None and newest < run.id)
                part = last + 1 if is_newest else first - 1
                plain_at = run.ended_at if run.trigger_type == "plain" else None
                yield done(ADD_PART, **trace, part=part, run_no=run.no, due_at=None, plain_at=plain_at)
            if run.head >= LARGE_RUN_EVENTS:
                yield done("INSERT INTO due_outline (run_no) VALUES (:run_no)", run_no=run.no)
            told = {
                "flowId": run.flow.id,
                "version": run.version,
                "status": run.status,
                "events": run.head,
                "made": made,
            }
            yield from note_change(run.project_id, by, "run.imported", run.id, **told)

        await self._write(work)
        self._importing.discard(run.no)

    async def abandon_imports(self, run_no: int | None = None) -> None:
        """Purges what was imported of a run, or of all that no living process imports any more.

        Of these none can be finished after that: `import_rows` and `finish_import` raise StoreError.
        """

        def work() -> Steps[None]:
            where = self._sql.abandoned if run_no is None else "run_no = :run_no"
            sql = f"DELETE FROM importing_run WHERE {where} RETURNING run_no"
            for (number,) in (yield fetch(sql, run_no=run_no, own=list(self._importing))):
                yield done("INSERT INTO purged_run (run_no) VALUES (:run_no)", run_no=number)

        await self._remove(work)
        self._importing.discard(run_no or 0)


def _require_import(run_no: int) -> Steps[None]:
    """Raises StoreError where the import was given up. Nobody gives it up before the transaction ends."""
    sql = "SELECT 1 FROM importing_run WHERE run_no = :run_no FOR SHARE"
    if not (yield fetch(sql, run_no=run_no)):
        raise StoreError("the import was given up, as its process stood still for too long; begin it again")


def _require_new(run_id: str) -> Steps[None]:
    # Of another project's run the same is told: ids are too long to be guessed, and no two runs may have one.
    if (yield fetch("SELECT 1 FROM run WHERE id = :run_id", run_id=run_id)):
        raise _there_already(run_id)


def _there_already(run_id: str) -> ImportConflict:
    return ImportConflict(
        "RUN_EXISTS",
        f"there is a run {run_id!r} on this server already; delete it first (`runglass runs delete`), or"
        " import the file on another server",
    )


def _require_flow(run: ImportedRun) -> Steps[None]:
    """Raises ImportConflict where the flow of the run cannot be, or is not, the one of the project."""
    flow = run.flow
    # Nobody else gives the flow a version meanwhile.
    found = yield one(flow_of, f"{FLOW} WHERE id = :flow_id FOR NO KEY UPDATE", flow_id=flow.id)
    if found is None:
        sql = "SELECT id FROM flow WHERE project_id = :project_id AND slug = :slug"
        for (other,) in (yield fetch(sql, project_id=run.project_id, slug=flow.slug)):
            raise ImportConflict(
                "FLOW_CONFLICT",
                f"the project has a flow {flow.slug!r} of its own ({other}), and the run is of flow"
                f" {flow.id}; import the file into another project",
            )
    elif (found.project_id, found.slug, found.recorded) != (run.project_id, flow.slug, flow.recorded):
        raise ImportConflict(
            "FLOW_CONFLICT",
            f"flow {flow.id} cannot be made in this project; import the file on another server",
        )
    elif run.version:
        # A draft changes, and may be another one by now.
        sql = "SELECT source FROM flow_version WHERE flow_id = :flow_id AND version = :version"
        for (source,) in (yield fetch(sql, flow_id=flow.id, version=run.version)):
            if source != flow.source:
                raise ImportConflict(
                    "FLOW_CONFLICT",
                    f"version {run.version} of flow {flow.slug!r} is another one here than the run is of;"
                    " import the file into another project",
                )


def _make_flow(run: ImportedRun) -> Steps[list[str]]:
    """Makes the flow, as a draft, where it is new, and the version that ran; what was made with the run."""
    flow, made = run.flow, ["run"]
    is_new = yield changed(
        "INSERT INTO flow (id, project_id, slug, name, capture, updated_at, retention_days,"
        " content_retention_days, recorded) VALUES (:id, :project_id, :slug, :name, :capture, now(), :days,"
        " :content_days, :recorded) ON CONFLICT DO NOTHING",
        project_id=run.project_id,
        **flow._asdict(),
        **flow.retention._asdict(),
    )
    add_version = partial(changed, _ADD_VERSION, flow_id=flow.id, source=flow.source)
    if is_new:
        made += ["flow"] if flow.recorded else ["flow", "draft"]
        if not flow.recorded:
            yield add_version(version=0, imported=False)
    # Once more, and then again: somebody else may have made the same meanwhile.
    yield from _require_flow(run)
    if run.version and (yield add_version(version=run.version, imported=True)):
        made.append("version")
    yield from _require_flow(run)
    return made
