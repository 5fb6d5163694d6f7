"""A whole cluster: PostgreSQL, servers behind one address, workers, and the load that they bear."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

import asyncpg
import httpx2

from tests.laws.law import require
from tests.postgres_server import connected
from tests.prove.child import write_clock
from tests.prove.clustering.database import NOTES, Service, nats, plant_ignored_fence, postgres
from tests.prove.clustering.member import DATABASE, LEASE_S, Fault, Member, address_of
from tests.prove.clustering.network import Balancer
from tests.prove.killing.flows import Outside
from tests.prove.killing.line import TIMEOUT_S, Book, Line, Signal, disagreements
from tests.prove.killing.load import Load
from tests.prove.killing.server import ROOT, THIS, Program, kept_after_a_lie
from tests.waiting import until

SERVERS, WORKERS = 3, 4
PLACES = 8
"""Runs that a worker executes at once."""
STOP_GRACE_S = 0.5
RETRY_S = 0.1
CALLERS, WATCHERS, PAUSE_S = 16, 4, 0.1
"""A load that two processors bear beside the faults: a cluster that is only slow says nothing."""
UP_LIMIT_S = 60.0
NAMES = [*(f"server {n}" for n in range(1, SERVERS + 1)), *(f"worker {n}" for n in range(1, WORKERS + 1))]


def services(seed: int) -> list[str]:
    """What all processes use: in every other seed wake-ups go by NATS, else by the database."""
    return ["postgres", "nats"] if seed % 2 == 0 else ["postgres"]


class _Pause:
    """Whoever waits for a server to be gone goes to another one, in a moment."""

    async def wait(self) -> None:
        await asyncio.sleep(RETRY_S)


class Servers:
    """All servers behind one address, as callers have them: any of them may be about to stop."""

    up: Signal = _Pause()
    gone: Signal = _Pause()
    stopping = True


class Shape(NamedTuple):
    """What a cluster is made of. `ignores_fence` is a fault of the store, `plant` one of the processes."""

    names: Sequence[str] = NAMES
    lease_s: float = LEASE_S
    stop_grace_s: float = STOP_GRACE_S
    program: Program = THIS
    plant: str = ""
    ignores_fence: bool = False


class Cluster:
    """The processes, by their names, and ways to speak to them."""

    def __init__(self, services: dict[str, Service], outside: Outside, key: str) -> None:
        self._services = services
        self.outside = outside
        self.members: dict[str, Member] = {}
        self.line: Line
        self._key = key

    @classmethod
    @asynccontextmanager
    async def running(cls, seed: int, shape: Shape | None = None) -> AsyncIterator[Self]:
        """All processes, ready, until the block ends, on a database of their program's schema."""
        shape = shape or Shape()
        with kept_after_a_lie("runglass-cluster-") as folder:
            async with AsyncExitStack() as stack:
                outside = await stack.enter_async_context(Outside().serving())
                running = {"postgres": await stack.enter_async_context(postgres())}
                if "nats" in services(seed):
                    running["nats"] = await stack.enter_async_context(nats().running())
                key = await _furnish(running["postgres"].port, shape)
                cluster = cls(running, outside, key)
                try:
                    await cluster._start(stack, folder, shape)
                    await cluster._connect(stack, seed)
                    yield cluster
                finally:
                    # All at once: one after the other they take seconds to be gone.
                    for member in cluster.members.values():
                        member.end()

    @property
    def servers(self) -> list[Member]:
        return [member for name, member in self.members.items() if name.startswith("server")]

    @property
    def address(self) -> str:
        return address_of(self._services["postgres"].port, "prove")

    async def suffer(self, fault: Fault) -> None:
        await (self.members.get(fault.target) or self._services[fault.target]).suffer(fault)

    async def all_up(self) -> None:
        """Returns when nothing is wrong with any process. Raises AssertionError if that takes too long."""
        for member in self.members.values():
            write_clock(member.clock, 0.0)
        try:
            async with asyncio.timeout(UP_LIMIT_S):
                await until(lambda: all(each.is_up for each in self.members.values()), every_s=0.05)
        except TimeoutError:
            down = [f"{name}: {each.process.said()}" for name, each in self.members.items() if not each.is_up]
            raise AssertionError(
                f"{UP_LIMIT_S:g} s after the last fault there still are down: {down}"
            ) from None

    def load(self, book: Book, place: str, *, watchers: int = WATCHERS) -> Load:
        return Load(self.line, book, place, callers=CALLERS, watchers=watchers, pause_s=PAUSE_S)

    async def read_everywhere(self, book: Book, place: str) -> None:
        """Every server must tell the same of the last runs. Raises AssertionError."""
        for server in self.servers:
            async with self.client_of(server.process.base_url) as http:
                lies = await disagreements(Line(server.process, http), book)
                require(lies, f"{place}, {server.name}")

    def client_of(self, base_url: str) -> httpx2.AsyncClient:
        """HTTP with a key; each request has a connection of its own, to any server."""
        return httpx2.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=TIMEOUT_S,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    async def _start(self, stack: AsyncExitStack, folder: Path, shape: Shape) -> None:
        async def start(name: str) -> None:
            settings = self.outside.settings(
                folder / name.replace(" ", "-"),
                executes_runs=name.startswith("worker"),
                lease_s=shape.lease_s,
                max_concurrent_runs=PLACES,
                stop_grace_s=shape.stop_grace_s,
            )
            ports = {service: each.port for service, each in self._services.items()}
            made = Member(name, settings, ports, shape.program, shape.plant)
            self.members[name] = await stack.enter_async_context(made)

        async with asyncio.TaskGroup() as starting:
            for name in shape.names:
                starting.create_task(start(name))
        await self.all_up()
        watching = asyncio.create_task(self._watch_takeovers())
        stack.callback(watching.cancel)

    async def _connect(self, stack: AsyncExitStack, seed: int) -> None:
        def accepting() -> list[int]:
            # Nobody is given a server that is about to end.
            processes = [each.process for each in self.servers if each.is_up]
            return [each.template.settings.port for each in processes if not each.stopping]

        before = Balancer(accepting, random.Random(f"balancer {seed}"))
        balancer = await stack.enter_async_context(before.serving())
        base_url = f"http://127.0.0.1:{balancer.port}/api/v1"
        http = await stack.enter_async_context(self.client_of(base_url))
        self.line = Line(Servers(), http, retry_s=RETRY_S)

    async def _watch_takeovers(self) -> None:
        """Tells members when another process has one of their runs, as far as the database lives."""

        def take(*notified: object) -> None:
            name, _, life = str(notified[-1]).partition(", life ")
            member = self.members.get(name)
            if member is not None and life == str(member.lives):
                member.was_lost.set()

        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                connection = await asyncpg.connect(self.address, timeout=2.0)
                try:
                    await connection.add_listener("takeover", take)
                    await until(connection.is_closed, every_s=RETRY_S)
                finally:
                    connection.terminate()
            await asyncio.sleep(RETRY_S)


async def _furnish(port: int, shape: Shape) -> str:
    """Makes the database with all flows, published; a key."""
    address = address_of(port, "prove")
    await _execute(address_of(port, "prove", "postgres"), f"CREATE DATABASE {DATABASE}")
    key = await shape.program.run("tests.prove.furnish", address, tests=ROOT)
    await _execute(address, NOTES)
    if shape.ignores_fence:
        await plant_ignored_fence(address)
    return key


async def _execute(address: str, statements: str) -> None:
    async with connected(address) as connection:
        await connection.execute(statements)
