"""The connection that a request came by, as far as its response has to do with it.

The protocol puts one into the scope of each request, as an extension of ASGI.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

EXTENSION = "runglass.connection"


class CallerLeft(Exception):
    """The caller of a request has left, and what it waited for is for nobody else."""


class RequestConnection:
    """The connection of one request, until its response is complete."""

    __slots__ = ("_calls", "_cycle")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._calls: list[Callable[[], object]] = []

    @contextmanager
    def on_loss(self, call: Callable[[], object]) -> Iterator[None]:
        """Inside the block, `call` is called once the connection is lost; at once if it is already."""
        if self._cycle.disconnected:
            call()
        self._calls.append(call)
        try:
            yield
        finally:
            self._calls.remove(call)

    def lose(self) -> None:
        """Tells the application that its caller has left; uvicorn then misses no end of its response."""
        if not self._cycle.response_complete:
            self._cycle.disconnected = True
            self._cycle.message_event.set()
            for call in list(self._calls):
                call()

    def send_now(self, part: bytes) -> bool:
        """Sends a part of a body whose length was not announced, without waiting.

        False, and nothing is sent, if the caller is slow, has left, or waits for nothing more. The parts
        before it must have been sent.
        """
        cycle = self._cycle
        if (
            cycle.flow.write_paused
            or cycle.disconnected
            or cycle.response_complete
            or not cycle.response_started
            or not cycle.chunked_encoding
            or cycle.transport.is_closing()
        ):
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        return True

    def cut_off(self) -> None:
        """Ends the connection amid the response; does nothing once that is complete."""
        if not self._cycle.response_complete:
            self.lose()
            self._cycle.transport.close()


def connection_of(scope: Scope) -> RequestConnection:
    """The connection that the request came by."""
    connection: RequestConnection = scope["extensions"][EXTENSION]
    return connection
