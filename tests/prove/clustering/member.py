"""What breaks in a cluster and when, and a process of it: started again whenever it is gone.

All of the plan follows from a seed, before anything is started.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from signal import SIGCONT, SIGSTOP
from typing import Literal, NamedTuple, Self, get_args

from msgspec.structs import replace

from runglass.config.settings import Settings
from tests.prove.child import write_clock
from tests.prove.clustering.network import Link
from tests.prove.killing.server import KilledServer, Program
from tests.waiting import until

LEASE_S = 3.0
"""The lease of the processes under trial: takeovers come in seconds, and most faults outlast some leases."""

Kind = Literal[
    "kill", "stop", "freeze", "freeze until takeover", "cut up", "cut down", "cut both", "reset", "clock"
]
"""`freeze` is SIGSTOP and SIGCONT later; a cut holds what a process sends to its database (`up`), what it is
sent (`down`), or both; `reset` ends its connections."""
OfService = Literal["kill", "freeze", "restart"]
"""What happens to a service that all processes use."""

SERVICE_SHARE = 0.08
"""Faults that hit a service and so everybody."""
GAP_S = 1.0
"""From the beginning of one fault to the next, in the mean."""
CLOCKS_S = (-3600.0, -60.0, -5.0, -0.5, 0.5, 5.0, 60.0, 3600.0)


class Fault(NamedTuple):
    """`gap_s` after the one before; `far_s` is by how much a clock is wrong from now on."""

    gap_s: float
    target: str
    kind: Kind | OfService
    lasts_s: float = 0.0
    far_s: float = 0.0

    def __str__(self) -> str:
        if self.kind == "clock":
            return f"clock of {self.target} {self.far_s:+g} s"
        return f"{self.kind} {self.target}" + (f" for {self.lasts_s:.1f} s" if self.lasts_s else "")


def plan(seed: int, faults: int, *, members: Sequence[str], services: Sequence[str]) -> Iterator[Fault]:
    """So many faults in their order; the same for the same arguments."""
    chance, now_s = random.Random(f"cluster {seed}"), 0.0
    busy_until: dict[str, float] = {}
    for _ in range(faults):
        gap_s = min(chance.expovariate(1 / GAP_S), 4 * GAP_S)
        now_s += gap_s
        # One whose last fault still lasts has enough of it: what is free comes first.
        free = [each for each in members if busy_until.get(each, 0.0) <= now_s] or list(members)
        if chance.random() < SERVICE_SHARE:
            target = chance.choice(services)
            kind: Kind | OfService = chance.choice(get_args(OfService))
            lasts_s = chance.uniform(0.1, LEASE_S)
        else:
            target, kind = chance.choice(free), chance.choice(get_args(Kind))
            lasts_s = _lasts_s(chance, kind)
        busy_until[target] = now_s + lasts_s
        far_s = chance.choice(CLOCKS_S) if kind == "clock" else 0.0
        yield Fault(gap_s, target, kind, lasts_s, far_s)


def _lasts_s(chance: random.Random, kind: str) -> float:
    match kind:
        case "clock" | "reset":
            return 0.0
        case "kill" | "stop":
            # How long nobody starts it again.
            return chance.choice((0.1, chance.uniform(0.1, 2 * LEASE_S)))
        case "freeze until takeover":
            return 3 * LEASE_S
    return chance.choice((chance.uniform(0.1, LEASE_S), chance.uniform(LEASE_S, 2.5 * LEASE_S)))


AGAIN_S = 0.5
"""Before a process is started again that has ended by itself."""

READY_LIMIT_S = 120.0
"""How long a process may take to become ready in the place of one that was stopped."""

DATABASE = "runglass"


def address_of(port: int, who: str, database: str = DATABASE) -> str:
    """Where a client with this name finds the database, by way of a port."""
    name = who.replace(" ", "%20")
    return f"postgresql://postgres@127.0.0.1:{port}/{database}?application_name={name}&sslmode=disable"


class Member:
    """One server or worker, kept running until the block ends; its processes may have the fault `plant`.

    `lives` counts its processes; `ended` are those that ended by themselves.
    """

    def __init__(
        self, name: str, settings: Settings, services: dict[str, int], program: Program, plant: str
    ) -> None:
        self.name = name
        self.program = program
        self.process: KilledServer
        self.lives = 0
        self.ended: list[str] = []
        self.was_lost = asyncio.Event()
        self._settings = settings
        self._links = {name: Link(port) for name, port in services.items()}
        self._plant = plant
        self._down_s = AGAIN_S
        self._closing = False
        self._is_due = False
        self.clock = settings.data / "clock"
        self._stack = AsyncExitStack()
        self._servers: dict[Program, KilledServer] = {}

    async def __aenter__(self) -> Self:
        self._settings.data.mkdir()
        write_clock(self.clock, 0.0)
        await self._prepare(self.program)
        self.process = self._servers[self.program]
        for link in self._links.values():
            await self._stack.enter_async_context(link.serving())
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.end()
        self._keeping.cancel()
        await asyncio.wait({self._keeping})
        for link in self._links.values():
            link.heal()
        await self._stack.aclose()

    async def _prepare(self, program: Program) -> None:
        """Returns when a process of the program can be forked: there is one parent for each program."""
        if program not in self._servers:
            made = KilledServer.made(self._settings, program)
            self._servers[program] = await self._stack.enter_async_context(made)

    @property
    def is_up(self) -> bool:
        return self.process.up.is_set()

    async def suffer(self, fault: Fault) -> None:
        process = self.process
        match fault.kind:
            case "kill":
                self._is_due, self._down_s = True, fault.lasts_s
                process.kill()
                await process.gone.wait()
            case "stop":
                self._is_due, self._down_s = True, fault.lasts_s
                if self.is_up:
                    await process.stop()
                else:
                    # Before it is ready a signal to stop ends it as any program.
                    process.kill()
                    await process.gone.wait()
            case "freeze":
                process.signal(SIGSTOP)
                await asyncio.sleep(fault.lasts_s)
                process.signal(SIGCONT)
            case "freeze until takeover":
                self.was_lost.clear()
                process.signal(SIGSTOP)
                with suppress(TimeoutError):
                    async with asyncio.timeout(fault.lasts_s):
                        await self.was_lost.wait()
                process.signal(SIGCONT)
            case "cut up" | "cut down" | "cut both":
                for link in self._links.values():
                    link.cut(up=fault.kind != "cut down", down=fault.kind != "cut up")
                await asyncio.sleep(fault.lasts_s)
                for link in self._links.values():
                    link.heal()
            case "reset":
                for link in self._links.values():
                    link.reset()
            case "clock":
                write_clock(self.clock, fault.far_s)

    def end(self) -> None:
        """It is killed for good; returns before it is gone."""
        self._closing = True
        self.process.end()

    async def replace(self, program: Program) -> float:
        """Stops the process in order and starts another one, of the program, and waits for it.

        Returns the seconds that the first one took to end. Raises AssertionError if it does not, or if the
        other one does not become ready.
        """
        await self._prepare(program)
        self.program = program
        before, began_s = self.lives, time.monotonic()
        self._is_due, self._down_s = True, 0.0
        await self.process.stop()
        ended_s = time.monotonic() - began_s
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                await until(lambda: self.lives > before and self.is_up, every_s=0.01)
        except TimeoutError:
            said = "; ".join(self.ended) or self.process.said()
            raise AssertionError(f"{self.name} is not ready after {READY_LIMIT_S:g} s: {said}") from None
        return ended_s

    async def _keep(self) -> None:
        while not self._closing:
            process = self.process = self._servers[self.program]
            self.lives += 1
            who = f"{self.name}, life {self.lives}"
            address = address_of(self._links["postgres"].port, who)
            nats = self._links.get("nats")
            bus = None if nats is None else f"nats://127.0.0.1:{nats.port}"
            process.template = replace(
                process.template,
                settings=replace(process.template.settings, store=address, bus=bus),
                serves=self.name.startswith("server"),
                clock=self.clock,
                plant=self._plant,
            )
            self._is_due = False
            await process.start()
            await process.gone.wait()
            if not self._is_due and not self._closing:
                self.ended.append(f"{who} ended by itself with {process.exit_code}: {process.said()[-800:]}")
                self._down_s = AGAIN_S
            await asyncio.sleep(self._down_s)
