"""Projects and flows in PostgreSQL: small rows, read by every request before anything else."""

import hashlib
from collections.abc import Sequence
from decimal import Decimal

import msgspec
from uuid_utils import uuid7

from runglass.admin_api import SERVER, Actor
from runglass.errors import StoreError
from runglass.money import format_usd
from runglass.run_api import CaptureFailed, CaptureMode
from runglass.store.catalog_records import DRAFT_COLUMNS, flow_of, project_of, told_of_draft, version_of
from runglass.store.postgres.audit import change_project, note_change
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.sql_helpers import NOW, as_bytes, every, one
from runglass.store.records import NO_RETENTION, FlowRecord, FlowVersion, Project, Retention

_TOTAL = "coalesce((SELECT sum({0}) FROM project_total WHERE project_id = project.id), 0)"
PROJECT = (
    f"SELECT id, org, name, capture, budget_usd, {_TOTAL.format('spent_usd')}, retention_days,"
    f" content_retention_days, {_TOTAL.format('reserved_usd')}, allowed_models,"
    f" {_TOTAL.format('data_bytes')}::bigint, capture_failed, capture_sample FROM project"
)
_FLOW = (
    "SELECT id, project_id, slug, name, capture, production_version, updated_at, retention_days,"
    " content_retention_days FROM flow"
)


class Catalog:
    """The part of the store that runs are started from."""

    _db: Connections

    async def ensure_project(self, org: str, name: str, *, by: Actor = SERVER) -> Project:
        sql = f"{PROJECT} WHERE org = $1 AND name = $2"

        async def work(db: Db) -> Project:
            project_id = await db.fetchval(
                "INSERT INTO project (org, name) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id",
                *(org, name),
            )
            if project_id is not None:
                await db.execute("INSERT INTO project_change (project_id, last) VALUES ($1, 0)", project_id)
                await note_change(db, project_id, by, "project.created")
            return project_of(await db.fetchrow(sql, org, name))

        # Nearly always it is there, and nothing is to be written.
        found = await self.find_project(org, name)
        return found if found is not None else await self._db.write(work)

    async def check_write(self) -> None:
        async def work(db: Db) -> None:
            # Larger than a page, so that it needs new ones.
            await db.execute("INSERT INTO write_check (data) VALUES (repeat('0', 10000))")
            await db.execute("DELETE FROM write_check")

        await self._db.write(work)

    async def project(self, project_id: int) -> Project | None:
        return await self._db.read(one(project_of, f"{PROJECT} WHERE id = $1", project_id))

    async def set_allowed_models(
        self, project_id: int, patterns: Sequence[str] | None, *, by: Actor = SERVER
    ) -> None:
        text = None if patterns is None else msgspec.json.encode(list(patterns)).decode()
        await self._db.write(change_project(project_id, by, "project.models", allowed_models=text))

    async def find_project(self, org: str, name: str) -> Project | None:
        return await self._db.read(one(project_of, f"{PROJECT} WHERE org = $1 AND name = $2", org, name))

    async def projects(self) -> list[Project]:
        return await self._db.read(every(project_of, f"{PROJECT} ORDER BY org, name"))

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
        digest = hashlib.sha256(source).hexdigest()
        flow_id = str(uuid7())

        async def work(db: Db) -> FlowRecord:
            before, old_source = await _draft(db, project_id, slug)
            row = await db.fetchrow(
                "INSERT INTO flow (id, project_id, slug, name, capture, updated_at, retention_days,"
                f" content_retention_days) VALUES ($1, $2, $3, $4, $5, {NOW}, $6, $7)"
                " ON CONFLICT (project_id, slug) DO UPDATE SET"
                " name = excluded.name, capture = excluded.capture, updated_at = excluded.updated_at,"
                " retention_days = excluded.retention_days,"
                " content_retention_days = excluded.content_retention_days"
                f" RETURNING {_FLOW.removeprefix('SELECT ').removesuffix(' FROM flow')}",
                *(flow_id, project_id, slug, name, capture, *retention),
            )
            flow = flow_of(row)
            await db.execute(
                f"INSERT INTO flow_version (flow_id, version, source, created_at) VALUES ($1, 0, $2, {NOW})"
                " ON CONFLICT (flow_id, version) DO UPDATE SET source = excluded.source,"
                " created_at = excluded.created_at",
                *(flow.id, source),
            )
            after, _ = await _draft(db, project_id, slug)
            if before != after or old_source != source:
                told = {"sha256": digest, "before": before, "after": after}
                await note_change(db, project_id, by, "flow.pushed", slug, **told)
            return flow

        return await self._db.write(work)

    async def publish(self, flow_id: str, *, by: Actor = SERVER) -> int:
        async def work(db: Db) -> int:
            await _lock_flow(db, flow_id)
            unchanged = await db.fetchval(
                "SELECT version FROM flow_version WHERE flow_id = $1 AND version ="
                " (SELECT production_version FROM flow WHERE id = $1)"
                " AND source = (SELECT source FROM flow_version WHERE flow_id = $1 AND version = 0)",
                flow_id,
            )
            if unchanged is not None:
                return int(unchanged)
            version = await db.fetchval(
                "SELECT min(version) + 1 FROM flow_version AS before WHERE flow_id = $1 AND version >="
                " (SELECT max(version) FROM flow_version WHERE flow_id = $1 AND NOT imported) AND NOT EXISTS"
                " (SELECT FROM flow_version WHERE flow_id = $1 AND version = before.version + 1)",
                flow_id,
            )
            if version is None:
                raise StoreError(f"flow {flow_id!r} has no draft to publish")
            await db.execute(
                "INSERT INTO flow_version (flow_id, version, source, created_at)"
                f" SELECT flow_id, $1::bigint, source, {NOW} FROM flow_version"
                " WHERE flow_id = $2 AND version = 0",
                *(version, flow_id),
            )
            await _put_in_production(db, flow_id, version, by=by, action="flow.published")
            return int(version)

        return await self._db.write(work)

    async def set_production(self, flow_id: str, version: int, *, by: Actor = SERVER) -> bool:
        async def work(db: Db) -> bool:
            await _lock_flow(db, flow_id)
            sql = "SELECT 1 FROM flow_version WHERE flow_id = $1 AND version = $2 AND NOT imported"
            if version < 1 or await db.fetchval(sql, flow_id, version) is None:
                return False
            await _put_in_production(db, flow_id, version, by=by, action="flow.production")
            return True

        return await self._db.write(work)

    async def versions(self, flow_id: str, *, after: int = -1, limit: int | None = None) -> list[FlowVersion]:
        sql = (
            "SELECT version, created_at, imported FROM flow_version WHERE flow_id = $1 AND version > $2"
            " ORDER BY version LIMIT $3"
        )
        return await self._db.read(every(version_of, sql, flow_id, after, limit))

    async def find_flow(self, project_id: int, slug: str) -> FlowRecord | None:
        return await self._db.read(
            one(flow_of, f"{_FLOW} WHERE project_id = $1 AND slug = $2", project_id, slug)
        )

    async def flow(self, flow_id: str) -> FlowRecord | None:
        return await self._db.read(one(flow_of, f"{_FLOW} WHERE id = $1", flow_id))

    async def flows(self, project_id: int, *, after: str = "", limit: int | None = None) -> list[FlowRecord]:
        sql = f"{_FLOW} WHERE project_id = $1 AND slug > $2 ORDER BY slug LIMIT $3"
        return await self._db.read(every(flow_of, sql, project_id, after, limit))

    async def flow_source(self, flow_id: str, version: int) -> bytes | None:
        sql = "SELECT source FROM flow_version WHERE flow_id = $1 AND version = $2"
        return await self._db.read(one(as_bytes, sql, flow_id, version))

    async def runnable_source(self, flow_id: str, version: int) -> bytes | None:
        sql = "SELECT source FROM flow_version WHERE flow_id = $1 AND version = $2 AND NOT imported"
        return await self._db.read(one(as_bytes, sql, flow_id, version))


async def _lock_flow(db: Db, flow_id: str) -> None:
    """Keeps others from giving the flow a version meanwhile."""
    await db.execute("SELECT FROM flow WHERE id = $1 FOR NO KEY UPDATE", flow_id)


async def _draft(db: Db, project_id: int, slug: str) -> tuple[dict[str, object] | None, bytes | None]:
    """The fields of a draft for the audit log, and its source, which that leaves out."""
    row = await db.fetchrow(
        f"SELECT source, {DRAFT_COLUMNS} FROM flow"
        " JOIN flow_version ON flow_id = id AND version = 0 WHERE project_id = $1 AND slug = $2"
        " FOR NO KEY UPDATE OF flow",
        *(project_id, slug),
    )
    if row is None:
        return None, None
    source, *told = row
    return told_of_draft(told), source


async def _put_in_production(db: Db, flow_id: str, version: int, *, by: Actor, action: str) -> None:
    sql = "SELECT project_id, slug, production_version FROM flow WHERE id = $1"
    project_id, slug, before = await db.fetchrow(sql, flow_id)
    if before == version:
        return
    await db.execute("UPDATE flow SET production_version = $1 WHERE id = $2", version, flow_id)
    await note_change(db, project_id, by, action, slug, before=before, after=version)
