"""Projects and flows in SQLite: small rows, read by every request before anything else."""

import hashlib
import sqlite3
from collections.abc import Sequence
from decimal import Decimal

import msgspec
from uuid_utils import uuid7

from runglass.admin_api import SERVER, Actor
from runglass.errors import StoreError
from runglass.money import format_usd
from runglass.run_api import CaptureFailed, CaptureMode
from runglass.store.catalog_records import DRAFT_COLUMNS, flow_of, project_of, told_of_draft, version_of
from runglass.store.records import NO_RETENTION, FlowRecord, FlowVersion, Project, Retention
from runglass.store.sqlite.audit import change_project, note_change
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import as_bytes, every, now_text, one

PROJECT = (
    "SELECT id, org, name, capture, budget_usd, spent_usd, retention_days, content_retention_days,"
    " reserved_usd, allowed_models, data_bytes, capture_failed, capture_sample FROM project"
)
_FLOW = (
    "SELECT id, project_id, slug, name, capture, production_version, updated_at, retention_days,"
    " content_retention_days FROM flow"
)


class Catalog:
    """The part of the store that runs are started from."""

    _db: Connections

    async def ensure_project(self, org: str, name: str, *, by: Actor = SERVER) -> Project:
        def work(db: sqlite3.Connection) -> Project:
            added = db.execute(
                "INSERT OR IGNORE INTO project (org, name) VALUES (?, ?)", (org, name)
            ).rowcount
            row = db.execute(f"{PROJECT} WHERE org = ? AND name = ?", (org, name)).fetchone()
            project = project_of(row)
            if added:
                note_change(db, project.id, by, "project.created")
            return project

        return await self._db.write(work)

    async def check_write(self) -> None:
        def work(db: sqlite3.Connection) -> None:
            # Larger than a page, so that it needs new ones where the file has none to spare.
            db.execute("INSERT INTO write_check (data) VALUES (zeroblob(10000))")
            db.execute("DELETE FROM write_check")

        await self._db.write(work)

    async def project(self, project_id: int) -> Project | None:
        return await self._db.read_inline(one(project_of, f"{PROJECT} WHERE id = ?", project_id))

    async def set_allowed_models(
        self, project_id: int, patterns: Sequence[str] | None, *, by: Actor = SERVER
    ) -> None:
        text = None if patterns is None else msgspec.json.encode(list(patterns)).decode()
        await self._db.write(change_project(project_id, by, "project.models", allowed_models=text))

    async def find_project(self, org: str, name: str) -> Project | None:
        return await self._db.look_up(one(project_of, f"{PROJECT} WHERE org = ? AND name = ?", org, name))

    async def projects(self) -> list[Project]:
        return await self._db.look_up(every(project_of, f"{PROJECT} ORDER BY org, name"))

    async def set_capture(
        self,
        project_id: int,
        mode: CaptureMode | None,
        failed: CaptureFailed | None = None,
        sample: float | None = None,
        *,
        by: Actor = SERVER,
    ) -> None:
        columns = {"capture": mode, "capture_failed": failed, "capture_sample": sample}
        await self._db.write(change_project(project_id, by, "project.capture", **columns))

    async def set_budget(self, project_id: int, budget_usd: Decimal | None, *, by: Actor = SERVER) -> None:
        text = None if budget_usd is None else format_usd(budget_usd)
        await self._db.write(change_project(project_id, by, "project.budget", budget_usd=text))

    async def put_draft(
        self,
        project_id: int,
        slug: str,
        *,
        name: str | None,
        capture: CaptureMode | None,
        source: bytes,
        retention: Retention = NO_RETENTION,
        by: Actor = SERVER,
    ) -> FlowRecord:
        # Not in the writer, which all other writes wait for; the largest flow takes two milliseconds.
        digest = hashlib.sha256(source).hexdigest()

        def work(db: sqlite3.Connection) -> FlowRecord:
            now = now_text()
            before, old_source = _draft(db, project_id, slug)
            db.execute(
                "INSERT INTO flow (id, project_id, slug, name, capture, updated_at, retention_days,"
                " content_retention_days) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (project_id, slug) DO UPDATE SET"
                " name = excluded.name, capture = excluded.capture, updated_at = excluded.updated_at,"
                " retention_days = excluded.retention_days,"
                " content_retention_days = excluded.content_retention_days",
                (str(uuid7()), project_id, slug, name, capture, now, *retention),
            )
            flow = flow_of(
                db.execute(f"{_FLOW} WHERE project_id = ? AND slug = ?", (project_id, slug)).fetchone()
            )
            db.execute(
                "INSERT INTO flow_version (flow_id, version, source, created_at) VALUES (?, 0, ?, ?)"
                " ON CONFLICT (flow_id, version) DO UPDATE SET source = excluded.source,"
                " created_at = excluded.created_at",
                (flow.id, source, now),
            )
            after, _ = _draft(db, project_id, slug)
            if before != after or old_source != source:
                told = {"sha256": digest, "before": before, "after": after}
                note_change(db, project_id, by, "flow.pushed", slug, **told)
            return flow

        return await self._db.write(work)

    async def publish(self, flow_id: str, *, by: Actor = SERVER) -> int:
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
                "SELECT min(version) + 1 FROM flow_version AS before WHERE flow_id = ?1 AND version >="
                " (SELECT max(version) FROM flow_version WHERE flow_id = ?1 AND NOT imported) AND NOT EXISTS"
                " (SELECT 1 FROM flow_version WHERE flow_id = ?1 AND version = before.version + 1)",
                (flow_id,),
            ).fetchone()[0]
            if version is None:
                raise StoreError(f"flow {flow_id!r} has no draft to publish")
            db.execute(
                "INSERT INTO flow_version (flow_id, version, source, created_at)"
                " SELECT flow_id, ?, source, ? FROM flow_version WHERE flow_id = ? AND version = 0",
                (version, now_text(), flow_id),
            )
            _put_in_production(db, flow_id, version, by=by, action="flow.published")
            return int(version)

        return await self._db.write(work)

    async def set_production(self, flow_id: str, version: int, *, by: Actor = SERVER) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            sql = "SELECT 1 FROM flow_version WHERE flow_id = ?1 AND version = ?2 AND ?2 > 0 AND NOT imported"
            if db.execute(sql, (flow_id, version)).fetchone() is None:
                return False
            _put_in_production(db, flow_id, version, by=by, action="flow.production")
            return True

        return await self._db.write(work)

    async def versions(self, flow_id: str, *, after: int = -1, limit: int | None = None) -> list[FlowVersion]:
        sql = (
            "SELECT version, created_at, imported FROM flow_version WHERE flow_id = ? AND version > ?"
            " ORDER BY version LIMIT ?"
        )
        return await self._db.read(every(version_of, sql, flow_id, after, _most(limit)))

    async def find_flow(self, project_id: int, slug: str) -> FlowRecord | None:
        return await self._db.look_up(
            one(flow_of, f"{_FLOW} WHERE project_id = ? AND slug = ?", project_id, slug)
        )

    async def flow(self, flow_id: str) -> FlowRecord | None:
        return await self._db.look_up(one(flow_of, f"{_FLOW} WHERE id = ?", flow_id))

    async def flows(self, project_id: int, *, after: str = "", limit: int | None = None) -> list[FlowRecord]:
        sql = f"{_FLOW} WHERE project_id = ? AND slug > ? ORDER BY slug LIMIT ?"
        return await self._db.read(every(flow_of, sql, project_id, after, _most(limit)))

    async def flow_source(self, flow_id: str, version: int) -> bytes | None:
        sql = "SELECT source FROM flow_version WHERE flow_id = ? AND version = ?"
        return await self._db.read(one(as_bytes, sql, flow_id, version))

    async def runnable_source(self, flow_id: str, version: int) -> bytes | None:
        sql = "SELECT source FROM flow_version WHERE flow_id = ? AND version = ? AND NOT imported"
        return await self._db.read(one(as_bytes, sql, flow_id, version))


def _most(limit: int | None) -> int:
    """A LIMIT for SQLite, to which a negative one is none."""
    return -1 if limit is None else limit


def _draft(
    db: sqlite3.Connection, project_id: int, slug: str
) -> tuple[dict[str, object] | None, bytes | None]:
    """The fields of a draft for the audit log, and its source, which that leaves out."""
    row = db.execute(
        f"SELECT source, {DRAFT_COLUMNS} FROM flow"
        " JOIN flow_version ON flow_id = id AND version = 0 WHERE project_id = ? AND slug = ?",
        (project_id, slug),
    ).fetchone()
    if row is None:
        return None, None
    source, *told = row
    return told_of_draft(told), source


def _put_in_production(db: sqlite3.Connection, flow_id: str, version: int, *, by: Actor, action: str) -> None:
    sql = "SELECT project_id, slug, production_version FROM flow WHERE id = ?"
    project_id, slug, before = db.execute(sql, (flow_id,)).fetchone()
    if before == version:
        return
    db.execute("UPDATE flow SET production_version = ? WHERE id = ?", (version, flow_id))
    note_change(db, project_id, by, action, slug, before=before, after=version)
