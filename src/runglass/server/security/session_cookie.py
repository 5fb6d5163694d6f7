"""The cookie of a signed-in browser: how it is set, found and taken back, and which key it stands for."""

from starlette.types import Scope

from runglass.errors import api_error
from runglass.server.security.browser_sessions import LIFETIME_S, BrowserSessions
from runglass.server.security.same_origin import header, is_encrypted, require_same_origin
from runglass.store.base import Store
from runglass.store.records import ApiKey


async def authenticate_browser(store: Store, sessions: BrowserSessions, scope: Scope) -> ApiKey | None:
    """The key of the session whose cookie the request has; None where it has no cookie.

    Raises UNAUTHENTICATED where the session has ended, FORBIDDEN where another site made the request, and
    StoreError.
    """
    session_id = session_of(scope)
    if session_id is None:
        return None
    require_same_origin(scope)
    session = sessions.find(session_id)
    if session is None:
        raise api_error("UNAUTHENTICATED", "the session has ended: sign in again")
    key = await store.key(session.project_id, session.key_id)
    if key is None or key.revoked_at is not None:
        sessions.end(session_id)
        raise api_error("UNAUTHENTICATED", "the API key of this session is revoked: sign in with another one")
    return key


async def has_session(store: Store, sessions: BrowserSessions, scope: Scope) -> bool:
    """Whether the request has the cookie of a session whose key is good. Raises StoreError."""
    session_id = session_of(scope)
    session = None if session_id is None else sessions.find(session_id)
    key = None if session is None else await store.key(session.project_id, session.key_id)
    return key is not None and key.revoked_at is None


def began_of(sessions: BrowserSessions, scope: Scope) -> float | None:
    """When the session began that makes the request; None where a key does."""
    session_id = None if header(scope, "authorization") is not None else session_of(scope)
    session = None if session_id is None else sessions.find(session_id)
    return None if session is None else session.began_s


def session_of(scope: Scope) -> str | None:
    """The session id in the request's cookie."""
    wanted = _name(scope)
    for cookie in (header(scope, "cookie") or "").split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == wanted and value:
            return value
    return None


def cookie_with(scope: Scope, session_id: str) -> str:
    """The `Set-Cookie` that signs a browser in. No script reads it, and no other site makes it be sent."""
    return _cookie(scope, session_id, round(LIFETIME_S))


def cookie_without(scope: Scope) -> str:
    """The `Set-Cookie` that makes a browser forget its session."""
    return _cookie(scope, "", 0)


def _cookie(scope: Scope, value: str, max_age_s: int) -> str:
    secure = "; Secure" if is_encrypted(scope) else ""
    return f"{_name(scope)}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"


def _name(scope: Scope) -> str:
    # Cookies know no ports: two servers on one machine would sign each other's browsers out.
    server = scope.get("server")
    return "runglass_session" if server is None else f"runglass_session_{server[1]}"
