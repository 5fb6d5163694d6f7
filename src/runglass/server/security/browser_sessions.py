"""Browsers that have signed in: a session in two halves stands for the key, which a browser need not keep.

One half is a cookie. Cookies know no ports: a server on another port of this host gets it, and could send it
again. So the other half, the proof, is kept in the `localStorage` of our pages, which no other origin reads,
and comes in a header. The store has one hash of both: the cookie alone is worth nothing, nor is a backup.
Each request looks its key up, so a session is worth nothing from the moment on at which the key is revoked.

`SameSite=Strict` keeps the cookie from other sites, but not from another port of the same machine. So a
request that changes something must say where it comes from, and none may come from elsewhere.
"""

import logging
import secrets
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.types import Scope

from runglass.errors import StoreError, api_error
from runglass.store.catalog import Catalog
from runglass.store.keys import digest_of
from runglass.store.records import ApiKey, ViewerSession
from runglass.support.clock import Clock, iso

log = logging.getLogger(__name__)

PROOF = "X-Viewer-Proof"
"""The header with a session's second half: of the response that begins it, and of each request."""
IDLE = timedelta(hours=12)
"""How long a session lasts without a request."""
LIFETIME = timedelta(days=7)
"""How long a session lasts at most."""
NOTED_EVERY = timedelta(minutes=5)
"""Its use is written down no more often, so that pages that are read hardly write to the store."""
MOST_COOKIES = 8
"""Another port can set some of our name, too; browsers send those of longer paths before ours."""
MOST_OF_PROJECT = 1000
MOST_OF_KEY = 50
"""Sessions of one key; with one more, the one that was used longest ago ends."""


_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})


class NewSession(NamedTuple):
    """The halves of a session that has begun: 256 random bits each."""

    cookie: str
    proof: str


class BrowserSessions:
    """The sessions of a store, which all of its servers share."""

    def __init__(self, store: Catalog, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def begin(self, key: ApiKey, *, began_at: str | None = None) -> NewSession:
        """A new session of the key. Raises StoreError.

        `began_at` is when the session began that asks for this one, which lasts no longer than that.
        """
        session = NewSession(cookie=secrets.token_urlsafe(32), proof=secrets.token_urlsafe(32))
        now = iso(self._clock.now())
        kept = ViewerSession(digest=_digest(*session), key=key, began_at=began_at or now, used_at=now)
        await self._store.add_viewer_session(kept, most_of_key=MOST_OF_KEY, most_of_project=MOST_OF_PROJECT)
        return session

    async def find(self, scope: Scope) -> ViewerSession | None:
        """The session whose cookie and proof the request has, which counts as used; None without a cookie.

        Raises UNAUTHENTICATED where it has ended, or the proof is missing or of another session, FORBIDDEN
        where another site made the request, and StoreError.
        """
        cookies = _cookies_of(scope)
        if not cookies:
            return None
        require_same_origin(scope)
        proof, now, session = header(scope, PROOF.lower()), self._clock.now(), None
        while proof is not None and cookies and session is None:
            session = await self._store.viewer_session(_digest(cookies.pop(), proof))
        if (
            session is None
            or session.used_at < iso(now - IDLE - NOTED_EVERY)
            or session.began_at < iso(now - LIFETIME)
        ):
            raise api_error("UNAUTHENTICATED", "the session has ended: sign in again")
        if session.key.revoked_at is not None:
            message = "the API key of this session is revoked: sign in with another one"
            raise api_error("UNAUTHENTICATED", message)
        if session.used_at < iso(now - NOTED_EVERY):
            try:
                await self._store.use_viewer_session(session.digest, iso(now))
            except StoreError as error:
                # Runs can be read from a disk that is full.
                log.warning("the use of a browser's session was not noted: %s", error)
        return session


def cookie_with(scope: Scope, cookie: str) -> str:
    """The `Set-Cookie` that signs a browser in. No script reads it, and no other site makes it be sent."""
    return _set_cookie(scope, cookie, round(LIFETIME.total_seconds()))


def cookie_without(scope: Scope) -> str:
    """The `Set-Cookie` that makes a browser forget its session."""
    return _set_cookie(scope, "", 0)


def _digest(cookie: str, proof: str) -> bytes:
    return digest_of(f"{cookie} {proof}")


def _cookies_of(scope: Scope) -> list[str]:
    """The last ones of our name."""
    wanted, found = _name(scope), list[str]()
    for cookie in (header(scope, "cookie") or "").split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == wanted and value:
            found.append(value)
    return found[-MOST_COOKIES:]


def _set_cookie(scope: Scope, value: str, max_age_s: int) -> str:
    # The browser speaks HTTPS, with the server or with what stands before it, as its page tells.
    secure = "; Secure" if (header(scope, "origin") or "").startswith("https://") else ""
    return f"{_name(scope)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"


def _name(scope: Scope) -> str:
    # Two servers on one host would sign each other's browsers out, as cookies know no ports. The port is that
    # which the browser sees: behind a balancer each server listens on another one.
    port = (header(scope, "host") or "").rpartition(":")[2]
    return f"runglass_session_{port}" if port.isdecimal() else "runglass_session"


def require_same_origin(scope: Scope) -> None:
    """Raises FORBIDDEN for a request by cookie that another site made, or that does not say who did."""
    site, origin = header(scope, "sec-fetch-site"), header(scope, "origin")
    if site is not None:
        # A browser sets it, and no page can: `none` is what somebody typed, which changes nothing.
        is_own = site == "same-origin" or (site == "none" and scope["method"] in _CHANGES_NOTHING)
    elif origin is not None:
        is_own = _authority(origin) == (header(scope, "host") or "").lower()
    else:
        is_own = scope["method"] in _CHANGES_NOTHING
    if not is_own:
        raise api_error(
            "FORBIDDEN",
            "a request with the viewer's cookie must come from the viewer's own pages: `Origin` must be this"
            " server's; programs send `Authorization: Bearer nk_…` instead",
        )


def require_own_navigation(scope: Scope) -> None:
    """Raises FORBIDDEN where another site leads the browser here, as far as the browser says so.

    A link that signs in must be opened by whoever is to be signed in: another site would let its readers work
    under a key of its own.
    """
    if header(scope, "sec-fetch-site") in ("cross-site", "same-site"):
        raise api_error(
            "FORBIDDEN", "another site has led here: open the link by itself, or sign in with a key"
        )


def host_of(scope: Scope) -> str:
    """The name or address in `Host`, without port and brackets; empty where it is none."""
    try:
        return urlsplit(f"//{header(scope, 'host') or ''}").hostname or ""
    except ValueError:
        return ""


def header(scope: Scope, name: str) -> str | None:
    """The first header of this name, which is given in lower case."""
    wanted = name.encode()
    for each, value in scope["headers"]:
        if each == wanted:
            return str(value, "latin-1")
    return None


def _authority(origin: str) -> str | None:
    scheme, separator, authority = origin.partition("://")
    return authority.lower() if separator and scheme in ("http", "https") else None
