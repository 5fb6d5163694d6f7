"""A small listener for those who watch a process: `/metrics`, `/health` and `/ready`, and nothing else.

It has an address of its own and asks for no key: what it tells concerns all projects, which no key of one
may see, so it is for a network that callers cannot reach. It is no part of the HTTP API. A request is one
line and some headers that nobody reads; each limit is fixed.
"""

import asyncio
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from runglass.errors import RunglassError, StoreError
from runglass.log.measurements import Histogram
from runglass.runtime.health import HealthCheck
from runglass.runtime.runtime import Runtime

log = logging.getLogger(__name__)

HEAD_BYTES = 8192
CONNECTIONS = 20
OVERVIEW_WAIT_S = 2.0
SAMPLE_S = 0.25
"""How often the delay of the event loop is sampled."""
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a path answers."""

    status: int
    media_type: str
    body: bytes


class MetricsListener:
    """Answers about one runtime, within `request_s`. For `overview_s` it tells what the store said last."""

    def __init__(
        self,
        runtime: Runtime,
        health: HealthCheck | None = None,
        *,
        request_s: float = 5.0,
        overview_s: float = 10.0,
    ) -> None:
        self._runtime = runtime
        self._health = health or HealthCheck(runtime)
        self._request_s = request_s
        self._overview_s = overview_s
        self._loop_delay_s = Histogram()
        # Imported here: a process without this listener does not hold the library of Prometheus.
        from runglass.runtime.metrics.collector import RuntimeCollector

        self._collector = RuntimeCollector(runtime, self._loop_delay_s)
        self._asked_s = -math.inf
        self._asking = asyncio.Lock()
        self._open = 0
        self._paths: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/metrics": self._metrics,
            "/health": self._health_answer,
            "/ready": self._ready,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request and closes the connection."""
        self._open += 1
        try:
            # Who is slow, who leaves and who talks too much is not answered.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(self._request_s):
                    if self._open > CONNECTIONS:
                        return
                    head = await reader.readuntil(b"\r\n\r\n")
                    answer = await self._answer(head)
                    about = (
                        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
                        f"Content-Type: {answer.media_type}\r\nContent-Length: {len(answer.body)}\r\n"
                        "Connection: close\r\nCache-Control: no-store\r\n"
                        "X-Content-Type-Options: nosniff\r\n\r\n"
                    )
                    writer.write(about.encode("latin-1"))
                    writer.write(b"" if head.startswith(b"HEAD ") else answer.body)
                    await writer.drain()
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def watch_loop(self) -> None:
        """Samples how late the event loop is until cancelled: by how much a sleep on it is too long."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            self._loop_delay_s.add(max(0.0, loop.time() - due_s))

    async def _answer(self, head: bytes) -> Answer:
        parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _text(400, "this is not a request of HTTP/1")
        method, target, _ = parts
        path = self._paths.get(target.partition("?")[0])
        if path is None:
            return _text(404, f"here are {', '.join(self._paths)}; the API has an address of its own")
        if method not in ("GET", "HEAD"):
            return _text(405, "use GET")
        return await path()

    async def _metrics(self) -> Answer:
        async with self._asking:
            if time.monotonic() - self._asked_s >= self._overview_s:
                try:
                    async with asyncio.timeout(OVERVIEW_WAIT_S):
                        self._collector.overview = await self._runtime.store.overview()
                except (StoreError, TimeoutError) as error:
                    log.warning("the store says nothing for the metrics: %s", str(error) or "no answer")
                    self._collector.overview = None
                self._asked_s = time.monotonic()
        self._collector.is_ready = (await self._health.readiness()).status == "ready"
        return Answer(200, *self._collector.exposition())

    async def _health_answer(self) -> Answer:
        found = await self._health.report()
        return Answer(503 if found.status == "unavailable" else 200, _JSON, msgspec.json.encode(found))

    async def _ready(self) -> Answer:
        found = await self._health.readiness()
        return Answer(200 if found.status == "ready" else 503, _JSON, msgspec.json.encode(found))


@asynccontextmanager
async def listening(runtime: Runtime) -> AsyncIterator[str | None]:
    """Answers those who watch, until the block ends; gives `http://HOST:PORT`, None without `metrics_port`.

    Raises RunglassError if the address cannot be had.
    """
    host, port = runtime.settings.metrics_host, runtime.settings.metrics_port
    if port is None:
        yield None
        return
    listener = MetricsListener(runtime)
    try:
        server = await asyncio.start_server(listener.serve, host, port, limit=HEAD_BYTES)
    except OSError as error:
        raise RunglassError(
            f"cannot listen on {host}:{port} for metrics: {error.strerror}; stop what uses the address, or"
            " choose another with metrics_host and metrics_port"
        ) from error
    watching = asyncio.create_task(listener.watch_loop(), name="the delay of the event loop")
    try:
        yield address_of(server.sockets[0])
    finally:
        watching.cancel()
        server.close()
        await asyncio.wait({watching})


def address_of(listener: socket.socket) -> str:
    """The `http://HOST:PORT` of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _text(status: int, text: str) -> Answer:
    return Answer(status, _TEXT, f"{text}\n".encode())
