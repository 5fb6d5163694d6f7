"""Keys, one of which each request shows, and the browsers that have signed in with one.

A key itself is nowhere stored, only the digest by which it is found.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from runglass.errors import KeyLimitReached
from runglass.store.audit import note_change
from runglass.store.records import ApiKey, Role, ViewerSession
from runglass.store.statements import ALL_ROWS, Steps, StorePart, as_int, done, every, fetch, one
from runglass.wire.admin_api import SERVER, Actor

LOCAL_KEY = 0
"""The id of a key in memory, with which the terminal asks a server in its own process."""
PREFIX = "nk_"
"""How keys begin. A key has 256 random bits: nobody can guess it, so a plain hash is safe."""


class NewKey(NamedTuple):
    """A new key: `key` goes to its owner, `digest` and `hint`, how it begins, into the store."""

    key: str
    digest: bytes
    hint: str


def make_key() -> NewKey:
    """A key that reads `nk_live_<id>_<secret>`; all before the secret is its hint.

    Keys of older shapes stay good, as a key is found by its hash alone.
    """
    hint = f"{PREFIX}live_{secrets.token_hex(4)}"
    key = f"{hint}_{secrets.token_hex(32)}"
    return NewKey(key, digest_of(key), hint)


def digest_of(key: str) -> bytes:
    """The hash by which a key is found."""
    return hashlib.sha256(key.encode()).digest()


# Keys and sessions of one project are counted and added by one process at a time.
_LOCK = "SELECT id FROM project WHERE id = :project_id FOR NO KEY UPDATE"
_COLUMNS = "id, project_id, role, hint, created_at, revoked_at"
_KEY = f"SELECT {_COLUMNS} FROM api_key"
_SESSION = (
    f"SELECT session.digest, began_at, used_at, {', '.join(f'key.{name}' for name in _COLUMNS.split(', '))}"
    " FROM viewer_session AS session JOIN api_key AS key ON key.id = key_id WHERE session.digest = :digest"
)


class Keys(StorePart):
    """The part of the store that lets callers in."""

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
        """Keeps a new key. Raises KeyLimitReached where the project has `most` keys that are not revoked."""
        live = "SELECT count(*) FROM api_key WHERE project_id = :project_id AND revoked_at IS NULL"
        add = (
            "INSERT INTO api_key (project_id, role, digest, hint, created_at)"
            f" VALUES (:project_id, :role, :digest, :hint, now()) RETURNING {_COLUMNS}"
        )

        def work() -> Steps[ApiKey]:
            yield fetch(_LOCK, project_id=project_id)
            [(count,)] = yield fetch(live, project_id=project_id)
            if most is not None and count >= most:
                raise KeyLimitReached(
                    f"the limit of keys of this project, {most:,}, is reached: revoke some, or raise the"
                    " server's setting `max_keys_per_project`"
                )
            key: ApiKey
            [key] = yield every(_key_of, add, project_id=project_id, role=role, digest=digest, hint=hint)
            yield from note_change(project_id, by, "key.created", _name_of(key.id, hint), role=role)
            return key

        return await self._write(work)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """The key with this hash, revoked or not."""
        return await self._read_inline(one(_key_of, f"{_KEY} WHERE digest = :digest", digest=digest))

    async def keys(self, project_id: int, *, after: int = 0, limit: int = sys.maxsize) -> list[ApiKey]:
        """The project's keys behind id `after`, oldest first; without `limit` all of them."""
        sql = f"{_KEY} WHERE project_id = :project_id AND id > :after ORDER BY id LIMIT :most"
        return await self._read(every(_key_of, sql, project_id=project_id, after=after, most=limit))

    async def key(self, project_id: int, key_id: int) -> ApiKey | None:
        sql = f"{_KEY} WHERE project_id = :project_id AND id = :key_id"
        return await self._look_up(one(_key_of, sql, project_id=project_id, key_id=key_id))

    async def live_keys(self, key_ids: Iterable[int]) -> set[int]:
        """Those of these keys that are there and not revoked."""
        sql = "SELECT id FROM api_key WHERE revoked_at IS NULL AND id = ANY (:key_ids)"
        live = await self._look_up(every(as_int, sql, key_ids=list(key_ids)))
        return set(live)

    async def revoke_key(self, project_id: int, key_id: int, *, by: Actor = SERVER) -> bool:
        """Whether there was such a key and it was not revoked before."""
        sql = (
            "UPDATE api_key SET revoked_at = now() WHERE project_id = :project_id AND id = :key_id"
            " AND revoked_at IS NULL RETURNING hint, role"
        )

        def work() -> Steps[bool]:
            revoked = yield fetch(sql, project_id=project_id, key_id=key_id)
            for hint, role in revoked:
                yield from note_change(project_id, by, "key.revoked", _name_of(key_id, hint), role=role)
            return bool(revoked)

        return await self._write(work)

    async def add_viewer_session(
        self, session: ViewerSession, *, most_of_key: int, most_of_project: int
    ) -> None:
        """Keeps a new session. The one used longest ago goes where its key or project has so many."""
        key = session.key
        oldest = (
            "SELECT digest FROM viewer_session WHERE project_id = :project_id AND {0}"
            f" ORDER BY used_at DESC LIMIT {ALL_ROWS} OFFSET {{1}}"
        )

        def work() -> Steps[None]:
            yield fetch(_LOCK, project_id=key.project_id)
            yield done(
                "DELETE FROM viewer_session WHERE"
                f" digest IN ({oldest.format('key_id = :key_id', ':of_key')})"
                f" OR digest IN ({oldest.format('true', ':of_project')})",
                project_id=key.project_id,
                key_id=key.id,
                of_key=most_of_key - 1,
                of_project=most_of_project - 1,
            )
            yield done(
                "INSERT INTO viewer_session (digest, project_id, key_id, began_at, used_at)"
                " VALUES (:digest, :project_id, :key_id, :began_at, :used_at)",
                **msgspec.structs.asdict(session),
                project_id=key.project_id,
                key_id=key.id,
            )

        await self._write(work)

    async def viewer_session(self, digest: bytes) -> ViewerSession | None:
        """The session with this hash and its key, revoked or not: one look-up for both."""
        return await self._read_inline(one(_session_of, _SESSION, digest=digest))

    async def use_viewer_session(self, digest: bytes, used_at: str) -> None:
        """Notes when the session was used last."""
        sql = "UPDATE viewer_session SET used_at = :used_at WHERE digest = :digest"
        await self._write(done(sql, used_at=used_at, digest=digest))

    async def end_viewer_session(self, digest: bytes) -> None:
        """Forgets the session, if there is one."""
        sql = "DELETE FROM viewer_session WHERE digest = :digest"
        await self._write(done(sql, digest=digest))


def _key_of(row: Any) -> ApiKey:
    return ApiKey(**dict(zip(ApiKey.__struct_fields__, row, strict=True)))


def _session_of(row: Any) -> ViewerSession:
    digest, began_at, used_at, *key = row
    return ViewerSession(digest=digest, key=_key_of(key), began_at=began_at, used_at=used_at)


def _name_of(key_id: int, hint: str) -> str:
    """The name of a key in the audit log."""
    return f"key {key_id} ({hint})"
