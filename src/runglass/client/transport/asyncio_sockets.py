"""What the transport on asyncio does in a way of its own; `blocking_sockets.py` has the same names."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import IO

import httpcore2  # noqa: F401  # httpx2 would load it with the first client, which may be on the event loop
import httpx2

from runglass.client.core.connection import ServerConnection
from runglass.client.core.responses import Deadline
from runglass.client.core.stream_cursor import SILENCE_S
from runglass.client.transport import PIECE_BYTES, closed, http_client


class AsyncSockets:
    """The connections of a transport, on one event loop at a time: on the next once that one has closed."""

    def __init__(self, endpoint: ServerConnection, *, silence_s: float = SILENCE_S) -> None:
        self.endpoint = endpoint
        self.silence_s = silence_s
        self._closed = asyncio.Event()
        self._bounds: set[asyncio.Timeout] = set()
        self._base = endpoint.base_url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = http_client(httpx2.AsyncClient, endpoint)

    @property
    def _http(self) -> httpx2.AsyncClient:
        """The client of the HTTP library. Raises RuntimeError on another loop than its connections'."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                if not self._loop.is_closed():
                    raise RuntimeError(
                        "this client has connections on another event loop, which is still open: make a"
                        " client for each, or close that loop first"
                    )
                # As of the `asyncio.run` before this one: its connections close when the pool is collected.
                self._pool, self._bounds = http_client(httpx2.AsyncClient, self.endpoint), set()
                if not self._closed.is_set():
                    self._closed = asyncio.Event()
            self._loop = loop
        return self._pool

    async def aclose(self) -> None:
        """Closes every connection. What waits in another task ends at once, with a RuntimeError."""
        self._closed.set()
        # The HTTP library does not close connections in the making, so their requests would go on waiting.
        for bound in self._bounds:
            if not bound.expired():
                bound.reschedule(0)
        if self._loop is None or not self._loop.is_closed():
            await self._pool.aclose()

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`, or when the transport is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    @asynccontextmanager
    async def _bounded(self, what: object, deadline: Deadline) -> AsyncGenerator[None, None]:
        """Raises TimeoutError when the deadline passes, and RuntimeError where the transport is closed."""
        self._require_open(what)
        try:
            async with asyncio.timeout(deadline.bound_s()) as bound:
                self._bounds.add(bound)
                try:
                    yield
                finally:
                    self._bounds.discard(bound)
        except (TimeoutError, httpx2.RequestError):
            self._require_open(what)
            raise

    def _require_open(self, what: object) -> None:
        if self._closed.is_set():
            raise closed(what)


def wait_of(bound: Deadline | float) -> float | None:
    """The bound of each wait for a socket; a deadline cancels the whole call instead."""
    return None if isinstance(bound, Deadline) else bound


async def pieces_of(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    """The rest of the file. It may be on a disk that takes its time."""
    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
        yield piece
