"""The web application: the endpoints, their shared state and the middleware around them."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp

from runglass.runtime.health import HealthCheck
from runglass.runtime.runtime import Runtime
from runglass.server import openapi
from runglass.server.api_request import Services
from runglass.server.calls.idempotency import FailureReplay, IdempotencyLocks
from runglass.server.endpoint import Answer, Endpoint
from runglass.server.endpoints import ENDPOINTS
from runglass.server.http.open_responses import OpenResponses
from runglass.server.middleware import ApiMiddleware
from runglass.server.routes import viewer
from runglass.server.routing import Router
from runglass.server.security.browser_sessions import BrowserSessions
from runglass.server.security.login_tickets import LoginTickets
from runglass.server.services.outlines import Outlines


def create_app(
    runtime: Runtime,
    *,
    open_responses: OpenResponses | None = None,
    outlines: Outlines | None = None,
    tickets: LoginTickets | None = None,
) -> ASGIApp:
    """The ASGI application for a runtime.

    Through `open_responses` its owner ends the responses that are open, `outlines` are those that it has
    kept, and `tickets` make links that sign a browser in.
    """
    services = Services(
        runtime=runtime,
        open_responses=open_responses or OpenResponses(),
        limits=runtime.engine.limits,
        call_locks=IdempotencyLocks(),
        failures=FailureReplay(runtime.limits.repeated_s),
        health=HealthCheck(runtime),
        outlines=outlines or Outlines(runtime),
        sessions=BrowserSessions(runtime.store, clock=runtime.store.clock),
        tickets=tickets or LoginTickets(),
    )
    router = Router([*ENDPOINTS, *_pages()], services)
    return ApiMiddleware(
        router,
        runtime.store,
        open_responses=services.open_responses,
        sessions=services.sessions,
        rates=services.limits.rates,
    )


def _pages() -> list[Endpoint]:
    """The pages for people, and the description of the API, which leaves them out.

    They are open, as all that the viewer's pages show is asked of the API.
    """
    handlers: dict[str, Callable[..., Awaitable[Any]]] = {
        "/docs": openapi.page,
        "/docs/openapi.json": openapi.description,
        "/": viewer.page,
        "/runs/{execution_id}": viewer.page,
        "/compare/{a}/{b}": viewer.page,
        "/viewer/ticket/{ticket}": viewer.redeem_ticket,
        "/viewer/{digest}/{file:path}": viewer.file,
    }
    shown = Answer((str,), "A page.", media_type="text/html")
    return [Endpoint("GET", path, handler, "", shown, access="open") for path, handler in handlers.items()]
