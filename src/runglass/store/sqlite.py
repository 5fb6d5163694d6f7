"""The store of a single machine: one SQLite file.

Threads and transactions are in `connections.py`; here are the queries, each beside its row mapping.
"""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from uuid_utils import uuid7

from runglass.errors import CallRepeated, HeadMismatch, StoreError
from runglass.execution import CaptureMode
from runglass.store.base import (
    ApiKey,
    Append,
    Call,
    CallKey,
    Checkpoint,
    FlowRecord,
    FlowVersion,
    NewRun,
    Project,
    Role,
    RunRecord,
    StepRow,
)
from runglass.store.connections import Connections
from runglass.trace import TERMINAL

Shape = TypeVar("Shape")

_PROJECT = "SELECT id, org, name, capture, budget_pico, spent_pico FROM project"
_KEY = "SELECT id, project_id, role, hint, created_at, revoked_at FROM api_key"
_FLOW = "SELECT id, project_id, slug, name, capture, production_version, updated_at FROM flow"
_RUN = (
    "SELECT no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, head, fence,"
    " summary FROM run"
)
_STEP = "SELECT position, step_id, loop_path, attempt, status, data"


class SqliteStore:
    """A store in one file. `synchronous`: a commit survives a power cut (FULL) or a crash of the process."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self._db = Connections(path, synchronous=synchronous)

    async def __aenter__(self) -> Self:
        await self._db.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._db.close()

    async def ensure_project(self, org: str, name: str) -> Project:
        def work(db: sqlite3.Connection) -> Project:
            db.execute("INSERT OR IGNORE INTO project (org, name) VALUES (?, ?)", (org, name))
            row = db.execute(f"{_PROJECT} WHERE org = ? AND name = ?", (org, name)).fetchone()
            return _project(row)

        return await self._db.write(work)

    async def project(self, project_id: int) -> Project | None:
        return await self._one(_project, f"{_PROJECT} WHERE id = ?", project_id)

    async def find_project(self, org: str, name: str) -> Project | None:
        return await self._one(_project, f"{_PROJECT} WHERE org = ? AND name = ?", org, name)

    async def projects(self) -> list[Project]:
        return await self._all(_project, f"{_PROJECT} ORDER BY org, name")

    async def set_capture(self, project_id: int, mode: CaptureMode | None) -> None:
        await self._db.write(
            lambda db: _changed(db, "UPDATE project SET capture = ? WHERE id = ?", mode, project_id)
        )

    async def set_budget(self, project_id: int, budget_pico: int | None) -> None:
        sql = "UPDATE project SET budget_pico = ? WHERE id = ?"
        await self._db.write(lambda db: _changed(db, sql, budget_pico, project_id))

    async def add_key(self, project_id: int, role: Role, digest: bytes, hint: str) -> ApiKey:
        def work(db: sqlite3.Connection) -> ApiKey:
            inserted = db.execute(
                "INSERT INTO api_key (project_id, role, digest, hint, created_at) VALUES (?, ?, ?, ?, ?)",
                (project_id, role, digest, hint, _now()),
            )
            return _key(db.execute(f"{_KEY} WHERE id = ?", (inserted.lastrowid,)).fetchone())

        return await self._db.write(work)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return await self._one(_key, f"{_KEY} WHERE digest = ?", digest)

    async def keys(self, project_id: int) -> list[ApiKey]:
        return await self._all(_key, f"{_KEY} WHERE project_id = ? ORDER BY id", project_id)

    async def revoke_key(self, project_id: int, key_id: int) -> bool:
        sql = "UPDATE api_key SET revoked_at = ? WHERE project_id = ? AND id = ? AND revoked_at IS NULL"
        return await self._db.write(lambda db: _changed(db, sql, _now(), project_id, key_id)) == 1

    async def put_draft(
        self, project_id: int, slug: str, *, name: str | None, capture: CaptureMode | None, source: bytes
    ) -> FlowRecord:
        def work(db: sqlite3.Connection) -> FlowRecord:
            now = _now()
            db.execute(
                "INSERT INTO flow (id, project_id, slug, name, capture, updated_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (project_id, slug) DO UPDATE SET"
                " name = excluded.name, capture = excluded.capture, updated_at = excluded.updated_at",
                (str(uuid7()), project_id, slug, name, capture, now),
            )
            flow = _flow(
                db.execute(f"{_FLOW} WHERE project_id = ? AND slug = ?", (project_id, slug)).fetchone()
            )
            db.execute(
                "INSERT INTO flow_version (flow_id, version, source, created_at) VALUES (?, 0, ?, ?)"
                " ON CONFLICT (flow_id, version) DO UPDATE SET source = excluded.source,"
                " created_at = excluded.created_at",
                (flow.id, source, now),
            )
            return flow

        return await self._db.write(work)

    async def publish(self, flow_id: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            unchanged = db.execute(
                "SELECT version FROM flow_version WHERE flow_id = ?1 AND version ="
                " (SELECT production_version FROM flow WHERE id = ?1)"
                " AND source = (SELECT source FROM flow_version WHERE flow_id = ?1 AND version = 0)",
                (flow_id,),
            ).fetchone()
            if unchanged is not None:
                return int(unchanged[0])
            version = db.execute(
                "SELECT max(version) + 1 FROM flow_version WHERE flow_id = ?", (flow_id,)
            ).fetchone()[0]
            if version is None:
                raise StoreError(f"flow {flow_id!r} has no draft to publish")
            db.execute(
                "INSERT INTO flow_version (flow_id, version, source, created_at)"
                " SELECT flow_id, ?, source, ? FROM flow_version WHERE flow_id = ? AND version = 0",
                (version, _now(), flow_id),
            )
            db.execute("UPDATE flow SET production_version = ? WHERE id = ?", (version, flow_id))
            return int(version)

        return await self._db.write(work)

    async def set_production(self, flow_id: str, version: int) -> bool:
        sql = (
            "UPDATE flow SET production_version = ?1 WHERE id = ?2 AND ?1 > 0"
            " AND EXISTS (SELECT 1 FROM flow_version WHERE flow_id = ?2 AND version = ?1)"
        )
        return await self._db.write(lambda db: _changed(db, sql, version, flow_id)) == 1

    async def versions(self, flow_id: str) -> list[FlowVersion]:
        sql = "SELECT version, created_at FROM flow_version WHERE flow_id = ? ORDER BY version"
        return await self._all(lambda row: FlowVersion(version=row[0], created_at=row[1]), sql, flow_id)

    async def find_flow(self, project_id: int, slug: str) -> FlowRecord | None:
        return await self._one(_flow, f"{_FLOW} WHERE project_id = ? AND slug = ?", project_id, slug)

    async def flow(self, flow_id: str) -> FlowRecord | None:
        return await self._one(_flow, f"{_FLOW} WHERE id = ?", flow_id)

    async def flows(self, project_id: int) -> list[FlowRecord]:
        return await self._all(_flow, f"{_FLOW} WHERE project_id = ? ORDER BY slug", project_id)

    async def flow_source(self, flow_id: str, version: int) -> bytes | None:
        return await self._one(
            _bytes, "SELECT source FROM flow_version WHERE flow_id = ? AND version = ?", flow_id, version
        )

    async def create_run(self, run: NewRun) -> RunRecord:
        def work(db: sqlite3.Connection) -> RunRecord:
            if run.call is not None:
                _begin_call(db, run.project_id, run.call, run.id)
            db.execute(
                "INSERT INTO run (id, project_id, flow_id, version, status, trigger_type, capture,"
                " session_id, summary, request) VALUES (?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?)",
                (
                    run.id,
                    run.project_id,
                    run.flow_id,
                    run.version,
                    run.trigger_type,
                    run.capture,
                    run.session_id,
                    run.summary,
                    run.request,
                ),
            )
            return _run(db.execute(f"{_RUN} WHERE id = ?", (run.id,)).fetchone())

        return await self._db.write(work)

    async def call(self, project_id: int, key: str) -> Call | None:
        return await self._one(
            lambda row: Call(key=row[0], digest=row[1], run_id=row[2], status=row[3], answer=row[4]),
            "SELECT key, digest, run_id, status, answer FROM call WHERE project_id = ? AND key = ?",
            project_id,
            key,
        )

    async def begin_call(self, project_id: int, call: CallKey, run_id: str) -> None:
        await self._db.write(lambda db: _begin_call(db, project_id, call, run_id))

    async def answer_call(self, project_id: int, key: str, *, status: int, answer: bytes) -> None:
        sql = "UPDATE call SET status = ?, answer = ? WHERE project_id = ? AND key = ?"
        await self._db.write(lambda db: _changed(db, sql, status, answer, project_id, key))

    async def forget_calls(self, *, before: str) -> int:
        return await self._db.write(lambda db: _changed(db, "DELETE FROM call WHERE created_at < ?", before))

    async def append(self, batch: Append) -> None:
        await self._db.write(lambda db: _append(db, batch))

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._one(_run, f"{_RUN} WHERE id = ?", run_id)

    async def outcome(self, run_no: int) -> tuple[bytes | None, bytes | None]:
        sql = "SELECT result, error FROM run WHERE no = ?"
        found = await self._one(lambda row: (row[0], row[1]), sql, run_no)
        return found or (None, None)

    async def session_runs(self, project_id: int, session_id: str) -> list[RunRecord]:
        sql = f"{_RUN} WHERE session_id = ? AND project_id = ? ORDER BY id"
        return await self._all(_run, sql, session_id, project_id)

    async def request(self, run_no: int) -> bytes | None:
        return await self._one(_bytes, "SELECT request FROM run WHERE no = ? AND request IS NOT NULL", run_no)

    async def unfinished_runs(self) -> list[RunRecord]:
        return await self._all(_run, f"{_RUN} WHERE status IN ('pending', 'running') ORDER BY no")

    async def runs(
        self, project_id: int, *, flow_id: str | None, status: str | None, before: str | None, limit: int
    ) -> list[bytes]:
        where: list[str] = ["project_id = ?"]
        values: list[int | str] = [project_id]
        for condition, value in (("flow_id = ?", flow_id), ("status = ?", status), ("id < ?", before)):
            if value is not None:
                where.append(condition)
                values.append(value)
        sql = f"SELECT summary FROM run WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
        return await self._all(_bytes, sql, *values, limit)

    async def events(self, run_no: int, *, after: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        def work(db: sqlite3.Connection) -> list[tuple[int, bytes]]:
            page, size = [], 0
            rows = db.execute(
                "SELECT seq, data FROM event WHERE run_no = ? AND seq > ? ORDER BY seq", (run_no, after)
            )
            for seq, data in rows:
                page.append((seq, data))
                size += len(data)
                if size >= limit_bytes:
                    break
            # An unfinished SELECT would hold its read transaction open, and with it the WAL.
            rows.close()
            return page

        return await self._db.read(work)

    async def trace(self, run_no: int) -> tuple[bytes, list[bytes]]:
        def work(db: sqlite3.Connection) -> tuple[bytes, list[bytes]]:
            db.execute("BEGIN")
            try:
                summary = db.execute("SELECT summary FROM run WHERE no = ?", (run_no,)).fetchone()
                steps = db.execute(
                    "SELECT data FROM step WHERE run_no = ? ORDER BY position", (run_no,)
                ).fetchall()
            finally:
                db.execute("COMMIT")
            if summary is None:
                raise StoreError(f"the store has no run number {run_no}")
            return summary[0], [data for (data,) in steps]

        return await self._db.read(work)

    async def steps(self, run_no: int) -> list[StepRow]:
        return await self._all(_step, f"{_STEP} FROM step WHERE run_no = ? ORDER BY position", run_no)

    async def attempts(self, run_no: int, step_id: str) -> list[StepRow]:
        sql = (
            f"{_STEP} FROM step WHERE run_no = ?1 AND step_id = ?2 UNION ALL"
            f" {_STEP} FROM step_attempt WHERE run_no = ?1 AND step_id = ?2 ORDER BY 1, 4"
        )
        return await self._all(_step, sql, run_no, step_id)

    async def open_steps(self, run_no: int) -> tuple[list[StepRow], int]:
        def work(db: sqlite3.Connection) -> tuple[list[StepRow], int]:
            rows = db.execute(
                f"{_STEP} FROM step WHERE run_no = ? AND status = 'running' ORDER BY position", (run_no,)
            ).fetchall()
            last = db.execute(
                "SELECT coalesce(max(position), 0) FROM step WHERE run_no = ?", (run_no,)
            ).fetchone()[0]
            return [StepRow(*row) for row in rows], int(last)

        return await self._db.read(work)

    async def checkpoints(self, run_no: int) -> list[Checkpoint]:
        return await self._all(
            lambda row: Checkpoint(*row),
            "SELECT step_id, loop_path, data FROM checkpoint WHERE run_no = ?",
            run_no,
        )

    async def _one(self, shape: Callable[[Any], Shape], sql: str, *values: Any) -> Shape | None:
        row = await self._db.read(lambda db: db.execute(sql, values).fetchone())
        return None if row is None else shape(row)

    async def _all(self, shape: Callable[[Any], Shape], sql: str, *values: Any) -> list[Shape]:
        rows = await self._db.read(lambda db: db.execute(sql, values).fetchall())
        return [shape(row) for row in rows]


def _append(db: sqlite3.Connection, batch: Append) -> None:
    head = batch.head + len(batch.events)
    ended = batch.status in TERMINAL
    # First, and alone able to refuse: a HeadMismatch must leave the shared transaction untouched.
    moved = db.execute(
        "UPDATE run SET head = ?, status = ?, summary = ?, request = CASE WHEN ? THEN NULL ELSE request END,"
        " result = ?, error = ? WHERE no = ? AND head = ? AND fence = ?",
        (
            head,
            batch.status,
            batch.summary,
            ended,
            batch.result,
            batch.error,
            batch.run_no,
            batch.head,
            batch.fence,
        ),
    ).rowcount
    if moved != 1:
        raise HeadMismatch(
            f"run number {batch.run_no} is not at seq {batch.head} with fence {batch.fence} any more: "
            "another process goes on with it"
        )
    if batch.spent_pico:
        db.execute(
            "UPDATE project SET spent_pico = spent_pico + ?"
            " WHERE id = (SELECT project_id FROM run WHERE no = ?)",
            (batch.spent_pico, batch.run_no),
        )
    db.executemany(
        "INSERT INTO event (run_no, seq, data) VALUES (?, ?, ?)",
        [(batch.run_no, seq, data) for seq, data in enumerate(batch.events, batch.head + 1)],
    )
    for step in batch.steps:
        if step.attempt > 1:
            db.execute(
                "INSERT OR IGNORE INTO step_attempt"
                " (run_no, position, attempt, step_id, loop_path, status, data)"
                " SELECT run_no, position, attempt, step_id, loop_path, status, data FROM step"
                " WHERE run_no = ? AND position = ? AND attempt < ?",
                (batch.run_no, step.position, step.attempt),
            )
        db.execute(
            "INSERT INTO step (run_no, position, step_id, loop_path, attempt, status, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_no, position) DO UPDATE SET"
            " attempt = excluded.attempt, status = excluded.status, data = excluded.data",
            (batch.run_no, *step),
        )
    if ended:
        db.execute("DELETE FROM checkpoint WHERE run_no = ?", (batch.run_no,))
    elif batch.checkpoints:
        db.executemany(
            "INSERT OR REPLACE INTO checkpoint (run_no, step_id, loop_path, data) VALUES (?, ?, ?, ?)",
            [(batch.run_no, *checkpoint) for checkpoint in batch.checkpoints],
        )


def _begin_call(db: sqlite3.Connection, project_id: int, call: CallKey, run_id: str) -> None:
    added = db.execute(
        "INSERT OR IGNORE INTO call (project_id, key, digest, run_id, created_at) VALUES (?, ?, ?, ?, ?)",
        (project_id, call.key, call.digest, run_id, _now()),
    ).rowcount
    if added != 1:
        raise CallRepeated(f"there has been a call under the Idempotency-Key {call.key!r}")


def _changed(db: sqlite3.Connection, sql: str, *values: Any) -> int:
    return db.execute(sql, values).rowcount


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _project(row: Any) -> Project:
    return Project(**dict(zip(Project.__struct_fields__, row, strict=True)))


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row[0], project_id=row[1], role=row[2], hint=row[3], created_at=row[4], revoked_at=row[5]
    )


def _flow(row: Any) -> FlowRecord:
    return FlowRecord(**dict(zip(FlowRecord.__struct_fields__, row, strict=True)))


def _run(row: Any) -> RunRecord:
    return RunRecord(**dict(zip(RunRecord.__struct_fields__, row, strict=True)))


def _step(row: Any) -> StepRow:
    return StepRow(*row)


def _bytes(row: Any) -> bytes:
    return bytes(row[0])
