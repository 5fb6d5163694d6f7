"""Whether a request that a browser signs with its cookie was made by our own page, and not by another site's.

`SameSite=Strict` keeps the cookie from other sites, but not from another port of the same machine. So a
request that changes something must say where it comes from, and none may come from elsewhere.
"""

from urllib.parse import urlsplit

from starlette.types import Scope

from runglass.errors import api_error

_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})


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


def is_encrypted(scope: Scope) -> bool:
    """Whether the browser speaks HTTPS, with the server or with what stands before it, as its page tells."""
    return (header(scope, "origin") or "").startswith("https://")


def host_of(scope: Scope) -> str:
    """The name or address in `Host`, without port and brackets; empty where it is none."""
    try:
        return urlsplit(f"//{header(scope, 'host') or ''}").hostname or ""
    except ValueError:
        return ""


def header(scope: Scope, name: str) -> str | None:
    """The first header of this name, which is given in lower case."""
    wanted = name.encode()
    return next((value.decode("latin-1") for each, value in scope["headers"] if each == wanted), None)


def _authority(origin: str) -> str | None:
    scheme, separator, authority = origin.partition("://")
    return authority.lower() if separator and scheme in ("http", "https") else None
