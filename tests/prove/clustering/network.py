"""What lies between processes: links that can be cut one way or the other, and a balancer before servers.

Bytes alone: what they mean is known to the subclasses of `Answering`, which answer requests of HTTP.
"""

import asyncio
import random
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Self

CHUNK = 1 << 16
NOBODY_S = 0.05
"""How long a caller of nobody waits before it is turned away."""


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection so that the other side hears of a reset, and not of an end."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Between(ABC):
    """Accepts connections on `port`, and passes on what comes over them."""

    def __init__(self) -> None:
        self.port = 0
        self.opened: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Accepts until the block ends, and with it every connection."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            while self.tasks:
                self.reset()
                await asyncio.wait(set(self.tasks), timeout=0.1)

    async def until_all_left(self) -> None:
        """Returns when all have left their connections."""
        while self.tasks:
            await asyncio.wait(self.tasks)

    def reset(self) -> None:
        """Ends every connection at once, with all that is on its way."""
        for writer in self.opened:
            if not writer.is_closing():
                reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.opened.add(writer)
        try:
            await self._serve(reader, writer)
        except OSError:
            # Nobody is there: the connection ends, as it would without anything between.
            writer.transport.abort()
        finally:
            self.opened.discard(writer)
            self.tasks.discard(task)

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what comes over one connection, as long as both sides want it."""

    async def _pass_on(
        self,
        port: int,
        one: asyncio.StreamReader,
        to_one: asyncio.StreamWriter,
        up: asyncio.Event,
        down: asyncio.Event,
    ) -> None:
        """Connects to the port and passes everything on, until one of the sides ends; then ends the other."""
        other, to_other = await asyncio.open_connection("127.0.0.1", port)
        self.opened.add(to_other)
        ways = {
            asyncio.create_task(_relay(one, to_other, up)),
            asyncio.create_task(_relay(other, to_one, down)),
        }
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        # What the side that has ended had said is still on its way, unless it is held.
        await asyncio.wait(ways, timeout=0.1)
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        self.opened.discard(to_other)
        for writer in (to_one, to_other):
            writer.close()


async def _relay(source: asyncio.StreamReader, target: asyncio.StreamWriter, may: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK):
            await may.wait()
            target.write(data)
            await target.drain()


class Answering(Between):
    """Answers requests of HTTP, one after the other on each connection."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever asks may leave first, as a client does after the last event of a run.
        with closing(writer), suppress(asyncio.IncompleteReadError):
            while await self._answer(await reader.readuntil(b"\r\n\r\n"), reader, writer):
                continue

    @abstractmethod
    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers the request; whether the connection stays open for another one."""


class Link(Between):
    """The way from a process to the service at a port.

    What is cut is held, as by a network that loses packets and sends them again, until `heal`; then it comes
    late, or never where the connection was reset.
    """

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self.heal()

    def cut(self, *, up: bool, down: bool) -> None:
        """Holds what goes to the service, what comes from it, or both; new connections as well."""
        for is_cut, way in ((up, self._up), (down, self._down)):
            if is_cut:
                way.clear()

    def heal(self) -> None:
        self._up.set()
        self._down.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._up.wait()
        await self._pass_on(self._target, reader, writer, self._up, self._down)


class Balancer(Between):
    """Gives each connection to one of the servers that accept, whose ports `accepting` tells."""

    def __init__(self, accepting: Callable[[], list[int]], chance: random.Random) -> None:
        super().__init__()
        self._accepting = accepting
        self._chance = chance
        self._may = asyncio.Event()
        self._may.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = self._accepting()
        if ports:
            await self._pass_on(self._chance.choice(ports), reader, writer, self._may, self._may)
        else:
            await asyncio.sleep(NOBODY_S)
            writer.transport.abort()
