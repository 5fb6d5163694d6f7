"""A proxy that keeps cutting a real server off, and readers that follow runs through it while they go on."""

import asyncio
import random
import re
from collections.abc import Callable
from contextlib import closing
from typing import Literal, get_args

import httpx2

from runglass.testing import RunningServer, running_server
from tests.prove.clustering.network import reset
from tests.prove.readers import KINDS, Kind, as_one_lie, expected, noted, read_raw, reader
from tests.prove.recorded import Row
from tests.prove.replay import Cutting, resumed_after

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

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            head = await client.readuntil(b"\r\n\r\n")
            found = _REQUEST.match(head)
            assert found is not None, f"the request is odd: {head[:200]!r}"
            route = self._routes[found[1].decode()]
            count, way = route.next(resumed_after(head)) or (ENDLESS, None)
            if way is not None:
                self.broken[way] += 1
            if way != "refuses":
                request = head.replace(found[0], b"GET /", 1)
                request = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", request)
                server, to_server = await asyncio.open_connection(self._host, int(self._port))
                with closing(to_server):
                    to_server.write(request)
                    await _relay(server, to_client, count, route)
                    match way:
                        case "resets":
                            reset(to_client)
                            reset(to_server)
                        case "half-closes":
                            to_client.write_eof()
                            await self._until_left(client)
                        case "half-closes upstream":
                            to_server.write_eof()
                            await self._until_left(server)
        finally:
            # A reader may leave first, as a client does after the last event.
            to_client.close()


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
    with running_server(log_level="error", ping_s=0.05) as server:
        server.push(FLOW)
        with as_one_lie():
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
            with noted(f"seed {seed}, {kind} {name!r}, following run {run!r}"):
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
                witness = group.create_task(read_raw(server.base_url, run, server.key))
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
