"""The audit log: changes of a project, each with its actor and its origin.

An entry is written in the transaction of its change, so neither stands without the other. Triggers of the
table refuse to change or delete one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from runglass.store.statements import Steps, StorePart, Work, done, every, fetch
from runglass.wire.admin_api import Actor, ActorKind, AuditEntry

_ENTRY = "SELECT no, at, project, actor, key_id, name, address, action, subject, details FROM audit"
_LABEL = "(SELECT org || '/' || name FROM project WHERE id = :project_id)"


class Audit(StorePart):
    """The part of the store that remembers changes."""

    async def audit(
        self,
        project_id: int | None,
        *,
        before: int | None = None,
        since: str | None = None,
        action: str | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        """Entries of the audit log, newest first, from the one before id `before` on.

        `project_id` None: of every project. `since` is an ISO time as the store writes them.
        """
        values = {"project_id": project_id, "no": before, "at": since, "action": action}
        signs = {"project_id": "=", "no": "<", "at": ">=", "action": "="}
        asked = [f"{name} {signs[name]} :{name}" for name, value in values.items() if value is not None]
        where = f" WHERE {' AND '.join(asked)}" if asked else ""
        sql = f"{_ENTRY}{where} ORDER BY no DESC LIMIT :limit"
        return await self._read(every(_entry_of, sql, **values, limit=limit))


def note_change(
    project_id: int, by: Actor, action: str, subject: str | None = None, **details: Any
) -> Steps[None]:
    """Writes an entry, as a part of the change that it is about. `subject` None is the project itself."""
    yield done(
        "INSERT INTO audit (at, project_id, project, actor, key_id, name, address, action, subject, details)"
        f" VALUES (now(), :project_id, coalesce({_LABEL}, ''), :kind, :key_id, :name, :address, :action,"
        f" coalesce(:subject, {_LABEL}, ''), :details)",
        **msgspec.structs.asdict(by),
        project_id=project_id,
        action=action,
        subject=subject,
        details=msgspec.json.encode(details),
    )


def change_project(project_id: int, by: Actor, action: str, **columns: Any) -> Work[None]:
    """Sets columns of the project; where one has another value then, an entry tells both."""

    def work() -> Steps[None]:
        sql = f"SELECT {', '.join(columns)} FROM project WHERE id = :project_id FOR NO KEY UPDATE"
        for row in (yield fetch(sql, project_id=project_id)):
            if tuple(row) == tuple(columns.values()):
                return
            settings = ", ".join(f"{name} = :{name}" for name in columns)
            sql = f"UPDATE project SET {settings} WHERE id = :project_id"
            yield done(sql, project_id=project_id, **columns)
            before, after = (describe(list(columns), values) for values in (row, list(columns.values())))
            yield from note_change(project_id, by, action, before=before, after=after)

    return work


def describe(columns: Sequence[str], values: Sequence[Any]) -> dict[str, object]:
    """Columns as the audit log has them, under their names on the wire."""
    return dict(zip(map(_camel, columns), values, strict=True))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _entry_of(row: Any) -> AuditEntry:
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
