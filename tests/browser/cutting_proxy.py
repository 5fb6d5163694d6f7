"""A proxy before a server that cuts its event streams off, again and again, wherever they are."""

import asyncio
import random
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from anyio.from_thread import start_blocking_portal

from tests.prove.clustering.network import reset
from tests.prove.proxied import ENDLESS, LONGEST_S, MEAN_BYTES, Proxy

_STREAM = re.compile(rb"GET [^ ?]*/stream[ ?]")


class CuttingProxy(Proxy):
    """Passes requests on, and cuts each event stream off until it is healed."""

    def __init__(self, server: str, *, seed: int) -> None:
        super().__init__(server)
        self._cuts = threading.Semaphore(0)
        self._is_healed = False
        self._chance = random.Random(seed)

    def heal_after(self, cuts: int) -> None:
        """Waits until so many streams have been cut off, and leaves those that come in peace."""
        for _ in range(cuts):
            assert self._cuts.acquire(timeout=LONGEST_S), "no stream was asked for that could be cut off"
        self._is_healed = True

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        server, to_server = await self._ask(head)
        self.opened.add(to_server)
        with closing(to_server):
            if length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
                to_server.write(await reader.readexactly(int(length[1])))
            is_cut = _STREAM.match(head) is not None and not self._is_healed
            left = int(self._chance.expovariate(1 / MEAN_BYTES)) if is_cut else ENDLESS
            while left and (part := await server.read(min(left, 65_536))):
                left -= len(part)
                writer.write(part)
                await writer.drain()
            if is_cut and not left:
                self._cuts.release()
                reset(writer)
        return False


@contextmanager
def cutting_proxy(server: str, *, seed: int) -> Iterator[tuple[str, CuttingProxy]]:
    """The address of a proxy before the server at `server`, and the proxy, in a thread of its own."""
    proxy = CuttingProxy(server, seed=seed)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(proxy.serving()):
        yield f"http://127.0.0.1:{proxy.port}", proxy
