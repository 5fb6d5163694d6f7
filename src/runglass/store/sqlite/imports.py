"""Runs that are imported into SQLite: rows come bit by bit, and nobody finds a run before it is whole.

The mirror of a purge: a run that is being imported has rows under a number of its own and no row in `run`.
"""

import sqlite3
from collections.abc import Sequence

from runglass.errors import ImportConflict, StoreError
from runglass.store.audit import note_change
from runglass.store.import_records import ImportedFlow, ImportedRun
from runglass.store.records import LARGE_RUN_EVENTS, StepRow
from runglass.store.sqlite.append import write_steps
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.runs import NEXT_NO
from runglass.store.sqlite.sql_helpers import count_new_run, now_text, perform
from runglass.wire.admin_api import Actor


class Imports:
    """The part of the store that takes in whole runs of other stores."""

    _db: Connections
    _importing: set[int]
    """Runs that are imported by way of this store."""

    async def begin_import(self, project_id: int, run_id: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            _require_new(db, run_id)
            (number,) = db.execute(f"SELECT {NEXT_NO}").fetchone()
            db.execute("UPDATE run_number SET last = ?", (number,))
            db.execute("INSERT INTO importing_run (run_no) VALUES (?)", (number,))
            return int(number)

        run_no = await self._db.write(work)
        self._importing.add(run_no)
        return run_no

    async def import_rows(
        self, run_no: int, events: Sequence[tuple[int, bytes]], steps: Sequence[StepRow]
    ) -> None:
        def work(db: sqlite3.Connection) -> None:
            _require_import(db, run_no)
            db.executemany(
                "INSERT INTO event (run_no, seq, data) VALUES (?, ?, ?)",
                [(run_no, seq, data) for seq, data in events],
            )
            write_steps(db, run_no, steps)

        await self._db.write(work)

    async def finish_import(self, run: ImportedRun, *, by: Actor) -> None:
        def work(db: sqlite3.Connection) -> None:
            _require_import(db, run.no)
            _require_new(db, run.id)
            _require_flow(db, run)
            made = _make_flow(db, run)
            db.execute(
                "INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture,"
                " session_id, head, summary, ended_at, duration_ms, cost_usd, tokens, log_bytes, change_no)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
                " coalesce((SELECT run_changes + 1 FROM project WHERE id = ?), 0))",
                (
                    *(run.no, run.id, run.project_id, run.flow.id, run.version, run.status),
                    *(run.trigger_type, run.capture, run.session_id, run.head, run.summary),
                    *(run.ended_at, *run.numbers, run.log_bytes, run.project_id),
                ),
            )
            count_new_run(db, run.project_id, run.log_bytes)
            db.execute("DELETE FROM importing_run WHERE run_no = ?", (run.no,))
            if run.head >= LARGE_RUN_EVENTS:
                db.execute("INSERT INTO due_outline (run_no) VALUES (?)", (run.no,))
            told = {
                "flowId": run.flow.id,
                "version": run.version,
                "status": run.status,
                "events": run.head,
                "made": made,
            }
            perform(db, note_change(run.project_id, by, "run.imported", run.id, **told))

        await self._db.write(work)
        self._importing.discard(run.no)

    async def abandon_imports(self, run_no: int | None = None) -> None:
        # One process has the file: what it does not import itself, nobody does.
        own = set(self._importing)

        def work(db: sqlite3.Connection) -> None:
            begun = {each for (each,) in db.execute("SELECT run_no FROM importing_run")}
            for given_up in sorted(begun - own if run_no is None else begun & {run_no}):
                db.execute("INSERT INTO purged_run (run_no) VALUES (?)", (given_up,))
                db.execute("DELETE FROM importing_run WHERE run_no = ?", (given_up,))

        await self._db.remove(work)
        self._importing.discard(run_no or 0)


def _require_import(db: sqlite3.Connection, run_no: int) -> None:
    """Raises StoreError where the import was given up."""
    if db.execute("SELECT 1 FROM importing_run WHERE run_no = ?", (run_no,)).fetchone() is None:
        raise StoreError("the import was given up; begin it again")


def _require_new(db: sqlite3.Connection, run_id: str) -> None:
    # Of another project's run the same is told: ids are too long to be guessed, and no two runs may have one.
    if db.execute("SELECT 1 FROM run WHERE id = ?", (run_id,)).fetchone() is not None:
        raise ImportConflict(
            "RUN_EXISTS",
            f"there is a run {run_id!r} on this server already; delete it first (`runglass runs delete`), or"
            " import the file on another server",
        )


def _require_flow(db: sqlite3.Connection, run: ImportedRun) -> None:
    """Raises ImportConflict where the flow of the run cannot be, or is not, the one of the project."""
    flow = run.flow
    found = db.execute("SELECT project_id, slug FROM flow WHERE id = ?", (flow.id,)).fetchone()
    if found is None:
        sql = "SELECT id FROM flow WHERE project_id = ? AND slug = ?"
        other = db.execute(sql, (run.project_id, flow.slug)).fetchone()
        if other is not None:
            raise ImportConflict(
                "FLOW_CONFLICT",
                f"the project has a flow {flow.slug!r} of its own ({other[0]}), and the run is of flow"
                f" {flow.id}; import the file into another project",
            )
    elif found != (run.project_id, flow.slug):
        raise ImportConflict(
            "FLOW_CONFLICT",
            f"flow {flow.id} cannot be made in this project; import the file on another server",
        )
    elif run.version:
        source = _source(db, flow, run.version)
        if source not in (None, flow.source):
            raise ImportConflict(
                "FLOW_CONFLICT",
                f"version {run.version} of flow {flow.slug!r} is another one here than the run is of; import"
                " the file into another project",
            )


def _make_flow(db: sqlite3.Connection, run: ImportedRun) -> list[str]:
    """Makes the flow, as a draft, where it is new, and the version that ran; what was made with the run."""
    flow, now = run.flow, now_text()
    made = ["run"]
    is_new = db.execute(
        "INSERT INTO flow (id, project_id, slug, name, capture, updated_at, retention_days,"
        " content_retention_days) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (flow.id, run.project_id, flow.slug, flow.name, flow.capture, now, *flow.retention),
    ).rowcount
    if is_new:
        made += ["flow", "draft"]
        _add_version(db, flow, 0, now)
    if run.version and _add_version(db, flow, run.version, now):
        made.append("version")
    return made


def _add_version(db: sqlite3.Connection, flow: ImportedFlow, version: int, now: str) -> int:
    """How many were made: none where the version is there."""
    return db.execute(
        "INSERT INTO flow_version (flow_id, version, source, created_at, imported) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (flow_id, version) DO NOTHING",
        (flow.id, version, flow.source, now, version > 0),
    ).rowcount


def _source(db: sqlite3.Connection, flow: ImportedFlow, version: int) -> bytes | None:
    sql = "SELECT source FROM flow_version WHERE flow_id = ? AND version = ?"
    found = db.execute(sql, (flow.id, version)).fetchone()
    return None if found is None else bytes(found[0])
