"""A proxy before a server that cuts its event streams off, again and again, wherever they are."""

import asyncio
import random
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

MEAN_BYTES = 1_500
"""How much of a stream comes through, on average."""
LONGEST_S = 60.0

_STREAM = re.compile(rb"GET [^ ?]*/stream[ ?]")


class CuttingProxy:
    """Passes requests on, and cuts each event stream off until it is healed."""

    def __init__(self, server: str, *, seed: int) -> None:
        self._cuts = threading.Semaphore(0)
        self._is_healed = False
        self._open: set[asyncio.StreamWriter] = set()
        self._host, self._port = server.removeprefix("http://").split(":")
        self._chance = random.Random(seed)

    def heal_after(self, cuts: int) -> None:
        """Waits until so many streams have been cut off, and leaves those that come in peace."""
        for _ in range(cuts):
            assert self._cuts.acquire(timeout=LONGEST_S), "no stream was asked for that could be cut off"
        self._is_healed = True

    async def listen(self) -> asyncio.Server:
        """Begins to take connections, on a free port."""
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def end(self) -> None:
        """Ends all connections, and waits until they are."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*others)

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # A browser leaves when it likes, and so may the server that is stopped.
        with self._keeping(to_client), suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await client.readuntil(b"\r\n\r\n")
            head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", head)
            reader, writer = await asyncio.open_connection(self._host, int(self._port))
            with self._keeping(writer):
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
    def _keeping(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._open.add(writer)
        with closing(writer):
            yield
        self._open.discard(writer)


@contextmanager
def cutting_proxy(server: str, *, seed: int) -> Iterator[tuple[str, CuttingProxy]]:
    """The address of a proxy before the server at `server`, and the proxy, in a thread of its own."""
    proxy = CuttingProxy(server, seed=seed)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cutting-proxy")
    thread.start()
    try:
        listening = asyncio.run_coroutine_threadsafe(proxy.listen(), loop).result()
        try:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", proxy
        finally:
            listening.close()
            asyncio.run_coroutine_threadsafe(proxy.end(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
