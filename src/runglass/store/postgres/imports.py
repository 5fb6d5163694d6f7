"""Runs that are imported into PostgreSQL: rows come bit by bit, and nobody finds a run before it is whole.

The mirror of a purge: a run that is being imported has rows under a number of its own and no row in `run`.
"""

from collections.abc import Sequence

from runglass.errors import ImportConflict, StoreError
from runglass.store.audit import note_change
from runglass.store.import_records import ImportedFlow, ImportedRun
from runglass.store.postgres.append_rows import split_attempts
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.run_rows import RunFacts
from runglass.store.postgres.sql_helpers import NOW, perform
from runglass.store.records import LARGE_RUN_EVENTS, StepRow
from runglass.wire.admin_api import Actor

_STEP = "(run_no, position, step_id, loop_path, attempt, status, data) VALUES ($1, $2, $3, $4, $5, $6, $7)"


class Imports:
    """The part of the store that takes in whole runs of other stores."""

    _db: Connections
    _owner: str | None
    _importing: set[int]
    """Runs that are imported by way of this store."""

    async def begin_import(self, project_id: int, run_id: str) -> int:
        async def work(db: Db) -> int:
            await _require_new(db, run_id)
            sql = "INSERT INTO importing_run (run_no, owner) VALUES (new_run_no(), $1) RETURNING run_no"
            return int(await db.fetchval(sql, self._owner))

        run_no = await self._db.write(work)
        self._importing.add(run_no)
        return run_no

    async def import_rows(
        self, run_no: int, events: Sequence[tuple[int, bytes]], steps: Sequence[StepRow]
    ) -> None:
        latest, earlier = split_attempts(steps)

        async def work(db: Db) -> None:
            await _require_import(db, run_no)
            await db.executemany(
                "INSERT INTO event (run_no, seq, data) VALUES ($1, $2, $3)",
                [(run_no, seq, data) for seq, data in events],
            )
            keep = f"INSERT INTO step_attempt {_STEP} ON CONFLICT DO NOTHING"
            await db.executemany(keep, [(run_no, *step) for step in earlier])
            await db.execute(
                "INSERT INTO step_attempt (run_no, position, step_id, loop_path, attempt, status, data)"
                " SELECT run_no, step.position, step_id, loop_path, step.attempt, status, data"
                " FROM unnest($2::bigint[], $3::bigint[]) AS new (position, attempt) JOIN step"
                " ON step.position = new.position AND step.attempt < new.attempt WHERE run_no = $1"
                " ON CONFLICT DO NOTHING",
                *(run_no, [step.position for step in latest], [step.attempt for step in latest]),
            )
            await db.executemany(
                f"INSERT INTO step {_STEP} ON CONFLICT (run_no, position) DO UPDATE SET"
                " attempt = excluded.attempt, status = excluded.status, data = excluded.data",
                [(run_no, *step) for step in latest],
            )

        await self._db.write(work)

    async def finish_import(self, run: ImportedRun, *, by: Actor) -> None:
        async def work(db: Db) -> None:
            await _require_import(db, run.no)
            await _require_new(db, run.id)
            made = await _make_flow(db, run)
            await db.execute("SELECT count_bytes($1, $2)", run.project_id, run.log_bytes)
            facts = RunFacts.of(run.summary)
            added = await db.fetchval(
                "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture,"
                " session_id, head, summary, ended_at, duration_ms, cost_usd, tokens, log_bytes, started_ms,"
                " live_cost_usd, live_tokens, models, error, change_no)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,"
                " $19, string_to_array($20, E'\\n'), $21, new_changes($3, 1)) ON CONFLICT (id) DO NOTHING"
                " RETURNING no",
                *(run.no, run.id, run.project_id, run.flow.id, run.version, run.status),
                *(run.trigger_type, run.capture, run.session_id, run.head, run.summary),
                *(run.ended_at, *run.numbers, run.log_bytes, *facts),
            )
            if added is None:
                raise _there_already(run.id)
            await db.execute("DELETE FROM importing_run WHERE run_no = $1", run.no)
            if run.head >= LARGE_RUN_EVENTS:
                await db.execute("INSERT INTO due_outline (run_no) VALUES ($1)", run.no)
            told = {
                "flowId": run.flow.id,
                "version": run.version,
                "status": run.status,
                "events": run.head,
                "made": made,
            }
            await perform(db, note_change(run.project_id, by, "run.imported", run.id, **told))

        await self._db.write(work)
        self._importing.discard(run.no)

    async def abandon_imports(self, run_no: int | None = None) -> None:
        where, values = "run_no = $1", [run_no] if run_no is not None else [list(self._importing)]
        if run_no is None:
            where = (
                "run_no <> ALL ($1::bigint[])"
                " AND NOT EXISTS (SELECT FROM lease WHERE lease.owner = importing_run.owner)"
            )
        sql = (
            f"WITH gone AS (DELETE FROM importing_run WHERE {where} RETURNING run_no)"
            " INSERT INTO purged_run SELECT run_no FROM gone"
        )

        async def work(db: Db) -> None:
            await db.execute(sql, *values)

        await self._db.write(work)
        self._importing.discard(run_no or 0)


async def _require_import(db: Db, run_no: int) -> None:
    """Raises StoreError where the import was given up. Nobody gives it up before the transaction ends."""
    if await db.fetchval("SELECT 1 FROM importing_run WHERE run_no = $1 FOR SHARE", run_no) is None:
        raise StoreError("the import was given up, as its process stood still for too long; begin it again")


async def _require_new(db: Db, run_id: str) -> None:
    # Of another project's run the same is told: ids are too long to be guessed, and no two runs may have one.
    if await db.fetchval("SELECT 1 FROM run WHERE id = $1", run_id) is not None:
        raise _there_already(run_id)


def _there_already(run_id: str) -> ImportConflict:
    return ImportConflict(
        "RUN_EXISTS",
        f"there is a run {run_id!r} on this server already; delete it first (`runglass runs delete`), or"
        " import the file on another server",
    )


async def _require_flow(db: Db, run: ImportedRun) -> None:
    """Raises ImportConflict where the flow of the run cannot be, or is not, one of the project."""
    flow = run.flow
    # Nobody else gives the flow a version meanwhile.
    sql = "SELECT project_id, slug FROM flow WHERE id = $1 FOR NO KEY UPDATE"
    found = await db.fetchrow(sql, flow.id)
    if found is None:
        sql = "SELECT id FROM flow WHERE project_id = $1 AND slug = $2"
        other = await db.fetchval(sql, run.project_id, flow.slug)
        raise ImportConflict(
            "FLOW_CONFLICT",
            f"the project has a flow {flow.slug!r} of its own ({other}), and the run is of flow"
            f" {flow.id}; import the file into another project",
        )
    if tuple(found) != (run.project_id, flow.slug):
        raise ImportConflict(
            "FLOW_CONFLICT",
            f"flow {flow.id} cannot be made in this project; import the file on another server",
        )


async def _make_flow(db: Db, run: ImportedRun) -> list[str]:
    """Makes the flow, as a draft, where it is new, and the version that ran; what was made with the run.

    Raises ImportConflict.

    What is there is looked at afterwards: somebody else may make the same meanwhile.
    """
    flow = run.flow
    made = ["run"]
    is_new = await db.fetchval(
        "INSERT INTO flow (id, project_id, slug, name, capture, updated_at, retention_days,"
        f" content_retention_days) VALUES ($1, $2, $3, $4, $5, {NOW}, $6, $7) ON CONFLICT DO NOTHING"
        " RETURNING id",
        *(flow.id, run.project_id, flow.slug, flow.name, flow.capture, *flow.retention),
    )
    await _require_flow(db, run)
    if is_new:
        made += ["flow", "draft"]
        await _add_version(db, flow, 0)
    if run.version and await _add_version(db, flow, run.version):
        made.append("version")
    # A draft changes, and may be another one by now.
    if run.version and await _source(db, flow, run.version) != flow.source:
        raise ImportConflict(
            "FLOW_CONFLICT",
            f"version {run.version} of flow {flow.slug!r} is another one here than the run is of; import"
            " the file into another project",
        )
    return made


async def _add_version(db: Db, flow: ImportedFlow, version: int) -> bool:
    """Whether it was made: it may be there."""
    added = await db.fetchval(
        "INSERT INTO flow_version (flow_id, version, source, created_at, imported)"
        f" VALUES ($1, $2, $3, {NOW}, $4) ON CONFLICT (flow_id, version) DO NOTHING RETURNING version",
        *(flow.id, version, flow.source, version > 0),
    )
    return added is not None


async def _source(db: Db, flow: ImportedFlow, version: int) -> bytes | None:
    sql = "SELECT source FROM flow_version WHERE flow_id = $1 AND version = $2"
    found = await db.fetchval(sql, flow.id, version)
    return None if found is None else bytes(found)
