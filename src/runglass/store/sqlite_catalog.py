"""Projects, keys and flows in SQLite: small rows, read by every request before anything else."""

import sqlite3
from decimal import Decimal
from typing import Any

from uuid_utils import uuid7

from runglass.errors import StoreError
from runglass.execution import CaptureMode
from runglass.money import format_usd
from runglass.store.base import NO_RETENTION, ApiKey, FlowRecord, FlowVersion, Project, Retention, Role
from runglass.store.connections import Connections
from runglass.store.queries import as_bytes, changed, every, now_text, one

_PROJECT = (
    "SELECT id, org, name, capture, budget_usd, spent_usd, retention_days, content_retention_days,"
    " data_bytes FROM project"
)
_KEY = "SELECT id, project_id, role, hint, created_at, revoked_at FROM api_key"
_FLOW = (
    "SELECT id, project_id, slug, name, capture, production_version, updated_at, retention_days,"
    " content_retention_days FROM flow"
)


class Catalog:
    """The part of the store that runs are started from."""

    _db: Connections

    async def ensure_project(self, org: str, name: str) -> Project:
        def work(db: sqlite3.Connection) -> Project:
            db.execute("INSERT OR IGNORE INTO project (org, name) VALUES (?, ?)", (org, name))
            row = db.execute(f"{_PROJECT} WHERE org = ? AND name = ?", (org, name)).fetchone()
            return _project(row)

        return await self._db.write(work)

    async def check_write(self) -> None:
        def work(db: sqlite3.Connection) -> None:
            # Larger than a page, so that it needs new ones where the file has none to spare.
            db.execute("INSERT INTO write_check (data) VALUES (zeroblob(10000))")
            db.execute("DELETE FROM write_check")

        await self._db.write(work)

    async def project(self, project_id: int) -> Project | None:
        return await self._db.look_up(one(_project, f"{_PROJECT} WHERE id = ?", project_id))

    async def find_project(self, org: str, name: str) -> Project | None:
        return await self._db.look_up(one(_project, f"{_PROJECT} WHERE org = ? AND name = ?", org, name))

    async def projects(self) -> list[Project]:
        return await self._db.look_up(every(_project, f"{_PROJECT} ORDER BY org, name"))

    async def set_capture(self, project_id: int, mode: CaptureMode | None) -> None:
        await self._db.write(changed("UPDATE project SET capture = ? WHERE id = ?", mode, project_id))

    async def set_budget(self, project_id: int, budget_usd: Decimal | None) -> None:
        sql = "UPDATE project SET budget_usd = ? WHERE id = ?"
        text = None if budget_usd is None else format_usd(budget_usd)
        await self._db.write(changed(sql, text, project_id))

    async def add_key(self, project_id: int, role: Role, digest: bytes, hint: str) -> ApiKey:
        def work(db: sqlite3.Connection) -> ApiKey:
            inserted = db.execute(
                "INSERT INTO api_key (project_id, role, digest, hint, created_at) VALUES (?, ?, ?, ?, ?)",
                (project_id, role, digest, hint, now_text()),
            )
            return _key(db.execute(f"{_KEY} WHERE id = ?", (inserted.lastrowid,)).fetchone())

        return await self._db.write(work)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return await self._db.read_hot(one(_key, f"{_KEY} WHERE digest = ?", digest))

    async def keys(self, project_id: int) -> list[ApiKey]:
        return await self._db.look_up(every(_key, f"{_KEY} WHERE project_id = ? ORDER BY id", project_id))

    async def revoke_key(self, project_id: int, key_id: int) -> bool:
        sql = "UPDATE api_key SET revoked_at = ? WHERE project_id = ? AND id = ? AND revoked_at IS NULL"
        return await self._db.write(changed(sql, now_text(), project_id, key_id)) == 1

    async def put_draft(
        self,
        project_id: int,
        slug: str,
        *,
        name: str | None,
        capture: CaptureMode | None,
        source: bytes,
        retention: Retention = NO_RETENTION,
    ) -> FlowRecord:
        def work(db: sqlite3.Connection) -> FlowRecord:
            now = now_text()
            db.execute(
                "INSERT INTO flow (id, project_id, slug, name, capture, updated_at, retention_days,"
                " content_retention_days) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (project_id, slug) DO UPDATE SET"
                " name = excluded.name, capture = excluded.capture, updated_at = excluded.updated_at,"
                " retention_days = excluded.retention_days,"
                " content_retention_days = excluded.content_retention_days",
                (str(uuid7()), project_id, slug, name, capture, now, *retention),
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
                (version, now_text(), flow_id),
            )
            db.execute("UPDATE flow SET production_version = ? WHERE id = ?", (version, flow_id))
            return int(version)

        return await self._db.write(work)

    async def set_production(self, flow_id: str, version: int) -> bool:
        sql = (
            "UPDATE flow SET production_version = ?1 WHERE id = ?2 AND ?1 > 0"
            " AND EXISTS (SELECT 1 FROM flow_version WHERE flow_id = ?2 AND version = ?1)"
        )
        return await self._db.write(changed(sql, version, flow_id)) == 1

    async def versions(self, flow_id: str) -> list[FlowVersion]:
        sql = "SELECT version, created_at FROM flow_version WHERE flow_id = ? ORDER BY version"
        return await self._db.look_up(every(_version, sql, flow_id))

    async def find_flow(self, project_id: int, slug: str) -> FlowRecord | None:
        return await self._db.look_up(
            one(_flow, f"{_FLOW} WHERE project_id = ? AND slug = ?", project_id, slug)
        )

    async def flow(self, flow_id: str) -> FlowRecord | None:
        return await self._db.look_up(one(_flow, f"{_FLOW} WHERE id = ?", flow_id))

    async def flows(self, project_id: int) -> list[FlowRecord]:
        return await self._db.look_up(every(_flow, f"{_FLOW} WHERE project_id = ? ORDER BY slug", project_id))

    async def flow_source(self, flow_id: str, version: int) -> bytes | None:
        sql = "SELECT source FROM flow_version WHERE flow_id = ? AND version = ?"
        return await self._db.read(one(as_bytes, sql, flow_id, version))


def _project(row: Any) -> Project:
    known = dict(zip(Project.__struct_fields__, row, strict=True))
    budget_usd, spent_usd = known.pop("budget_usd"), known.pop("spent_usd")
    return Project(
        **known,
        budget_usd=None if budget_usd is None else Decimal(budget_usd),
        spent_usd=Decimal(spent_usd),
    )


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row[0], project_id=row[1], role=row[2], hint=row[3], created_at=row[4], revoked_at=row[5]
    )


def _flow(row: Any) -> FlowRecord:
    return FlowRecord(**dict(zip(FlowRecord.__struct_fields__, row, strict=True)))


def _version(row: Any) -> FlowVersion:
    return FlowVersion(version=row[0], created_at=row[1])
