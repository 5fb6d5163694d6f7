"""What every request passes before any route is looked for: it gets its id, shows its key, and then goes on.

In front of the framework and not inside, because a path that does not exist must ask for a key too, and must
carry the request id. Nothing here knows a route apart from the few that are open.
"""

import asyncio
import logging
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from runglass.errors import APIError, StoreError, api_error
from runglass.limits.pace import admit_paced, paced_transfer, set_project
from runglass.limits.rate import Rates
from runglass.server.endpoints import API, ENDPOINTS
from runglass.server.http.error_responses import error_response, unavailable
from runglass.server.http.open_responses import OpenResponses
from runglass.server.http.request_connection import connection_of
from runglass.server.http.response_stream import cut_off_text
from runglass.server.security.authentication import authenticate, authorization_of_sender
from runglass.server.security.browser_sessions import BrowserSessions, header
from runglass.store.protocols.catalog import Catalog
from runglass.support import logs
from runglass.support.safe_text import printable

log = logging.getLogger(__name__)

OPEN = frozenset(endpoint.path for endpoint in ENDPOINTS if endpoint.access == "open")
SENDING = frozenset((endpoint.method, endpoint.path) for endpoint in ENDPOINTS if endpoint.access == "record")
"""Where programs send traces: beside the API, as their exporters choose the paths."""

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
        given = header(scope, "x-request-id")
        request_id = given if given is not None and _SANE_ID.fullmatch(given) else str(uuid4())
        logs.request_id.set(request_id)
        scope["state"] = {"request_id": request_id}
        exchange = _PacedExchange(receive, send, request_id)
        receive, send = exchange.receive, exchange.send
        try:
            await self._answer(scope, receive, send, request_id)
        except asyncio.CancelledError:
            # The end of the server cuts off what still takes its time, such as the rest of a body.
            if not self._open_responses.is_stopping:
                raise
            if exchange.has_begun:
                log.warning("%s: the server is being stopped", cut_off_text(scope))
                connection_of(scope).cut_off()
            else:
                await error_response(api_error("UNAVAILABLE", CUT_OFF))(scope, receive, send)

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
                await admit_paced(key.project_id)
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


class _PacedExchange:
    """Receives a request and sends its answer at the pace of large work, with the headers that each one has.

    A browser keeps none that does not say how, and takes none for something else than it says it is.
    """

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self._receive = receive
        self._send = send
        self._headers = [
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
        ]
        self.has_begun = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            await paced_transfer(len(message["body"]))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            own = dict(message["headers"])
            missing = [each for each in self._headers if each[0] not in own]
            message["headers"] = [*message["headers"], *missing]
        elif message["type"] == "http.response.body":
            await paced_transfer(len(message["body"]))
        await self._send(message)


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
