"""Listening: from a runtime to a server that accepts, and back to nothing within a second or two.

The socket and the signals are ours, so that an address in use is a clear error, port 0 works, and a signal
ends runs and streams in order before it ends the process.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from runglass.config.settings import Settings, SettingsError
from runglass.errors import RunglassError
from runglass.runtime.composition import SETTLED_S, open_runtime
from runglass.runtime.metrics.listener import address_of, listening
from runglass.runtime.runtime import Runtime
from runglass.server.app import create_app
from runglass.server.http.connections import RESERVE, Connection, Connections
from runglass.server.http.loop_watch import watched
from runglass.server.http.open_responses import OpenResponses
from runglass.server.security.login_tickets import LoginTickets
from runglass.server.services.outlines import Outlines, keep_outlines
from runglass.support.clock import SystemClock
from runglass.support.supervision import SupervisedTask, stop_signal

log = logging.getLogger(__name__)

BACKLOG = 2048
GRACE_S = 1
"""How long a response may still take after its `end` was called."""
CUT_OFF_S = 0.5
"""How long a connection whose response was cut off may stay open, until its caller has read what was sent."""

UNSENT_BYTES = 256 * 1024
"""The most bytes of a response that the system's send buffer holds."""
SETTLE_S = 0.5
"""How long streams may take to send the last event of a run; those of paused runs have none to send."""

MOST_CONNECTIONS = 20_000
"""The default limit goes no higher, however many descriptors there are: each connection also costs memory."""
MOST_DESCRIPTORS = 1 << 20
"""The most descriptors that are asked for. Some systems know no limit, and refuse an infinite one."""

Beside = Callable[[Runtime], Coroutine[None, None, None]]


async def serve(
    settings: Settings,
    *,
    ready: Callable[[str], None],
    beside: Beside | None = None,
    tickets: LoginTickets | None = None,
) -> None:
    """Runs the server until SIGINT or SIGTERM; calls `ready` with its address once it accepts.

    `beside` is work that goes on as long as the server does; if it fails, the server stops and its error is
    raised. `tickets` make links that sign a browser in. Raises RunglassError if the server cannot start. Runs
    in the main thread, which gets the signals.
    """
    raise_descriptor_limit()
    async with (
        open_runtime(settings) as runtime,
        listening(runtime),
        serving(runtime, host=settings.host, port=settings.port, tickets=tickets) as address,
    ):
        with stop_signal() as stop:
            ready(address)
            await _until(stop, beside and beside(runtime))


@asynccontextmanager
async def serving(
    runtime: Runtime, *, host: str, port: int, tickets: LoginTickets | None = None
) -> AsyncIterator[str]:
    """Accepts requests until the block ends; gives `http://HOST:PORT`. Port 0 takes a free one.

    At its end steps may end, runs are left for the next start, and streams are closed. Raises RunglassError
    if the address cannot be had.
    """
    open_responses, outlines, clock = OpenResponses(), Outlines(runtime), SystemClock()
    works: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("the watch for revoked keys", partial(open_responses.watch, runtime.store)),
        ("the keeper of outlines", partial(keep_outlines, runtime.store, outlines, clock)),
    ]
    if (url := runtime.settings.spans_url) is not None:
        # Imported here: a server that sends nothing does not hold the libraries for it.
        from runglass.server.services.span_export import SpanExporter

        exporter = SpanExporter(runtime, url, headers=runtime.settings.otlp_headers, clock=clock)
        works.append(("the sender of spans", exporter.run_forever))
    supervised = [
        SupervisedTask(name, work, clock=clock, vital=False, settled_s=SETTLED_S) for name, work in works
    ]
    connections = Connections(runtime.settings, connection_limit(runtime.settings))
    app = create_app(runtime, open_responses=open_responses, outlines=outlines, tickets=tickets)
    listener = await _bind(host, port)
    config = uvicorn.Config(
        app,
        interface="asgi3",
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=runtime.settings.keep_alive_s,
        timeout_graceful_shutdown=GRACE_S + 2,
    )
    config.load()
    # uvicorn only calls it, as it would call its own class.
    protocol = partial(Connection, connections, config.http_protocol_class)
    config.http_protocol_class = cast(type[asyncio.Protocol], protocol)
    server = _Server(config)
    address = address_of(listener)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    watching = {
        asyncio.create_task(connections.watch()),
        *(asyncio.create_task(work.run_forever(), name=work.name) for work in supervised),
    }
    try:
        # Whoever connects before uvicorn accepts waits in the backlog of the socket, which listens.
        with watched(limit_ms=runtime.settings.stall_log_ms):
            async with _taking_grpc(app, runtime.settings):
                yield address
    finally:
        # Runs first: their last events are then on their way to the streams, which end with them.
        await runtime.engine.stop(grace_s=runtime.settings.stop_grace_s)
        await open_responses.settle(SETTLE_S)
        open_responses.end_all()
        await _shut_down(server, running, connections)
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)


@asynccontextmanager
async def _taking_grpc(app: ASGIApp, settings: Settings) -> AsyncIterator[None]:
    """Takes in OTLP over gRPC until the block ends, where the settings say so. Raises RunglassError."""
    if settings.otlp_grpc is None:
        yield
        return
    try:
        from runglass.server.otlp_grpc import taking_grpc
    except ModuleNotFoundError as error:
        raise SettingsError(f"otlp_grpc needs {error.name}: pip install 'runglass[server,grpc]'") from error
    async with taking_grpc(
        app,
        settings.otlp_grpc,
        limit_bytes=settings.otlp_limit_bytes,
        read_s=settings.body_time_limit_s,
        idle_s=settings.keep_alive_s,
        grace_s=GRACE_S,
    ) as address:
        log.info("traces are taken over gRPC at %s", address)
        yield


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process before the runtime is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _shut_down(server: _Server, running: asyncio.Task[None], connections: Connections) -> None:
    """Returns once every answer has ended, or is cut off: uvicorn would do so with a traceback for each."""
    server.should_exit = True
    await asyncio.wait({running}, timeout=GRACE_S)
    for task in filter(None, list(connections.tasks)):
        task.cancel()
    await asyncio.wait({running}, timeout=CUT_OFF_S)
    for connection in list(connections.open):
        # Bytes that the caller does not read would keep the connection open.
        connection.cut()
    await running


async def _bind(host: str, port: int) -> socket.socket:
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name such as `localhost` has several addresses; most clients try the IPv4 one.
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Connections take it over. Otherwise the system would copy megabytes for each caller who reads
            # nothing.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        return listener
    except OSError as error:
        raise RunglassError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses the address, or choose another"
            " with --host and --port"
        ) from error


async def _until(stop: asyncio.Event, beside: Coroutine[None, None, None] | None) -> None:
    if beside is None:
        await stop.wait()
        return
    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(beside)
            await stop.wait()
            work.cancel()
    except BaseExceptionGroup as failure:
        raise failure.exceptions[0] from None


def raise_descriptor_limit() -> None:
    """Lets the process open as many files as the system allows it; by default that is a fraction."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:
        log.warning("the limit of %d file descriptors cannot be raised to %d: %s", soft, wanted, error)


def connection_limit(settings: Settings) -> int:
    """How many connections may be busy: what the settings say, as far as file descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    # Kept back for the store, the workers and the calls of models.
    possible = max(1, descriptors - min(max(descriptors // 4, 64), 2048) - RESERVE)
    wanted = settings.max_connections or min(possible, MOST_CONNECTIONS)
    if wanted > possible:
        told = "max_connections is %d, but the limit of file descriptors (ulimit -n) allows %d"
        log.warning(told, wanted, possible)
    return min(wanted, possible)
