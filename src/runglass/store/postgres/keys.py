"""Keys in PostgreSQL, one of which each request shows, and the browsers that have signed in with one."""

from collections.abc import Iterable

from runglass.admin_api import SERVER, Actor
from runglass.errors import KeyLimitReached
from runglass.store.catalog_records import KEY, VIEWER_SESSION, key_name, key_of, viewer_session_of
from runglass.store.postgres.audit import note_change
from runglass.store.postgres.connections import Connections, Db
from runglass.store.postgres.sql_helpers import NOW, as_int, changed, every, one
from runglass.store.records import ApiKey, Role, ViewerSession


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
        async def work(db: Db) -> ApiKey:
            # Keys of one project are counted and added by one process at a time.
            await db.execute("SELECT FROM project WHERE id = $1 FOR NO KEY UPDATE", project_id)
            live = "SELECT count(*) FROM api_key WHERE project_id = $1 AND revoked_at IS NULL"
            if most is not None and await db.fetchval(live, project_id) >= most:
                raise KeyLimitReached(
                    f"the limit of keys of this project, {most:,}, is reached: revoke some, or raise the"
                    " server's setting `max_keys_per_project`"
                )
            row = await db.fetchrow(
                "INSERT INTO api_key (project_id, role, digest, hint, created_at)"
                f" VALUES ($1, $2, $3, $4, {NOW})"
                " RETURNING id, project_id, role, hint, created_at, revoked_at",
                *(project_id, role, digest, hint),
            )
            key = key_of(row)
            await note_change(db, project_id, by, "key.created", key_name(key.id, hint), role=role)
            return key

        return await self._db.write(work)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return await self._db.read(one(key_of, f"{KEY} WHERE digest = $1", digest))

    async def keys(self, project_id: int, *, after: int = 0, limit: int | None = None) -> list[ApiKey]:
        sql = f"{KEY} WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3"
        return await self._db.read(every(key_of, sql, project_id, after, limit))

    async def key(self, project_id: int, key_id: int) -> ApiKey | None:
        return await self._db.read(
            one(key_of, f"{KEY} WHERE project_id = $1 AND id = $2", project_id, key_id)
        )

    async def live_keys(self, key_ids: Iterable[int]) -> set[int]:
        sql = "SELECT id FROM api_key WHERE revoked_at IS NULL AND id = ANY ($1)"
        return set(await self._db.read(every(as_int, sql, list(key_ids))))

    async def revoke_key(self, project_id: int, key_id: int, *, by: Actor = SERVER) -> bool:
        async def work(db: Db) -> bool:
            row = await db.fetchrow(
                f"UPDATE api_key SET revoked_at = {NOW}"
                " WHERE project_id = $1 AND id = $2 AND revoked_at IS NULL"
                " RETURNING hint, role",
                *(project_id, key_id),
            )
            if row is None:
                return False
            hint, role = row
            await note_change(db, project_id, by, "key.revoked", key_name(key_id, hint), role=role)
            return True

        return await self._db.write(work)

    async def add_viewer_session(
        self, session: ViewerSession, *, most_of_key: int, most_of_project: int
    ) -> None:
        key = session.key

        async def work(db: Db) -> None:
            # Sessions of one project are counted and added by one process at a time.
            await db.execute("SELECT FROM project WHERE id = $1 FOR NO KEY UPDATE", key.project_id)
            oldest = (
                "SELECT digest FROM viewer_session WHERE project_id = $1 AND {0}"
                " ORDER BY used_at DESC OFFSET {1}"
            )
            await db.execute(
                f"DELETE FROM viewer_session WHERE digest IN ({oldest.format('key_id = $2', '$3')})"
                f" OR digest IN ({oldest.format('true', '$4')})",
                *(key.project_id, key.id, most_of_key - 1, most_of_project - 1),
            )
            await db.execute(
                "INSERT INTO viewer_session (digest, project_id, key_id, began_at, used_at)"
                " VALUES ($1, $2, $3, $4, $5)",
                *(session.digest, key.project_id, key.id, session.began_at, session.used_at),
            )

        await self._db.write(work)

    async def viewer_session(self, digest: bytes) -> ViewerSession | None:
        return await self._db.read(
            one(viewer_session_of, f"{VIEWER_SESSION} WHERE session.digest = $1", digest)
        )

    async def use_viewer_session(self, digest: bytes, used_at: str) -> None:
        sql = "UPDATE viewer_session SET used_at = $1 WHERE digest = $2"
        await self._db.write(changed(sql, used_at, digest))

    async def end_viewer_session(self, digest: bytes) -> None:
        await self._db.write(changed("DELETE FROM viewer_session WHERE digest = $1", digest))
