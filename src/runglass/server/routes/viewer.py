"""The viewer: its page and files, and how a browser signs in with a key and out again."""

from starlette.responses import Response

import runglass
from runglass.errors import api_error
from runglass.limits.offload import offload_in_turn
from runglass.server.api_request import ApiRequest
from runglass.server.requests.body import answer, body_of
from runglass.server.requests.body_parsing import read_body
from runglass.server.routes.outline import accepts_gzip
from runglass.server.routes.payload import names_tag
from runglass.server.security.browser_sessions import (
    PROOF,
    cookie_with,
    cookie_without,
    require_own_navigation,
)
from runglass.server.security.login_tickets import TICKET_S, is_from_this_machine
from runglass.server.viewer.assets import PAGE_HEADERS, Asset, Assets, assets
from runglass.wire.admin_api import TicketRequest, ViewerTicket

FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


async def page(request: ApiRequest, **path: str) -> Response:
    """The page, whatever it shows: the browser makes it of the API's answers."""
    found = await _assets()
    return _file(request, found.shell, etag=found.digest, cache=ASK_AGAIN)


async def file(request: ApiRequest, digest: str, file: str) -> Response:
    """A module, a style or a library of the viewer."""
    found = await _assets()
    asset = found.by_path.get(file)
    if asset is None:
        raise api_error("NOT_FOUND", f"the viewer has no file {file!r}")
    # A page that was open through an upgrade still asks for files of its own version.
    is_current = digest == found.digest
    return _file(request, asset, etag=found.digest, cache=FOR_EVER if is_current else ASK_AGAIN)


async def sign_in(request: ApiRequest) -> Response:
    """Begins a session for the browser that asks, which takes the place of the key from then on.

    Each request needs its two halves: the cookie, and the header `X-Viewer-Proof` as this response has it. It
    ends after twelve hours without a request, after a week, and at once when the key is revoked. One that is
    begun by another one ends no later than that.
    """
    session = await request.services.sessions.begin(request.auth, began_at=_began_at(request))
    headers = {"set-cookie": cookie_with(request.scope, session.cookie), PROOF: session.proof}
    return Response(status_code=204, headers=headers)


async def sign_out(request: ApiRequest) -> Response:
    """Ends the session that asks for it, and takes its cookie back."""
    if (session := request.viewer_session) is not None:
        await request.services.runtime.store.end_viewer_session(session.digest)
    return Response(status_code=204, headers={"set-cookie": cookie_without(request.scope)})


async def me(request: ApiRequest) -> Response:
    """The key that asks, its role and its project."""
    key = request.auth
    project = await request.services.runtime.store.project(key.project_id)
    if project is None:
        raise api_error("UNAUTHENTICATED", "the project of the API key is gone")
    return answer(
        {
            "role": key.role,
            "org": project.org,
            "project": project.name,
            "keyName": key.hint,
            "version": runglass.__version__,
        }
    )


async def ticket(request: ApiRequest) -> Response:
    """Makes a link that signs a browser on the server's own machine in: once, within a minute."""
    asked = read_body(await body_of(request), TicketRequest)
    path = request.services.tickets.issue(request.auth, asked.page, began_at=_began_at(request))
    return answer(ViewerTicket(path=path, expires_in_s=TICKET_S), status=201)


async def redeem_ticket(request: ApiRequest, ticket: str) -> Response:
    """Signs the browser in and leads it to the ticket's page; one worth nothing leads to the sign-in."""
    if not is_from_this_machine(request.scope):
        message = "a ticket signs in a browser on the server's own machine, and no other: sign in with a key"
        raise api_error("FORBIDDEN", message)
    require_own_navigation(request.scope)
    if request.is_head:
        # Who only looks where a link leads, such as a preview of it, must not use it up.
        return Response(status_code=204, headers=PAGE_HEADERS)
    found = request.services.tickets.redeem(ticket)
    key = found and await request.services.runtime.store.key(found.project_id, found.key_id)
    headers = {"location": "/?ticket=used", **PAGE_HEADERS}
    if found is not None and key is not None and key.revoked_at is None:
        session = await request.services.sessions.begin(key, began_at=found.began_at)
        # A fragment is sent to nobody, and the page takes it out of its address at once.
        headers["location"] = f"{found.page}#proof={session.proof}"
        headers["set-cookie"] = cookie_with(request.scope, session.cookie)
    return Response(status_code=303, headers=headers)


def _began_at(request: ApiRequest) -> str | None:
    return None if request.viewer_session is None else request.viewer_session.began_at


async def _assets() -> Assets:
    return assets() if assets.cache_info().currsize else await offload_in_turn(assets)


def _file(request: ApiRequest, asset: Asset, *, etag: str, cache: str) -> Response:
    headers = {"etag": f'"{etag}"', "cache-control": cache, "vary": "Accept-Encoding", **PAGE_HEADERS}
    if names_tag(request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=304, headers=headers)
    content = asset.content
    if asset.gzipped is not None and accepts_gzip(request.headers.get("accept-encoding")):
        headers["content-encoding"], content = "gzip", asset.gzipped
    return Response(content, media_type=asset.media_type, headers=headers)
