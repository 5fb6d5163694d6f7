"""Spans of other programs: how many a second, until all of them can be read, and the memory."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import flows
from bench.children import BenchError, Child, Server
from bench.measuring import Side, side_by_side
from bench.memory import tree_memory
from bench.rows import Goal, Row
from bench.spans import bodies, send
from bench.stage import Stage, add_key, serve
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime, open_store

PEER = "phoenix"
AIM = 20_000
MOST_OF_PEER = 10_000
"""More take the peer a quarter of an hour."""


def rows(stage: Stage) -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(stage.new_folder())
        key = asyncio.run(_key(folder))
        server = stack.enter_context(serve(folder))
        peer = stage.phoenix
        for count in stage.sizes.spans:
            grown_mb: list[float] = []
            sides: dict[str, Side] = {"ours": partial(_rate, server, folder, key, count, grown_mb)}
            if peer is not None and count <= MOST_OF_PEER:
                sides[PEER] = partial(_their_rate, peer, count)
            found = side_by_side(sides, rounds=stage.sizes.rounds if count < 100_000 else 1)
            yield Row(
                figure=f"{count:,} spans over OTLP/HTTP, until all can be read",
                unit="spans/s",
                better="more",
                ours=found["ours"],
                peers={PEER: found.get(PEER, ())} if count <= MOST_OF_PEER else {},
                goal=Goal(at=AIM),
                note="requests of 512 spans, four at a time; the last answer is when all can be read",
            )
            yield Row(
                figure=f"memory that the server has grown by with {count:,} spans",
                unit="MB",
                ours=grown_mb,
            )


def _rate(server: Server, folder: Path, key: str, count: int, grown_mb: list[float]) -> float:
    """Spans a second from the first request on; notes by how much the server has grown."""
    requests, traces = bodies(count)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-protobuf"}
    before, began_s = tree_memory(server.pid), time.perf_counter()
    send(server.address, requests, headers)
    spent_s = time.perf_counter() - began_s
    grown_mb.append((tree_memory(server.pid) - before) / 1e6)
    found = asyncio.run(_stored(folder, traces))
    if found != count:
        raise BenchError(f"{found} of {count} spans are there")
    return count / spent_s


def _their_rate(peer: Child, count: int) -> float:
    spent_s: float = peer.ask(do="send", spans=count)["s"]
    return count / spent_s


async def _key(folder: Path) -> str:
    async with open_runtime(Settings(data=folder)) as runtime:
        return await add_key(runtime)


async def _stored(folder: Path, traces: list[str]) -> int:
    """How many spans of these traces can be read."""
    async with open_store(Settings(data=folder)) as store:
        project = await store.ensure_project(flows.ORG, flows.PROJECT)
        runs = (await store.recorded_traces(project.id, traces)).values()
        return sum([await store.last_position(run.no) for run in runs if run is not None])
