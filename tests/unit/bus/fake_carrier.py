"""A carrier in memory, between buses of one event loop, that does what networks do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from runglass.bus.carrier import BusAway, Hear, Send
from runglass.bus.process_bus import ProcessBus
from tests.waiting import until

Network = Callable[[str, Hear], None]


def deliver(text: str, hear: Hear) -> None:
    """A network that is as one would like it."""
    hear(text)


async def at_once() -> None:
    """Sending waits for nothing."""


class FakeCarrier:
    """Carries texts to all who are connected to it, through `network`, while it is not `away`.

    What is sent waits for `ready` first.
    """

    name = "nats://fake"

    def __init__(self) -> None:
        self.network: Network = deliver
        self.ready: Callable[[], Awaitable[None]] = at_once
        self.away = False
        self.sent: list[str] = []
        self.connections = 0
        self._connected: dict[Hear, Hear] = {}

    @asynccontextmanager
    async def connect(self, *, hear: Hear, lost: Hear) -> AsyncIterator[Send]:
        self._refuse()
        self.connections += 1
        self._connected[hear] = lost
        try:
            yield self.send
        finally:
            self._connected.pop(hear, None)

    def cut(self) -> None:
        """Every connection is lost, and none is made until `away` is False."""
        self.away = True
        for lost in self._connected.values():
            lost("cut")
        self._connected.clear()

    async def send(self, text: str) -> None:
        await self.ready()
        self._refuse()
        self.sent.append(text)
        for hear in list(self._connected):
            self.network(text, hear)

    def _refuse(self) -> None:
        if self.away:
            raise BusAway(f"{self.name}: away")


@asynccontextmanager
async def running(*buses: ProcessBus) -> AsyncIterator[None]:
    """The buses run until the block ends, and are connected at its start."""
    tasks = [asyncio.create_task(bus.run_forever()) for bus in buses]
    try:
        await connected(*buses)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def connected(*buses: ProcessBus) -> None:
    """Returns once all hear each other."""
    await until(lambda: all(bus.is_connected for bus in buses))
