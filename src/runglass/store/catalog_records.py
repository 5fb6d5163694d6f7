"""Rows of projects, keys, flows and the audit log as records, the same whichever database they come from."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from runglass.store.records import ApiKey, FlowRecord, FlowVersion, Project, ViewerSession
from runglass.support.logs import project_names
from runglass.wire.admin_api import Actor, ActorKind, AuditEntry

FLOW_COLUMNS = (
    "id, project_id, slug, name, capture, production_version, updated_at, retention_days,"
    " content_retention_days, recorded"
)
DELETED = "~"
"""Stands behind the slug of a flow that was deleted, and in no other; its id follows, so the slug is free."""
NOT_DELETED = f"slug NOT LIKE '%{DELETED}%'"
FLOW = f"SELECT {FLOW_COLUMNS} FROM flow"
DRAFT_COLUMNS = "name, capture, retention_days, content_retention_days"
KEY = "SELECT id, project_id, role, hint, created_at, revoked_at FROM api_key"
VIEWER_SESSION = (
    "SELECT session.digest, session.began_at, session.used_at, key.id, key.project_id, key.role, key.hint,"
    " key.created_at, key.revoked_at FROM viewer_session AS session JOIN api_key AS key ON key.id = key_id"
)


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


def key_of(row: Any) -> ApiKey:
    """A key from a row with its fields in their order."""
    return ApiKey(**dict(zip(ApiKey.__struct_fields__, row, strict=True)))


def viewer_session_of(row: Any) -> ViewerSession:
    """A session from a row with its hash and its two times before the fields of its key."""
    digest, began_at, used_at, *key = row
    return ViewerSession(digest=digest, key=key_of(key), began_at=began_at, used_at=used_at)


def flow_of(row: Any) -> FlowRecord:
    """A flow from a row with its fields in their order."""
    *columns, recorded = row
    known = dict(zip(FlowRecord.__struct_fields__, columns, strict=False))
    known["slug"], deleted, _ = known["slug"].partition(DELETED)
    return FlowRecord(**known, recorded=bool(recorded), deleted=bool(deleted))


def version_of(row: Any) -> FlowVersion:
    """A version from a row with its fields in their order."""
    return FlowVersion(version=row[0], created_at=row[1], imported=bool(row[2]))


def key_name(key_id: int, hint: str) -> str:
    """The name of a key in the audit log."""
    return f"key {key_id} ({hint})"


def describe(columns: Sequence[str], values: Sequence[Any]) -> dict[str, object]:
    """Columns as the audit log has them, under their names on the wire."""
    return dict(zip(map(_camel, columns), values, strict=True))


def entry_of(row: Any) -> AuditEntry:
    """An entry of the audit log from its row."""
    no, at, project, kind, key_id, name, address, action, subject, details = row
    return AuditEntry(
        id=no,
        at=at,
        project=project,
        actor=Actor(kind=msgspec.convert(kind, ActorKind), key_id=key_id, name=name, address=address),
        action=action,
        subject=subject,
        details=msgspec.json.decode(details),
    )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
