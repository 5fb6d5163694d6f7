"""Projects and flows: small rows, read by every request before anything else.

More than 300 lines: beside its statement each method has what it promises, which nothing else says.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from uuid_utils import uuid7

from runglass.errors import FlowRecorded, StoreError
from runglass.log.money import format_usd
from runglass.store.audit import Audit, change_project, describe, note_change
from runglass.store.keys import Keys
from runglass.store.records import (
    NO_RETENTION,
    FlowRecord,
    FlowVersion,
    Project,
    Retention,
)
from runglass.store.statements import Steps, as_bytes, as_int, done, every, fetch, one
from runglass.support.logs import project_names
from runglass.wire.admin_api import SERVER, Actor
from runglass.wire.run_api import CaptureFailed, CaptureMode

FLOW_COLUMNS = (
    "id, project_id, slug, name, capture, production_version, updated_at, retention_days,"
    " content_retention_days, recorded"
)
FLOW = f"SELECT {FLOW_COLUMNS} FROM flow"
DELETED = "~"
"""Stands behind the slug of a flow that was deleted, and in no other; its id follows, so the slug is free."""
NOT_DELETED = f"slug NOT LIKE '%{DELETED}%'"
DRAFT_COLUMNS = "name, capture, retention_days, content_retention_days"
# Keeps others from giving the flow a version meanwhile.
_LOCK_FLOW = "SELECT id FROM flow WHERE id = :flow_id FOR NO KEY UPDATE"
_PUT_FLOW = (
    "INSERT INTO flow (id, project_id, slug, name, capture, updated_at, retention_days,"
    " content_retention_days) VALUES (:flow_id, :project_id, :slug, :name, :capture, now(), :days,"
    " :content_days) ON CONFLICT (project_id, slug) DO UPDATE SET name = excluded.name,"
    " capture = excluded.capture, updated_at = excluded.updated_at, retention_days = excluded.retention_days,"
    " content_retention_days = excluded.content_retention_days WHERE NOT flow.recorded"
    f" RETURNING {FLOW_COLUMNS}"
)
_PUT_DRAFT = (
    "INSERT INTO flow_version (flow_id, version, source, created_at) VALUES (:flow_id, 0, :source, now())"
    " ON CONFLICT (flow_id, version) DO UPDATE SET source = excluded.source, created_at = excluded.created_at"
)
_BY_NAME = "WHERE org = :org AND name = :name"
_SOURCE = "SELECT source FROM flow_version WHERE flow_id = :flow_id AND version = :version"


class Catalog(Keys, Audit):
    """The part of the store that runs are started from: projects, flows, keys and sessions of the viewer.

    A method that takes `by` changes a project: the audit log names the actor, in the same transaction, unless
    nothing has changed.
    """

    async def ensure_project(self, org: str, name: str, *, by: Actor = SERVER) -> Project:
        """The project, created if it is new."""

        def work() -> Steps[Project]:
            sql = "INSERT INTO project (org, name) VALUES (:org, :name) ON CONFLICT DO NOTHING RETURNING id"
            for (project_id,) in (yield fetch(sql, org=org, name=name)):
                if self._sql.new_project:
                    yield done(self._sql.new_project, project_id=project_id)
                yield from note_change(project_id, by, "project.created")
            project: Project
            [project] = yield every(project_of, f"{self._sql.project} {_BY_NAME}", org=org, name=name)
            return project

        # Nearly always it is there, and nothing is to be written.
        found = await self.find_project(org, name)
        return found if found is not None else await self._write(work)

    async def check_write(self) -> None:
        """Writes something that needs room, commits it and leaves nothing behind. Raises StoreError."""

        def work() -> Steps[None]:
            # It needs new pages where the file has none to spare.
            yield done(f"INSERT INTO write_check (data) VALUES ({self._sql.large_value})")
            yield done("DELETE FROM write_check")

        await self._write(work)

    async def project(self, project_id: int) -> Project | None:
        sql = f"{self._sql.project} WHERE id = :project_id"
        return await self._read_inline(one(project_of, sql, project_id=project_id))

    async def set_allowed_models(
        self, project_id: int, patterns: Sequence[str] | None, *, by: Actor = SERVER
    ) -> None:
        """Sets which models the project's flows and callers may name; None leaves it to the server."""
        text = None if patterns is None else msgspec.json.encode(list(patterns)).decode()
        await self._write(change_project(project_id, by, "project.models", allowed_models=text))

    async def find_project(self, org: str, name: str) -> Project | None:
        sql = f"{self._sql.project} {_BY_NAME}"
        return await self._look_up(one(project_of, sql, org=org, name=name))

    async def projects(self) -> list[Project]:
        return await self._look_up(every(project_of, f"{self._sql.project} ORDER BY org, name"))

    async def set_capture(
        self,
        project_id: int,
        mode: CaptureMode | None,
        failed: CaptureFailed | None = None,
        sample: float | None = None,
        *,
        by: Actor = SERVER,
    ) -> None:
        """Sets `capture`, `capture_failed` and `capture_sample` of the project; None is the server's."""
        columns = {"capture": mode, "capture_failed": failed, "capture_sample": sample}
        await self._write(change_project(project_id, by, "project.capture", **columns))

    async def set_budget(self, project_id: int, budget_usd: Decimal | None, *, by: Actor = SERVER) -> None:
        """Sets the budget of the project; None lifts the limit."""
        text = None if budget_usd is None else format_usd(budget_usd)
        await self._write(change_project(project_id, by, "project.budget", budget_usd=text))

    async def set_retention(self, project_id: int, retention: Retention, *, by: Actor = SERVER) -> None:
        """Sets how long the project's ended runs are kept; None leaves it to the server's default."""
        columns = {"retention_days": retention.days, "content_retention_days": retention.content_days}
        await self._write(change_project(project_id, by, "project.retention", **columns))

    async def retentions(self) -> dict[str, Retention]:
        """The retention of each flow's runs, by its id, set by the flow or else by its project."""
        sql = (
            "SELECT flow.id, coalesce(flow.retention_days, project.retention_days),"
            " coalesce(flow.content_retention_days, project.content_retention_days)"
            " FROM flow JOIN project ON project.id = project_id"
        )
        rows = await self._read(fetch(sql))
        return {flow_id: Retention(*days) for flow_id, *days in rows}

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
        """Stores `source` as version 0 of the flow, which is created if it is new.

        Raises FlowRecorded for a flow that has recorded runs.
        """
        # Not in a writer, which all other writes may wait for; the largest flow takes two milliseconds.
        digest = hashlib.sha256(source).hexdigest()
        fields = {"project_id": project_id, "slug": slug, "name": name, "capture": capture}
        fields["flow_id"] = str(uuid7())

        def work() -> Steps[FlowRecord]:
            before, old_source = yield from _draft(project_id, slug)
            flow: FlowRecord | None = yield one(flow_of, _PUT_FLOW, **fields, **retention._asdict())
            if flow is None:
                raise FlowRecorded(slug)
            yield done(_PUT_DRAFT, flow_id=flow.id, source=source)
            after, _ = yield from _draft(project_id, slug)
            if before != after or old_source != source:
                details = {"sha256": digest, "before": before, "after": after}
                yield from note_change(project_id, by, "flow.pushed", slug, **details)
            return flow

        return await self._write(work)

    async def publish(self, flow_id: str, *, by: Actor = SERVER) -> int:
        """Copies the draft to the next version, makes that the production version and returns its number.

        That is the first one behind the newest that was published, and no number of an imported version. A
        draft equal to the production version is not copied again.
        """

        def work() -> Steps[int]:
            yield fetch(_LOCK_FLOW, flow_id=flow_id)
            unchanged = yield fetch(
                "SELECT version FROM flow_version WHERE flow_id = :flow_id AND version ="
                " (SELECT production_version FROM flow WHERE id = :flow_id)"
                " AND source = (SELECT source FROM flow_version WHERE flow_id = :flow_id AND version = 0)",
                flow_id=flow_id,
            )
            for (version,) in unchanged:
                return int(version)
            [(version,)] = yield fetch(
                "SELECT min(version) + 1 FROM flow_version AS before WHERE flow_id = :flow_id AND version >="
                " (SELECT max(version) FROM flow_version WHERE flow_id = :flow_id AND NOT imported)"
                " AND NOT EXISTS (SELECT 1 FROM flow_version WHERE flow_id = :flow_id"
                " AND version = before.version + 1)",
                flow_id=flow_id,
            )
            if version is None:
                raise StoreError(f"flow {flow_id!r} has no draft to publish")
            yield done(
                "INSERT INTO flow_version (flow_id, version, source, created_at)"
                " SELECT flow_id, CAST(:version AS bigint), source, now() FROM flow_version"
                " WHERE flow_id = :flow_id AND version = 0",
                flow_id=flow_id,
                version=version,
            )
            yield from _put_in_production(flow_id, version, by=by, action="flow.published")
            return int(version)

        return await self._write(work)

    async def set_production(self, flow_id: str, version: int, *, by: Actor = SERVER) -> bool:
        """Makes a published version the production version; False if there is no such version.

        One that came with an imported run is none.
        """

        def work() -> Steps[bool]:
            yield fetch(_LOCK_FLOW, flow_id=flow_id)
            sql = f"{_SOURCE} AND version > 0 AND NOT imported"
            found = yield fetch(sql, flow_id=flow_id, version=version)
            if found:
                yield from _put_in_production(flow_id, version, by=by, action="flow.production")
            return bool(found)

        return await self._write(work)

    async def versions(self, flow_id: str, *, after: int = -1, limit: int = sys.maxsize) -> list[FlowVersion]:
        """The flow's versions behind number `after`, the draft first; without `limit` all of them."""
        sql = (
            "SELECT version, created_at, imported FROM flow_version WHERE flow_id = :flow_id"
            " AND version > :after ORDER BY version LIMIT :most"
        )
        return await self._read(every(_version_of, sql, flow_id=flow_id, after=after, most=limit))

    async def delete_flow(self, flow_id: str, *, by: Actor = SERVER) -> int:
        """Deletes the flow, so that its slug is free, with the versions that none of its runs is of.

        Its runs stay, and keep the rest of it; `find_flow` and `flows` no longer have it. Returns how many of
        its runs have not ended: then nothing was done.
        """
        of_flow = "WHERE project_id = :project_id AND flow_id = :flow_id"

        def work() -> Steps[int]:
            sql = f"SELECT project_id, slug FROM flow WHERE id = :flow_id AND {NOT_DELETED} FOR UPDATE"
            for project_id, slug in (yield fetch(sql, flow_id=flow_id)):
                values = {"project_id": project_id, "flow_id": flow_id}
                sql = f"SELECT count(*) FROM run {of_flow} AND status IN ('pending', 'running', 'paused')"
                if open_runs := (yield one(as_int, sql, **values)):
                    return int(open_runs)
                # A run is read by the version that it is of.
                kept = f"SELECT DISTINCT version FROM run {of_flow}"
                sql = f"DELETE FROM flow_version WHERE flow_id = :flow_id AND version NOT IN ({kept})"
                yield done(sql, **values)
                sql = "UPDATE flow SET slug = :slug, production_version = NULL WHERE id = :flow_id"
                yield done(sql, flow_id=flow_id, slug=f"{slug}{DELETED}{flow_id}")
                yield from note_change(project_id, by, "flow.deleted", slug)
            return 0

        return await self._write(work)

    async def find_flow(self, project_id: int, slug: str) -> FlowRecord | None:
        if DELETED in slug:
            return None
        sql = f"{FLOW} WHERE project_id = :project_id AND slug = :slug"
        return await self._look_up(one(flow_of, sql, project_id=project_id, slug=slug))

    async def flow(self, flow_id: str) -> FlowRecord | None:
        return await self._look_up(one(flow_of, f"{FLOW} WHERE id = :id", id=flow_id))

    async def flows(self, project_id: int, *, after: str = "", limit: int = sys.maxsize) -> list[FlowRecord]:
        """The project's flows behind slug `after`, by slug; without `limit` all of them."""
        which = f"WHERE project_id = :project_id AND slug > :after AND {NOT_DELETED}"
        sql = f"{FLOW} {which} ORDER BY slug LIMIT :most"
        return await self._read(every(flow_of, sql, project_id=project_id, after=after, most=limit))

    async def flow_source(self, flow_id: str, version: int) -> bytes | None:
        return await self._read(one(as_bytes, _SOURCE, flow_id=flow_id, version=version))

    async def runnable_source(self, flow_id: str, version: int) -> bytes | None:
        """The source of a version that runs; None where there is none, or it came with an imported run."""
        sql = f"{_SOURCE} AND NOT imported"
        return await self._read(one(as_bytes, sql, flow_id=flow_id, version=version))


def _draft(project_id: int, slug: str) -> Steps[tuple[dict[str, object] | None, bytes | None]]:
    """The fields of a draft for the audit log, and its source, which that leaves out."""
    sql = (
        f"SELECT source, {DRAFT_COLUMNS} FROM flow JOIN flow_version ON flow_id = id AND version = 0"
        " WHERE project_id = :project_id AND slug = :slug FOR NO KEY UPDATE"
    )
    for source, *columns in (yield fetch(sql, project_id=project_id, slug=slug)):
        return describe(DRAFT_COLUMNS.split(", "), columns), source
    return None, None


def _put_in_production(flow_id: str, version: int, *, by: Actor, action: str) -> Steps[None]:
    sql = "SELECT project_id, slug, production_version FROM flow WHERE id = :flow_id"
    [(project_id, slug, before)] = yield fetch(sql, flow_id=flow_id)
    if before == version:
        return
    sql = "UPDATE flow SET production_version = :version WHERE id = :flow_id"
    yield done(sql, flow_id=flow_id, version=version)
    yield from note_change(project_id, by, action, slug, before=before, after=version)


def project_of(row: Any) -> Project:
    """A project from a row with its fields in their order; money may come as texts."""
    known = dict(zip(Project.__struct_fields__, row, strict=True))
    project_names[known["id"]] = f"{known['org']}/{known['name']}"
    budget_usd, patterns = known.pop("budget_usd"), known.pop("allowed_models")
    spent_usd, reserved_usd = known.pop("spent_usd"), known.pop("reserved_usd")
    return Project(
        **known,
        budget_usd=None if budget_usd is None else Decimal(budget_usd),
        spent_usd=Decimal(spent_usd),
        reserved_usd=Decimal(reserved_usd),
        allowed_models=None if patterns is None else msgspec.json.decode(patterns, type=tuple[str, ...]),
    )


def flow_of(row: Any) -> FlowRecord:
    """A flow from a row of `FLOW`."""
    *columns, recorded = row
    known = dict(zip(FlowRecord.__struct_fields__, columns, strict=False))
    known["slug"], deleted, _ = known["slug"].partition(DELETED)
    return FlowRecord(**known, recorded=bool(recorded), deleted=bool(deleted))


def _version_of(row: Any) -> FlowVersion:
    return FlowVersion(version=row[0], created_at=row[1], imported=bool(row[2]))
