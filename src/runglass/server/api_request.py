"""A request as the handlers get it, with its key and the services of the server.

The services are imported for their types alone: most of them stand on requests.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Receive, Scope

from runglass.store.records import ApiKey, ViewerSession

if TYPE_CHECKING:
    from runglass.limits.limits import Limits
    from runglass.runtime.health import HealthCheck
    from runglass.runtime.runtime import Runtime
    from runglass.server.calls.idempotency import FailureReplay, IdempotencyLocks
    from runglass.server.http.open_responses import OpenResponses
    from runglass.server.security.browser_sessions import BrowserSessions
    from runglass.server.security.login_tickets import LoginTickets
    from runglass.server.services.outlines import Outlines


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What the requests of one server share."""

    runtime: "Runtime"
    open_responses: "OpenResponses"
    limits: "Limits"
    call_locks: "IdempotencyLocks"
    failures: "FailureReplay"
    health: "HealthCheck"
    outlines: "Outlines"
    sessions: "BrowserSessions"
    tickets: "LoginTickets"


class ApiRequest(Request):
    """A request to one of the endpoints."""

    def __init__(self, scope: Scope, receive: Receive, services: Services) -> None:
        super().__init__(scope, receive)
        self.services = services

    @property
    def auth(self) -> ApiKey:
        """The key of the request. Handlers of open endpoints have none and must not read it."""
        key: ApiKey = self.scope["auth"]
        return key

    @property
    def viewer_session(self) -> ViewerSession | None:
        """The session that makes the request; None where a key does."""
        session: ViewerSession | None = self.scope.get("viewer_session")
        return session

    @property
    def is_head(self) -> bool:
        """Whether it is a HEAD, which the endpoint of GET answers."""
        return "is_head" in self.scope["state"]

    @property
    def id(self) -> str:
        """The id of the request, as `X-Request-Id` of the response has it."""
        request_id: str = self.scope["state"]["request_id"]
        return request_id
