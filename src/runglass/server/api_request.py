"""A request as the handlers get it, with its key and the services of the server."""

from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope

from runglass.store.records import ApiKey, ViewerSession

Service = TypeVar("Service")


class Services:
    """What the requests of one server share: one object of each class, whichever classes these are."""

    def __init__(self, *services: object) -> None:
        self._services: dict[type, Any] = {type(service): service for service in services}

    def __getitem__(self, kind: type[Service]) -> Service:
        """The object of this class."""
        service: Service = self._services[kind]
        return service


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
