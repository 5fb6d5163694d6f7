"""The readers that every broken stream is given to, and a proxy that keeps cutting a real server off.

The readers are the blocking client, the asyncio client and HTTP without either. The clients keep their
cursor and their patience; only the waits before they come back take no time.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing, suppress
from functools import partial
from typing import Any, Literal, get_args

import httpx2

from runglass import AsyncRun, Run
from runglass.client.core.connection import ServerConnection, endpoint
from runglass.client.core.requests import run_path
from runglass.client.transport.blocking import SyncTransport
from runglass.client.transport.on_asyncio import AsyncTransport
from runglass.log.events import TERMINAL_EVENTS, decode_event
from runglass.testing import RunningServer
from runglass.wire.sse import Decoder
from tests.prove.clustering.network import reset
from tests.prove.recorded import Cutting, Row, resumed_after
from tests.prove.report import as_one_lie, noted
from tests.servers import server_on

Kind = Literal["sync client", "async client", "raw HTTP"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Read = Callable[[str], Awaitable[list[Any]]]
"""Follows the run with that id to its end, and returns what it saw."""

_MOST_IN_VAIN = 50
_PATIENT = 10
"""A client gives up sooner on a server that never answered, and a cut before the status line is no answer."""


def expected(kind: Kind, rows: tuple[Row, ...]) -> list[Any]:
    return list(rows) if kind == "raw HTTP" else [decode_event(row.data) for row in rows]


class Hasty(SyncTransport):
    """A transport that does not wait between two attempts."""

    def sleep(self, seconds: float) -> None:
        """Returns at once."""


class AsyncHasty(AsyncTransport):
    """A transport that does not wait between two attempts."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def _endpoint(base_url: str, key: str) -> ServerConnection:
    return endpoint(api_key=key, base_url=base_url, timeout=60.0, max_retries=_PATIENT, session_id=None)


@asynccontextmanager
async def reader(kind: Kind, base_url: str, key: str) -> AsyncIterator[Read]:
    match kind:
        case "sync client":
            blocking = Hasty(_endpoint(base_url, key))
            with closing(blocking):
                yield lambda run_id: asyncio.to_thread(
                    list, Run(blocking, run_path(run_id), run_id).live_trace()
                )
        case "async client":
            on_asyncio = AsyncHasty(_endpoint(base_url, key))
            async with aclosing(on_asyncio):

                async def follow(run_id: str) -> list[Any]:
                    run = AsyncRun(on_asyncio, run_path(run_id), run_id)
                    return [event async for event in run.live_trace()]

                yield follow
        case "raw HTTP":
            headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
            async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=60.0) as http:
                yield partial(read_raw, http)


async def read_raw(http: httpx2.AsyncClient, run_id: str) -> list[Row]:
    """The events of a run as anybody reads them who knows HTTP and the standard of event streams."""
    rows: list[Row] = []
    last_id, in_vain = "", 0
    while not rows or rows[-1].event not in TERMINAL_EVENTS:
        had, decoder = len(rows), Decoder()
        resume = {"Last-Event-ID": last_id} if last_id else {}
        # What has come before a connection breaks counts; one that falls silent is a lie.
        with suppress(httpx2.NetworkError, httpx2.RemoteProtocolError):
            async with http.stream("GET", f"/flow-runs/{run_id}/trace/stream", headers=resume) as answer:
                assert answer.status_code == 200, f"the answer after event {last_id!r} is {answer}"
                async for part in answer.aiter_raw():
                    rows += [Row(int(frame.id), frame.event, frame.data) for frame in decoder.feed(part)]
        last_id = decoder.last_event_id or last_id
        in_vain = in_vain + 1 if len(rows) == had else 0
        assert in_vain < _MOST_IN_VAIN, f"{in_vain} connections after event {last_id!r} brought nothing"
    return rows


Way = Literal["refuses", "closes", "resets", "half-closes", "half-closes upstream"]
WAYS: tuple[Way, ...] = get_args(Way)

FLOW = """
slug: steady
steps:
  - id: each
    type: loop
    over: list(range(40))
    steps:
      - {id: hold, type: wait, ms: 4}
      - {id: copy, type: passthrough, input: {text: "{{ initial.message }}"}}
"""
BODY = {"trace": True, "message": "“Grüße” 日本語 🎉 one\u2028line"}

READERS = 3
"""Of each kind, on a run that goes on; one more of each follows when it has ended."""

LONGEST_S = 60.0
ENDLESS = 1 << 40
MEAN_BYTES = 1500
MOST_IN_VAIN = 5
"""Connections in a row that may be cut before a reader got anything; clients give up after some more."""

_REQUEST = re.compile(rb"GET /([^/ ]+)/")


class Route:
    """What one reader meets: how its connections break, by its seed."""

    def __init__(self, seed: str, *, going_on: Callable[[], bool]) -> None:
        self.resumes = 0
        self.live_resumes = 0
        self._going_on = going_on
        self._chance = random.Random(seed)
        self._after = -1
        self._in_vain = 0

    def next(self, after: int) -> tuple[int, Way] | None:
        """After how many bytes the next connection breaks, and how; None where it is left alone."""
        if self._after >= 0:
            self.resumes += 1
            self.live_resumes += self._going_on()
        self._in_vain = 0 if after > self._after else self._in_vain + 1
        self._after = after
        if self._in_vain >= MOST_IN_VAIN:
            return None
        return int(self._chance.expovariate(1 / MEAN_BYTES)), self._chance.choice(WAYS)

    def pause_s(self) -> float:
        """How long the next piece is held back: mostly not at all."""
        return self._chance.choice([0, 0, 0, 0, 0.001, 0.003])

    def piece(self) -> int:
        """The most bytes that are passed on at once."""
        return self._chance.choice([1, 100, 4096, 65536])


class Proxy(Cutting):
    """Stands before the server at `address`; each reader has a base URL of its own."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._host, self._port = address.removeprefix("http://").split(":")
        self._routes: dict[str, Route] = {}

    def base_url(self, name: str, route: Route) -> str:
        self._routes[name] = route
        return f"http://127.0.0.1:{self.port}/{name}/api/v1"

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        found = _REQUEST.match(head)
        assert found is not None, f"the request is odd: {head[:200]!r}"
        route = self._routes[found[1].decode()]
        count, way = route.next(resumed_after(head)) or (ENDLESS, None)
        if way == "refuses":
            await self._break(way, reader, writer)
            return False
        server, to_server = await self._ask(head.replace(found[0], b"GET /", 1))
        with closing(to_server):
            await _relay(server, writer, count, route)
            if way == "half-closes upstream":
                await self._break(way, server, to_server)
            elif way is not None:
                await self._break(way, reader, writer)
            if way == "resets":
                reset(to_server)
        return False

    async def _ask(self, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Sends the head of a request to the server, by a connection that ends with the answer."""
        server, to_server = await asyncio.open_connection(self._host, int(self._port))
        to_server.write(re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", head))
        return server, to_server


async def _relay(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, count: int, route: Route
) -> None:
    """Passes on so many bytes, or what there is."""
    while count and (part := await source.read(min(count, route.piece()))):
        count -= len(part)
        target.write(part)
        await target.drain()
        if pause_s := route.pause_s():
            await asyncio.sleep(pause_s)


def break_live(resumes: int, *, seed: int) -> list[str]:
    """Starts runs and has them followed through the proxy until the readers have come back that often.

    Returns the lines of a report; raises AssertionError with the reader that saw something else than the log.
    """
    with server_on("sqlite", FLOW, log_level="error", ping_s=0.05) as server, as_one_lie():
        return asyncio.run(_break_live(server, resumes, seed))


async def _break_live(server: RunningServer, resumes: int, seed: int) -> list[str]:
    routes: list[Route] = []
    runs = events = 0
    headers = {"Authorization": f"Bearer {server.key}"}
    async with (
        Proxy(server.address).serving() as proxy,
        httpx2.AsyncClient(base_url=server.base_url, headers=headers) as http,
    ):

        async def follow(kind: Kind, name: str, witness: asyncio.Task[list[Row]]) -> None:
            route = Route(f"{seed} {name}", going_on=lambda: not witness.done())
            routes.append(route)
            with noted([f"seed {seed}, {kind} {name!r}, following run {run!r}"]):
                async with reader(kind, proxy.base_url(name, route), server.key) as read:
                    async with asyncio.timeout(LONGEST_S):
                        seen = await read(run)
                wanted = expected(kind, tuple(await witness))
                assert seen == wanted, f"it saw {seen} instead of {wanted}"

        while sum(route.resumes for route in routes) < resumes:
            runs += 1
            started = await http.post("/seq/acme/demo/steady/jobs", json=BODY)
            run = started.json()["executionId"]
            async with asyncio.TaskGroup() as group:
                witness = group.create_task(read_raw(http, run))
                for number in range(READERS * len(KINDS)):
                    group.create_task(follow(KINDS[number % len(KINDS)], f"{runs}-{number}", witness))
            for kind in KINDS:
                await follow(kind, f"{runs}-{kind[0]}", witness)
            events += len(witness.result())
        await proxy.require_all_left()
    total, live = (
        sum(counts) for counts in zip(*((each.resumes, each.live_resumes) for each in routes), strict=True)
    )
    ways = ", ".join(f"{way} {count:,}" for way, count in proxy.broken.most_common())
    return [
        f"through a proxy: {total:,} resumes, {live:,} of them while the run went on, "
        f"in {len(routes):,} readings of {runs} runs with {events:,} events",
        f"connections that the proxy broke: {ways}",
    ]
