"""Keys in SQLite, one of which each request shows, and the browsers that have signed in with one."""

import sqlite3
from collections.abc import Iterable

import msgspec

from runglass.admin_api import SERVER, Actor
from runglass.errors import KeyLimitReached
from runglass.store.catalog_records import KEY, VIEWER_SESSION, key_name, key_of, viewer_session_of
from runglass.store.records import ApiKey, Role, ViewerSession
from runglass.store.sqlite.audit import note_change
from runglass.store.sqlite.connections import Connections
from runglass.store.sqlite.sql_helpers import changed, every, now_text, one


class Keys:
    """The part of the store that lets callers in."""

    _db: Connections

    async def add_key(
        self,
        project_id: int,
        role: Role,
        digest: bytes,
        hint: str,
        *,
        most: int | None = None,
        by: Actor = SERVER,
    ) -> ApiKey:
        def work(db: sqlite3.Connection) -> ApiKey:
            live = "SELECT count(*) FROM api_key WHERE project_id = ? AND revoked_at IS NULL"
            if most is not None and db.execute(live, (project_id,)).fetchone()[0] >= most:
                raise KeyLimitReached(
                    f"the limit of keys of this project, {most:,}, is reached: revoke some, or raise the"
                    " server's setting `max_keys_per_project`"
                )
            inserted = db.execute(
                "INSERT INTO api_key (project_id, role, digest, hint, created_at) VALUES (?, ?, ?, ?, ?)",
                (project_id, role, digest, hint, now_text()),
            )
            key = key_of(db.execute(f"{KEY} WHERE id = ?", (inserted.lastrowid,)).fetchone())
            note_change(db, project_id, by, "key.created", key_name(key.id, hint), role=role)
            return key

        return await self._db.write(work)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return await self._db.read_inline(one(key_of, f"{KEY} WHERE digest = ?", digest))

    async def keys(self, project_id: int, *, after: int = 0, limit: int | None = None) -> list[ApiKey]:
        sql = f"{KEY} WHERE project_id = ? AND id > ? ORDER BY id LIMIT ?"
        return await self._db.read(every(key_of, sql, project_id, after, -1 if limit is None else limit))

    async def key(self, project_id: int, key_id: int) -> ApiKey | None:
        sql = f"{KEY} WHERE project_id = ? AND id = ?"
        return await self._db.look_up(one(key_of, sql, project_id, key_id))

    async def live_keys(self, key_ids: Iterable[int]) -> set[int]:
        sql = "SELECT id FROM api_key WHERE revoked_at IS NULL AND id IN (SELECT value FROM json_each(?))"
        ids = msgspec.json.encode(list(key_ids)).decode()
        return set(await self._db.look_up(every(lambda row: int(row[0]), sql, ids)))

    async def revoke_key(self, project_id: int, key_id: int, *, by: Actor = SERVER) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            row = db.execute(
                "UPDATE api_key SET revoked_at = ? WHERE project_id = ? AND id = ? AND revoked_at IS NULL"
                " RETURNING hint, role",
                (now_text(), project_id, key_id),
            ).fetchone()
            if row is None:
                return False
            note_change(db, project_id, by, "key.revoked", key_name(key_id, row[0]), role=row[1])
            return True

        return await self._db.write(work)

    async def add_viewer_session(
        self, session: ViewerSession, *, most_of_key: int, most_of_project: int
    ) -> None:
        key = session.key

        def work(db: sqlite3.Connection) -> None:
            oldest = (
                "SELECT digest FROM viewer_session WHERE project_id = ? AND {0} ORDER BY used_at DESC"
                " LIMIT -1 OFFSET ?"
            )
            db.execute(
                f"DELETE FROM viewer_session WHERE digest IN ({oldest.format('key_id = ?')})"
                f" OR digest IN ({oldest.format('true')})",
                (key.project_id, key.id, most_of_key - 1, key.project_id, most_of_project - 1),
            )
            db.execute(
                "INSERT INTO viewer_session (digest, project_id, key_id, began_at, used_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (session.digest, key.project_id, key.id, session.began_at, session.used_at),
            )

        await self._db.write(work)

    async def viewer_session(self, digest: bytes) -> ViewerSession | None:
        return await self._db.read_inline(
            one(viewer_session_of, f"{VIEWER_SESSION} WHERE session.digest = ?", digest)
        )

    async def use_viewer_session(self, digest: bytes, used_at: str) -> None:
        sql = "UPDATE viewer_session SET used_at = ? WHERE digest = ?"
        await self._db.write(changed(sql, used_at, digest))

    async def end_viewer_session(self, digest: bytes) -> None:
        await self._db.write(changed("DELETE FROM viewer_session WHERE digest = ?", digest))
