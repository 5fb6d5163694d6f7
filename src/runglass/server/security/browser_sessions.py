"""Browsers that have signed in: a random session id stands for the key, which a browser need not keep.

Sessions are in this process's memory and not in the store. Nothing is to be stolen from a backup, no page
that is read writes to the database, and a restart only asks for the key again. Each request looks the key up,
so a session is worth nothing from the moment on at which its key is revoked.
"""

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from runglass.api_keys import digest_of
from runglass.server.security.held_credentials import HeldCredentials
from runglass.store.records import ApiKey

IDLE_S = 12 * 3600.0
"""How long a session lasts without a request."""
LIFETIME_S = 7 * 24 * 3600.0
"""How long a session lasts at most."""
MOST_SESSIONS = 10_000
MOST_OF_PROJECT = 1000
MOST_OF_KEY = 50
"""Sessions of one key; with one more, the one that was used longest ago ends."""


class SignedIn(NamedTuple):
    """A session: whose it is, and when it began and was last used, in seconds of the clock."""

    project_id: int
    key_id: int
    began_s: float
    used_s: float


class BrowserSessions:
    """The sessions of one server. `clock` gives seconds that never go back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions = HeldCredentials[SignedIn](
            most=MOST_SESSIONS, most_of_project=MOST_OF_PROJECT, most_of_key=MOST_OF_KEY
        )

    def __len__(self) -> int:
        """How many are remembered, those that have run out included."""
        return len(self._sessions)

    def begin(self, key: ApiKey, *, began_s: float | None = None) -> str:
        """A new session of the key: its id, 256 random bits.

        `began_s` is when the session began that asks for this one, which lasts no longer than that.
        """
        session_id, now_s = secrets.token_urlsafe(32), self._clock()
        session = SignedIn(key.project_id, key.id, now_s if began_s is None else began_s, now_s)
        self._sessions.add(digest_of(session_id), session)
        return session_id

    def find(self, session_id: str) -> SignedIn | None:
        """The session with this id, which counts as used; None where it has ended."""
        digest, now_s = digest_of(session_id), self._clock()
        session = self._sessions.get(digest)
        if session is None:
            return None
        if now_s - session.used_s > IDLE_S or now_s - session.began_s > LIFETIME_S:
            self._sessions.pop(digest)
            return None
        self._sessions.use(digest, session._replace(used_s=now_s))
        return session

    def end(self, session_id: str) -> None:
        """Ends the session, if there is one."""
        self._sessions.pop(digest_of(session_id))
