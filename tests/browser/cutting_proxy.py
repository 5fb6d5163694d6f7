"""A proxy before a server that cuts its event streams off, again and again, wherever they are."""

import asyncio
import random
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from anyio.from_thread import start_blocking_portal

from tests.prove.clustering.network import Between

MEAN_BYTES = 1_500
"""How much of a stream comes through, on average."""
LONGEST_S = 60.0

_STREAM = re.compile(rb"GET [^ ?]*/stream[ ?]")


class CuttingProxy(Between):
    """Passes requests on, and cuts each event stream off until it is healed."""

    def __init__(self, server: str, *, seed: int) -> None:
        super().__init__()
        self._cuts = threading.Semaphore(0)
        self._is_healed = False
        self._host, self._port = server.removeprefix("http://").split(":")
        self._chance = random.Random(seed)

    def heal_after(self, cuts: int) -> None:
        """Waits until so many streams have been cut off, and leaves those that come in peace."""
        for _ in range(cuts):
            assert self._cuts.acquire(timeout=LONGEST_S), "no stream was asked for that could be cut off"
        self._is_healed = True

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # A browser leaves when it likes.
        with closing(to_client), suppress(asyncio.IncompleteReadError):
            head = await client.readuntil(b"\r\n\r\n")
            head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", head)
            reader, writer = await asyncio.open_connection(self._host, int(self._port))
            self.opened.add(writer)
            with closing(writer):
                writer.write(head)
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                if length:
                    writer.write(await client.readexactly(int(length[1])))
                is_cut = _STREAM.match(head) is not None and not self._is_healed
                left = int(self._chance.expovariate(1 / MEAN_BYTES)) if is_cut else 1 << 40
                while left and (part := await reader.read(min(left, 65_536))):
                    left -= len(part)
                    to_client.write(part)
                    await to_client.drain()
                if is_cut and not left:
                    self._cuts.release()
                    to_client.transport.abort()


@contextmanager
def cutting_proxy(server: str, *, seed: int) -> Iterator[tuple[str, CuttingProxy]]:
    """The address of a proxy before the server at `server`, and the proxy, in a thread of its own."""
    proxy = CuttingProxy(server, seed=seed)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(proxy.serving()):
        yield f"http://127.0.0.1:{proxy.port}", proxy
