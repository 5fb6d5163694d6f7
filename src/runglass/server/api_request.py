"""A request as the handlers get it: with the key that it came with, and what the server lends them."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import Receive, Scope

from runglass.store.records import ApiKey

if TYPE_CHECKING:
    from runglass.server.app_state import AppState


class ApiRequest(Request):
    """A request to one of the endpoints."""

    def __init__(self, scope: Scope, receive: Receive, services: "AppState") -> None:
        super().__init__(scope, receive)
        self.services = services

    @property
    def auth(self) -> ApiKey:
        """The key that the request came with; no endpoint that is open asks for it."""
        key: ApiKey = self.scope["auth"]
        return key

    @property
    def id(self) -> str:
        """What the `X-Request-Id` of the answer says."""
        request_id: str = self.scope["state"]["request_id"]
        return request_id
