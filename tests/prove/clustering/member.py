"""A process of the cluster: started again whenever it is gone, on a link of its own to the database."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Self

import msgspec

from runglass.config.settings import Settings
from tests.prove.child import write_clock
from tests.prove.clustering.network import Link
from tests.prove.clustering.plan import Fault
from tests.prove.killing.program import Program
from tests.prove.killing.server import KilledServer
from tests.waiting import until

AGAIN_S = 0.5
"""Before a process is started again that has ended by itself."""

READY_LIMIT_S = 120.0
"""How long a process may take to become ready in the place of one that was stopped."""

AddressOf = Callable[[int, str], str]
"""The database's address by way of a port, for a client with this name."""


class Member:
    """One server or worker, kept running until the block ends; its processes may have the fault `plant`.

    `lives` counts its processes; `ended` are those that ended by themselves.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        services: dict[str, int],
        address: AddressOf,
        program: Program,
        plant: str,
    ) -> None:
        self.name = name
        self.program = program
        self.process: KilledServer
        self.lives = 0
        self.ended: list[str] = []
        self.was_lost = asyncio.Event()
        self._settings = settings
        self._links = {name: Link(port) for name, port in services.items()}
        self._address = address
        self._plant = plant
        self._down_s = AGAIN_S
        self._closing = False
        self._is_due = False
        self._clock = settings.data / "clock"
        self._stack = AsyncExitStack()
        self._servers: dict[Program, KilledServer] = {}

    async def __aenter__(self) -> Self:
        self._settings.data.mkdir()
        write_clock(self._clock, 0.0)
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

    @property
    def takes_calls(self) -> bool:
        """Whether a balancer may give it connections: it accepts, and is not about to end."""
        return self.is_up and not self.process.stopping

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
                process.freeze()
                await asyncio.sleep(fault.lasts_s)
                process.thaw()
            case "freeze until takeover":
                self.was_lost.clear()
                process.freeze()
                with suppress(TimeoutError):
                    async with asyncio.timeout(fault.lasts_s):
                        await self.was_lost.wait()
                process.thaw()
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
                write_clock(self._clock, fault.far_s)

    def end(self) -> None:
        """It is killed for good; returns before it is gone."""
        self._closing = True
        self.process.end()

    def be_well(self) -> None:
        """Nothing is wrong with it any more, but that it may be on its way up."""
        write_clock(self._clock, 0.0)

    async def replace(self, program: Program | None = None) -> float:
        """Stops the process in order and starts another one, of a `program` if given, and waits for it.

        Returns the seconds that the first one took to end. Raises AssertionError if it does not, or if the
        other one does not become ready.
        """
        if program is not None:
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
            process.serves, process.clock = self.name.startswith("server"), self._clock
            process.plant = self._plant
            self.lives += 1
            who = f"{self.name}, life {self.lives}"
            address = self._address(self._links["postgres"].port, who)
            nats = self._links.get("nats")
            bus = None if nats is None else f"nats://127.0.0.1:{nats.port}"
            process.settings = msgspec.structs.replace(process.settings, store=address, bus=bus)
            self._is_due = False
            await process.start()
            await process.gone.wait()
            if not self._is_due and not self._closing:
                self.ended.append(f"{who} ended by itself with {process.exit_code}: {process.said()[-800:]}")
                self._down_s = AGAIN_S
            await asyncio.sleep(self._down_s)
