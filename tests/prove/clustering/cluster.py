"""A whole cluster: PostgreSQL, servers behind one address, workers, and the load that they bear."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Self

import asyncpg
import httpx2
import msgspec

from runglass.config.settings import Settings
from tests.prove.clustering.database import NOTES, Postgres, plant_ignored_fence
from tests.prove.clustering.fairness import CROWD
from tests.prove.clustering.member import Member
from tests.prove.clustering.network import Balancer
from tests.prove.clustering.plan import LEASE_S, Fault
from tests.prove.clustering.service import Nats, Service, suffer
from tests.prove.killing.book import PLACE
from tests.prove.killing.line import TIMEOUT_S, Line, Signal
from tests.prove.killing.outside import Outside
from tests.prove.killing.program import ROOT, THIS, Program
from tests.prove.killing.server import free_port
from tests.waiting import until

SERVERS, WORKERS = 3, 4
DATABASE = "runglass"
PLACES = 8
"""Runs that a worker executes at once."""
STOP_GRACE_S = 0.5
RETRY_S = 0.1
MANY = 1_000_000
UP_LIMIT_S = 60.0
NAMES = [*(f"server {n}" for n in range(1, SERVERS + 1)), *(f"worker {n}" for n in range(1, WORKERS + 1))]


def has_nats(seed: int) -> bool:
    """Whether wake-ups go by NATS; in every other seed they go by the database."""
    return seed % 2 == 0


def services(seed: int) -> list[str]:
    return ["postgres", "nats"] if has_nats(seed) else ["postgres"]


class _Pause:
    """Whoever waits for a server to be gone goes to another one, in a moment."""

    async def wait(self) -> None:
        await asyncio.sleep(RETRY_S)


class Servers:
    """All servers behind one address, as callers have them: any of them may be about to stop."""

    up: Signal = _Pause()
    gone: Signal = _Pause()
    stopping = True


class Cluster:
    """The processes, by their names, and ways to speak to them."""

    def __init__(self, postgres: Postgres, nats: Nats | None, outside: Outside, keys: dict[str, str]) -> None:
        self.postgres = postgres
        self._services: dict[str, Service] = {"postgres": postgres}
        if nats is not None:
            self._services["nats"] = nats
        self.outside = outside
        self.members: dict[str, Member] = {}
        self.line: Line
        self.crowd: Line
        self._keys = keys

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        seed: int,
        *,
        ignores_fence: bool = False,
        plant: str = "",
        lease_s: float = LEASE_S,
        stop_grace_s: float = STOP_GRACE_S,
        program: Program = THIS,
        names: Sequence[str] = NAMES,
    ) -> AsyncIterator[Self]:
        """Processes of these names, ready, until the block ends, on a database of their `program`'s schema.

        `ignores_fence` plants that fault in the store, and `plant` one in the processes.
        """
        folder = Path(tempfile.mkdtemp(prefix="runglass-cluster-"))
        try:
            async with AsyncExitStack() as stack:
                outside = await stack.enter_async_context(Outside.serving(seed))
                postgres = await stack.enter_async_context(Postgres.serving())
                nats = await stack.enter_async_context(Nats.serving()) if has_nats(seed) else None
                keys = await _furnish(postgres, program, ignores_fence=ignores_fence)
                cluster = cls(postgres, nats, outside, keys)
                try:
                    await cluster._start(stack, folder, names, lease_s, stop_grace_s, program, plant)
                    await cluster._connect(stack, seed)
                    yield cluster
                finally:
                    # All at once: one after the other they take seconds to be gone.
                    for member in cluster.members.values():
                        member.end()
        except AssertionError as lie:
            lie.add_note(f"the logs of all processes are kept in {folder}")
            raise
        except BaseException:
            rmtree(folder)
            raise
        rmtree(folder)

    @property
    def servers(self) -> list[Member]:
        return [member for name, member in self.members.items() if name.startswith("server")]

    @property
    def address(self) -> str:
        """The database, for the proof's own statements."""
        return self.postgres.address(DATABASE)

    async def suffer(self, fault: Fault) -> None:
        """Lets a fault come and go."""
        member = self.members.get(fault.target)
        if member is not None:
            await member.suffer(fault)
            return
        await suffer(self._services[fault.target], fault)

    async def all_up(self) -> None:
        """Returns when nothing is wrong with any process. Raises AssertionError if that takes too long."""
        for member in self.members.values():
            member.be_well()
        try:
            async with asyncio.timeout(UP_LIMIT_S):
                await until(lambda: all(each.is_up for each in self.members.values()), every_s=0.05)
        except TimeoutError:
            down = [f"{name}: {each.process.said()}" for name, each in self.members.items() if not each.is_up]
            raise AssertionError(
                f"{UP_LIMIT_S:g} s after the last fault there still are down: {down}"
            ) from None

    def line_to(self, member: Member, http: httpx2.AsyncClient) -> Line:
        """A line to one server alone."""
        return Line(member.process, http, retry_s=RETRY_S)

    @asynccontextmanager
    async def client_of(self, base_url: str, place: str = PLACE) -> AsyncIterator[httpx2.AsyncClient]:
        """HTTP with the key of a project; each request has a connection of its own, to any server."""
        async with httpx2.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {self._keys[place]}"},
            timeout=TIMEOUT_S,
            limits=httpx2.Limits(max_keepalive_connections=0),
        ) as http:
            yield http

    async def _start(
        self,
        stack: AsyncExitStack,
        folder: Path,
        names: Sequence[str],
        lease_s: float,
        stop_grace_s: float,
        program: Program,
        plant: str,
    ) -> None:
        async def start(name: str) -> None:
            settings = Settings(
                data=folder / name.replace(" ", "-"),
                port=free_port(),
                executes_runs=name.startswith("worker"),
                lease_s=lease_s,
                max_concurrent_runs=PLACES,
                providers={"outside": self.outside.base_url},
                provider_keys={"outside": "none"},
                crash_retries=MANY,
                stop_grace_s=stop_grace_s,
                log_level="warning",
            )
            ports = {service: each.port for service, each in self._services.items()}
            made = Member.made(name, settings, ports, self._database, program, plant)
            self.members[name] = await stack.enter_async_context(made)

        async with asyncio.TaskGroup() as starting:
            for name in names:
                starting.create_task(start(name))
        await self.all_up()
        watching = asyncio.create_task(self._watch_takeovers())
        stack.callback(watching.cancel)

    async def _connect(self, stack: AsyncExitStack, seed: int) -> None:
        def accepting() -> list[int]:
            return [each.process.settings.port for each in self.servers if each.takes_calls]

        balancer = await stack.enter_async_context(Balancer.before(accepting, seed=seed))
        base_url = f"http://127.0.0.1:{balancer.port}/api/v1"
        http = await stack.enter_async_context(self.client_of(base_url))
        self.line = Line(Servers(), http, retry_s=RETRY_S)
        http = await stack.enter_async_context(self.client_of(base_url, CROWD))
        self.crowd = Line(Servers(), http, retry_s=RETRY_S)

    def _database(self, port: int, who: str) -> str:
        return self.postgres.address(DATABASE, port=port, who=who)

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


async def _furnish(postgres: Postgres, program: Program, *, ignores_fence: bool) -> dict[str, str]:
    """Makes the database with two projects and all flows, published; the keys of the projects."""
    connection = await asyncpg.connect(postgres.address("postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()
    address = postgres.address(DATABASE)
    printed = await program.run("tests.prove.clustering.furnish", address, tests=ROOT)
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(NOTES)
    finally:
        await connection.close()
    if ignores_fence:
        await plant_ignored_fence(address)
    return msgspec.json.decode(printed, type=dict[str, str])
