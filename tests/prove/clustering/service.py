"""What all processes of the cluster use, and what may happen to it; and the smaller one of two, NATS."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self

from tests.prove.clustering.plan import Fault
from tests.prove.killing.server import free_port

NATS = Path(sys.executable).parent / "nats-server"


class Service(Protocol):
    """A server on a port of its own; one process after another."""

    port: int

    async def start(self) -> None: ...
    async def kill(self) -> None: ...
    async def stop(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


async def suffer(service: Service, fault: Fault) -> None:
    """Lets the fault come and go."""
    match fault.kind:
        case "kill" | "restart":
            await (service.kill() if fault.kind == "kill" else service.stop())
            await asyncio.sleep(fault.lasts_s)
            await service.start()
        case _:
            service.freeze()
            await asyncio.sleep(fault.lasts_s)
            service.thaw()


class Nats:
    """A NATS server, which keeps nothing."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator[Self]:
        """A server, until the block ends."""
        server = cls()
        await server.start()
        try:
            yield server
        finally:
            await server.kill()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            str(NATS),
            *("--addr", "127.0.0.1", "--port", str(self.port)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _end(self, number: int) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()
