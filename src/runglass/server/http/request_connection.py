"""The connection that a request came by, as far as its answer has to do with it.

The protocol puts one into the scope of each request, as an extension of ASGI.
"""

from typing import Protocol

from starlette.types import Scope

EXTENSION = "runglass.connection"


class RequestConnection(Protocol):
    """What can be done with the connection of one request."""

    def cut_off(self) -> None:
        """Ends the connection amid the answer, whose end the caller misses; does nothing after that end."""


def connection_of(scope: Scope) -> RequestConnection:
    """The connection that the request came by."""
    connection: RequestConnection = scope["extensions"][EXTENSION]
    return connection
