"""The audit log: changes of a project, each with its actor and its origin.

An entry is written in the transaction of its change, so neither stands without the other. Triggers of the
table refuse to change or delete one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from runglass.store.catalog_records import describe, entry_of
from runglass.store.statements import Statements, Steps, Work, every
from runglass.wire.admin_api import Actor, AuditEntry

_ENTRY = "SELECT no, at, project, actor, key_id, name, address, action, subject, details FROM audit"
_LABEL = "(SELECT org || '/' || name FROM project WHERE id = ?1)"


class Audit:
    """The part of the store that remembers changes."""

    _statements: Statements

    async def audit(
        self,
        project_id: int | None,
        *,
        before: int | None = None,
        since: str | None = None,
        action: str | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        where, values = ["true"], list[int | str]()
        filters = (("project_id =", project_id), ("no <", before), ("at >=", since), ("action =", action))
        for condition, value in filters:
            if value is not None:
                values.append(value)
                where.append(f"{condition} ?{len(values)}")
        sql = f"{_ENTRY} WHERE {' AND '.join(where)} ORDER BY no DESC LIMIT ?{len(values) + 1}"
        return await self._statements.read(every(entry_of, sql, *values, limit))


def note_change(
    project_id: int, by: Actor, action: str, subject: str | None = None, **details: Any
) -> Steps[None]:
    """Writes an entry, as a part of the change that it is about. `subject` None is the project itself."""
    yield (
        "INSERT INTO audit (at, project_id, project, actor, key_id, name, address, action, subject, details)"
        f" VALUES (now(), ?1, coalesce({_LABEL}, ''), ?2, ?3, ?4, ?5, ?6, coalesce(?7, {_LABEL}, ''), ?8)",
        *(project_id, by.kind, by.key_id, by.name, by.address, action, subject),
        msgspec.json.encode(details),
    )


def change_project(project_id: int, by: Actor, action: str, **columns: Any) -> Work[None]:
    """Sets columns of the project; where one has another value then, an entry tells both."""

    def work() -> Steps[None]:
        sql = f"SELECT {', '.join(columns)} FROM project WHERE id = ?1 FOR NO KEY UPDATE"
        for row in (yield sql, project_id):
            if tuple(row) == tuple(columns.values()):
                return
            settings = ", ".join(f"{name} = ?{number}" for number, name in enumerate(columns, 2))
            yield (f"UPDATE project SET {settings} WHERE id = ?1", project_id, *columns.values())
            before, after = (describe(list(columns), values) for values in (row, list(columns.values())))
            yield from note_change(project_id, by, action, before=before, after=after)

    return work
