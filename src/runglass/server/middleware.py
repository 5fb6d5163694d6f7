"""What every request passes before any route is looked for: it gets its id, shows its key, and then goes on.

In front of the framework and not inside, because a path that does not exist must ask for a key too, and must
carry the request id. Nothing here knows a route apart from the few that are open.
"""

import asyncio
import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from runglass.errors import APIError, StoreError, api_error
from runglass.limits.limits import Rates
from runglass.limits.pace import REQUEST_S, admit_paced, set_project
from runglass.log.measurements import OTHER, measured
from runglass.server.endpoints import API, ENDPOINTS
from runglass.server.http.connections import Connection
from runglass.server.http.error_responses import busy_server, error_response, invalid, unavailable
from runglass.server.http.exchange import CONNECTION, ENDPOINT, EXCHANGE, Exchange
from runglass.server.http.open_responses import OpenResponses
from runglass.server.http.response_stream import cut_off_text
from runglass.server.security.authentication import authenticate, authorization_of_sender
from runglass.server.security.browser_sessions import BrowserSessions, header
from runglass.store.catalog import Catalog
from runglass.support import logs
from runglass.support.safe_text import printable

log = logging.getLogger(__name__)

OPEN = frozenset(endpoint.path for endpoint in ENDPOINTS if endpoint.access == "open")
SENDING = frozenset((endpoint.method, endpoint.path) for endpoint in ENDPOINTS if endpoint.access == "record")
"""Where programs send traces: beside the API, as their exporters choose the paths."""

PROBES = frozenset({"/health", "/ready"})
"""What a server answers that has no place for another request."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

CUT_OFF = (
    "the server is being stopped while the request was read; the list of runs says whether one was started"
)


class ApiMiddleware:
    """The ASGI application around the framework's."""

    def __init__(
        self,
        app: ASGIApp,
        store: Catalog,
        *,
        open_responses: OpenResponses,
        sessions: BrowserSessions,
        rates: Rates,
    ) -> None:
        self._app = app
        self._store = store
        self._open_responses = open_responses
        self._sessions = sessions
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"this server speaks HTTP only, not {scope['type']}")
        begun_s = time.monotonic()
        given, hosts, coding, expects = None, 0, b"chunked", False
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = value.decode("latin-1")
            elif name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                coding = value.lower() if coding == b"chunked" else b""
            elif name == b"expect":
                expects = True
        request_id = given if given is not None and _SANE_ID.fullmatch(given) else str(uuid4())
        logs.request_id.set(request_id)
        connection: Connection | None = scope.get("state", {}).get(CONNECTION)
        exchange = Exchange(receive, send, request_id, connection=connection, expects=expects)
        scope["state"] = {"request_id": request_id, EXCHANGE: exchange}
        receive, send, task = exchange.receive, exchange.send, asyncio.current_task()
        try:
            if connection is None:
                await self._answer(scope, receive, send, request_id)
                return
            connection.connections.tasks.add(task)
            if (refusal := _refusal(scope, connection, hosts, coding)) is not None:
                response = error_response(refusal)
                response.headers["connection"] = "close"
                await response(scope, receive, send)
            else:
                await self._answer(scope, receive, send, request_id)
        except asyncio.CancelledError:
            # The end of the server cuts off what still takes its time, such as the rest of a body.
            if not self._open_responses.is_stopping:
                raise
            if exchange.status:
                log.warning("%s: the server is being stopped", cut_off_text(scope))
                exchange.cut_off()
            else:
                await error_response(api_error("UNAVAILABLE", CUT_OFF))(scope, receive, send)
        finally:
            endpoint = scope["state"].get(ENDPOINT, OTHER)
            measured.request(endpoint, exchange.status, max(0.0, exchange.began_s - begun_s))
            if connection is not None:
                connection.connections.tasks.discard(task)
                connection.request_ended(is_answered=exchange.status != 0)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        try:
            # Without empty parts: there is one spelling of a path for the key and the router alike.
            path = "/" + "/".join(filter(None, scope["path"].split("/")))
            if path.endswith("\n"):
                # To the router's patterns it would be the path without its last character.
                raise api_error("NOT_FOUND", f"there is no path {path!r}")
            is_sent = (scope["method"], path) in SENDING
            if is_sent or (path not in OPEN and f"{path}/".startswith(f"{API}/")):
                authorization = authorization_of_sender(scope) if is_sent else header(scope, "authorization")
                # A program says who asks, and a browser's cookie only where nothing is said.
                session = await self._sessions.find(scope) if authorization is None else None
                key = await authenticate(self._store, authorization) if session is None else session.key
                self._rates.take(key_id=key.id, project_id=key.project_id)
                scope["auth"], scope["viewer_session"] = key, session
                set_project(key.project_id)
                await admit_paced(key.project_id, REQUEST_S)
        except APIError as error:
            await error_response(error)(scope, receive, send)
        except StoreError as error:
            where = f"{scope['method']} {printable(scope['path'])}"
            refusal = unavailable(error, request_id=request_id, where=where)
            await error_response(refusal)(scope, receive, send)
        else:
            if path != scope["path"]:
                scope = {**scope, "path": path}
            if scope["method"] == "HEAD":
                # Endpoints know GET alone; uvicorn drops the body, as it holds the original scope.
                scope, send = {**scope, "method": "GET"}, _ended_by_first_part(send)
                scope["state"]["is_head"] = True
            await self._app(scope, receive, send)


def _refusal(scope: Scope, connection: Connection, hosts: int, coding: bytes) -> APIError | None:
    """Why the request is not looked at, whoever sent it."""
    if hosts != 1 and (hosts or scope["http_version"] != "1.0"):
        # A proxy in front and this server may otherwise take the request for different ones.
        return invalid(f"the request must have one Host header, not {hosts}")
    if scope["http_version"] not in ("1.1", "1.0"):
        return invalid("this server speaks HTTP/1.1")
    if coding != b"chunked":
        return invalid("of transfer encodings this server knows `chunked` alone")
    # Of many that came at once, those before it may have been answered meanwhile.
    is_beyond = connection.is_beyond and connection.connections.is_full()
    if is_beyond and scope["path"] not in PROBES:
        return busy_server(connection.connections.limit)
    return None


def _ended_by_first_part(send: Send) -> Send:
    """Lets an answer end where its body begins: a HEAD of a live stream must not last as long as its run."""
    ended = False

    async def send_head(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.body":
            if ended:
                return
            ended = True
            message["more_body"] = False
        await send(message)

    return send_head
