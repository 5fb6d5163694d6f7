"""The viewer: its page and files, and how a browser signs in with a key and out again."""

import re

from starlette.responses import Response

import runglass
from runglass.admin_api import TicketRequest, ViewerTicket
from runglass.engine.scheduling.offloading import offload_in_turn
from runglass.errors import api_error
from runglass.server.api_request import ApiRequest
from runglass.server.requests.body import answer, body_of
from runglass.server.requests.body_parsing import read_body
from runglass.server.security.authentication import runtime_of
from runglass.server.security.login_tickets import TICKET_S, is_from_this_machine
from runglass.server.security.same_origin import require_own_navigation
from runglass.server.security.session_cookie import (
    began_of,
    cookie_with,
    cookie_without,
    has_session,
    session_of,
)
from runglass.server.viewer.assets import PAGE_HEADERS, Asset, Assets, assets

ME = "/api/v1/viewer/me"
FIRST_ROWS = "limit=20000&partial=true"
"""What the module `run/model.js` asks for first, to the letter."""
_ID = re.compile("[0-9a-f-]{36}").fullmatch

FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


async def runs_page(request: ApiRequest) -> Response:
    """The page of all runs: the browser makes it of the API's answers, as all pages."""
    return await _page(request)


async def run_page(request: ApiRequest, execution_id: str) -> Response:
    """The page of a run."""
    run = f"/api/v1/flow-runs/{execution_id}"
    return await _page(request, *((run, f"{run}/trace/outline?{FIRST_ROWS}") if _ID(execution_id) else ()))


async def compare_page(request: ApiRequest, a: str, b: str) -> Response:
    """The page that compares two runs."""
    return await _page(request)


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
    """Begins a session for the browser that asks: its cookie takes the place of the key from then on.

    The session ends after twelve hours without a request, after a week, with a restart of the server, and at
    once when the key is revoked. One that is begun with a cookie ends no later than the one before.
    """
    sessions = request.services.sessions
    session_id = sessions.begin(request.auth, began_s=began_of(sessions, request.scope))
    return Response(status_code=204, headers={"set-cookie": cookie_with(request.scope, session_id)})


async def sign_out(request: ApiRequest) -> Response:
    """Ends the session of the cookie that the request has, and takes the cookie back."""
    if (session_id := session_of(request.scope)) is not None:
        request.services.sessions.end(session_id)
    return Response(status_code=204, headers={"set-cookie": cookie_without(request.scope)})


async def me(request: ApiRequest) -> Response:
    """The key that asks, its role and its project."""
    key = request.auth
    project = await runtime_of(request).store.project(key.project_id)
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
    began_s = began_of(request.services.sessions, request.scope)
    path = request.services.tickets.issue(request.auth, asked.page, began_s=began_s)
    return answer(ViewerTicket(path=path, expires_in_s=TICKET_S), status=201)


async def redeem_ticket(request: ApiRequest, ticket: str) -> Response:
    """Signs the browser in and leads it to the ticket's page; one worth nothing leads to the sign-in."""
    if not is_from_this_machine(request.scope):
        message = "a ticket signs in a browser on the server's own machine, and no other: sign in with a key"
        raise api_error("FORBIDDEN", message)
    require_own_navigation(request.scope)
    if request.is_head:
        # Who only looks where a link leads, such as a preview of it, must not use it up.
        return Response(status_code=204, headers={"cache-control": "no-store", **PAGE_HEADERS})
    found = request.services.tickets.redeem(ticket)
    key = found and await runtime_of(request).store.key(found.project_id, found.key_id)
    headers = {"location": "/?ticket=used", "cache-control": "no-store", **PAGE_HEADERS}
    if found is not None and key is not None and key.revoked_at is None:
        session_id = request.services.sessions.begin(key, began_s=found.began_s)
        headers |= {"location": found.page, "set-cookie": cookie_with(request.scope, session_id)}
    return Response(status_code=303, headers=headers)


async def _page(request: ApiRequest, *reads: str) -> Response:
    """A page, which asks for what it `reads` at once where a browser is signed in.

    One that is not would get refusals, and take them for the answers once it is.
    """
    found = await _assets()
    is_signed_in = await has_session(runtime_of(request).store, request.services.sessions, request.scope)
    shell = found.page((ME, *reads) if is_signed_in else ())
    return _file(request, shell, etag=f"{found.digest}-{is_signed_in:d}", cache=ASK_AGAIN)


async def _assets() -> Assets:
    return assets() if assets.cache_info().currsize else await offload_in_turn(assets)


def _file(request: ApiRequest, asset: Asset, *, etag: str, cache: str) -> Response:
    headers = {"etag": f'"{etag}"', "cache-control": cache, "vary": "Accept-Encoding", **PAGE_HEADERS}
    if f'"{etag}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = asset.content
    if asset.gzipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"], content = "gzip", asset.gzipped
    return Response(content, media_type=asset.media_type, headers=headers)
