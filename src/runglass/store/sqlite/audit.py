"""The audit log in SQLite: changes of a project, each with its actor and its origin.

An entry is written in the transaction of its change, so neither stands without the other. Triggers of the
table refuse to change or delete one.
"""

import sqlite3
from typing import Any

import msgspec

from runglass.admin_api import Actor, AuditEntry
from runglass.store.catalog_records import entry_of, told_of
from runglass.store.sqlite.connections import Connections, Work
from runglass.store.sqlite.sql_helpers import every, now_text

_ENTRY = "SELECT no, at, project, actor, key_id, name, address, action, subject, details FROM audit"


class Audit:
    """The part of the store that remembers changes."""

    _db: Connections

    async def audit(
        self,
        project_id: int | None,
        *,
        before: int | None = None,
        since: str | None = None,
        action: str | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        where, values = ["1"], list[int | str]()
        filters = (
            ("project_id = ?", project_id),
            ("no < ?", before),
            ("at >= ?", since),
            ("action = ?", action),
        )
        for condition, value in filters:
            if value is not None:
                where.append(condition)
                values.append(value)
        sql = f"{_ENTRY} WHERE {' AND '.join(where)} ORDER BY no DESC LIMIT ?"
        return await self._db.read(every(entry_of, sql, *values, limit))


def note_change(
    db: sqlite3.Connection,
    project_id: int,
    by: Actor,
    action: str,
    subject: str | None = None,
    **details: Any,
) -> None:
    """Writes an entry, as a part of the change that it is about. `subject` None is the project itself."""
    found = db.execute("SELECT org || '/' || name FROM project WHERE id = ?", (project_id,)).fetchone()
    project = "" if found is None else found[0]
    values = (now_text(), project_id, project, by.kind, by.key_id, by.name, by.address, action)
    db.execute(
        "INSERT INTO audit (at, project_id, project, actor, key_id, name, address, action, subject, details)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, project if subject is None else subject, msgspec.json.encode(details)),
    )


def change_project(project_id: int, by: Actor, action: str, **columns: float | str | None) -> Work[None]:
    """Sets columns of the project; where one has another value then, an entry tells both."""

    def work(db: sqlite3.Connection) -> None:
        sql = f"SELECT {', '.join(columns)} FROM project WHERE id = ?"
        row = db.execute(sql, (project_id,)).fetchone()
        if row is None or row == tuple(columns.values()):
            return
        settings = ", ".join(f"{name} = ?" for name in columns)
        db.execute(f"UPDATE project SET {settings} WHERE id = ?", (*columns.values(), project_id))
        before, after = (told_of(list(columns), values) for values in (row, list(columns.values())))
        note_change(db, project_id, by, action, before=before, after=after)

    return work
