"""The server and the key of a client: arguments and environment, checked once at construction.

Without these checks a mistake would show up as a puzzling network error on the first call. Knows nothing of
calls and of the HTTP library.
"""

import math
import os
import re
import uuid
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from runglass import __version__
from runglass.errors import api_error
from runglass.support.safe_text import is_whole

API_PATH = "/api/v1"
"""The path of the API on a server without a proxy, which a base URL may leave out."""

SESSION_HEADER = "X-Session-Id"

DEFAULT_BASE_URL = f"http://localhost:8080{API_PATH}"

_KEY = re.compile(r"nk_[!-~]+")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
PLAIN = re.compile(
    rf"https?://(?:(?:[a-z0-9_-]+\.)*[a-z][a-z0-9_-]*|(?:{_OCTET}\.){{3}}{_OCTET})(?::[0-9]+)?(?:/[a-z0-9._~/-]*)?",
    re.ASCII | re.IGNORECASE,
)
_PLAIN_CHARS = 1000
_ENDLESS_S = 1e9
"""Sockets and locks take no number of seconds that is ten times as large."""


class ServerConnection(msgspec.Struct, frozen=True, kw_only=True):
    """A server, and the options of every call to it. `timeout_s` is infinite where there is no bound."""

    base_url: str
    api_key: str
    timeout_s: float
    max_retries: int
    session_id: str | None = None

    def __repr__(self) -> str:
        # The key must not reach logs and tracebacks.
        return f"Endpoint({self.base_url!r})"

    @property
    def is_plain(self) -> bool:
        """Whether the URL is plainly valid: short, with a host name in ASCII or an IPv4 address."""
        return len(self.base_url) <= _PLAIN_CHARS and PLAIN.fullmatch(self.base_url) is not None

    def headers(self) -> dict[str, str]:
        """The headers of every request, unless it has its own."""
        return {
            "Authorization": f"Bearer {self.api_key}",
            "User-Agent": f"runglass/{__version__}",
            "Accept": "application/json",
            **session_header(self.session_id),
        }

    def bound_s(self, timeout: float | None) -> float:
        """The wall-clock bound of a call in seconds: its own `timeout`, else the client's."""
        return self.timeout_s if timeout is None else seconds_of(timeout)


def session_header(session_id: str | uuid.UUID | None) -> dict[str, str]:
    """The header that tags runs with a session; none for None. Raises ValueError unless it is a UUID."""
    if session_id is None:
        return {}
    try:
        return {SESSION_HEADER: str(uuid.UUID(str(session_id)))}
    except ValueError as error:
        raise ValueError(
            f"session_id must be a UUID, such as uuid.uuid4() makes, not {session_id!r}"
        ) from error


def endpoint(
    *,
    api_key: str | None,
    base_url: str | None,
    timeout: float | None,
    max_retries: int,
    session_id: str | uuid.UUID | None = None,
    environ: Mapping[str, str] = os.environ,
) -> ServerConnection:
    """The endpoint from a client's arguments, with the environment filling in for None.

    Raises AuthenticationError for a key that is missing or cannot be one, ValueError for anything else.
    """
    if not _is_number(max_retries, int) or max_retries < 0:
        raise ValueError(f"max_retries must be a whole number, 0 or more, not {max_retries!r}")
    base_url = _base_url(base_url or environ.get("RUNGLASS_BASE_URL") or DEFAULT_BASE_URL)
    key = api_key or environ.get("RUNGLASS_API_KEY")
    if key is None:
        raise api_error(
            "UNAUTHENTICATED",
            "there is no API key: pass `api_key`, set RUNGLASS_API_KEY, "
            "or make one with `runglass keys create ORG/PROJECT`",
        )
    key = key.strip()
    if _KEY.fullmatch(key) is None:
        raise api_error(
            "UNAUTHENTICATED",
            "the API key cannot be a Runglass key: one starts with `nk_` and has no spaces; "
            "was another service's key passed, or a shell variable left empty?",
        )
    return ServerConnection(
        base_url=base_url,
        api_key=key,
        timeout_s=bound_s(timeout),
        max_retries=max_retries,
        session_id=session_header(session_id).get(SESSION_HEADER),
    )


def _base_url(url: str) -> str:
    """The URL before every call's path: as given, or with `/api/v1` where it has no path."""
    wrong = f"base_url {url!r} cannot be used: "
    if not is_whole(url):
        raise ValueError(f"{wrong}it is not UTF-8 text")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{wrong}{error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{wrong}write it like {DEFAULT_BASE_URL!r}")
    if (
        re.search(r"\s", parts.netloc + parts.path)
        or parts.query
        or parts.fragment
        or parts.username is not None
    ):
        raise ValueError(f"{wrong}it may not hold spaces, a query, a fragment or a user name")
    url = parts.geturl().rstrip("/")
    # A proxy may have put the API anywhere, so a path is taken as it is given.
    return url if parts.path.strip("/") else f"{url}{API_PATH}"


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def seconds_of(timeout: float) -> float:
    """A bound in seconds, as a caller gives it. Raises ValueError unless it is a number of seconds."""
    if not _is_number(timeout, int, float) or not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, or inf for no bound, not {timeout!r}")
    return math.inf if timeout >= _ENDLESS_S else float(timeout)


def bound_s(timeout: float | None) -> float:
    """The same for a bound that may be None: then there is none. Raises as `seconds_of` does."""
    return math.inf if timeout is None else seconds_of(timeout)
