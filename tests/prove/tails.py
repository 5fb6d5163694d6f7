"""Many tails on one run: each sees exactly the log, and what they cost in memory does not grow with it.

The server has a process of its own, so that the memory measured is its alone. The readers are bare sockets:
what each gets must be, byte by byte, what a reader gets that comes when the run has ended.
"""

import asyncio
import hashlib
import re
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from runglass.config.settings import Settings
from runglass.runtime.composition import open_store
from runglass.tails.run_log import PAGE_BYTES
from tests.e2e.command import started
from tests.prove.furnish import furnish
from tests.prove.killing.book import PLACE

TEXT_BYTES = 500
# With pauses: tails that could not keep up with it would be slow ones.
FLOW = """
slug: followed
capture: full
steps:
  - {{id: wait, type: passthrough}}
  - id: each
    type: loop
    over: list(range({count}))
    steps: [{{id: copy, type: passthrough, input: {{text: "{text}"}}}}, {{id: pause, type: wait, ms: 5}}]
"""
CONNECTION_BYTES = 40 * 1024
"""Most that the connection of a tail may cost the server."""
STALLED_BYTES = 4 * PAGE_BYTES
"""Most that a tail may hold of the log for a slow client: two pages that the system has not accepted yet, and
one that waits, as rows and as frames. The busier the machine is, the more of a page is full."""
ROOM_BYTES = 32 << 20
"""Most that the server may need beside: threads, caches of the database, and what the allocator keeps of what
is freed. What a run takes it has had before."""
SMALL_BUFFER = 4096
PATIENCE_S = 120


async def tails(fast: int = 1000, slow: int = 200, events: int = 2000) -> list[str]:
    """Follows one run with `fast` tails that read and `slow` ones that stop reading until it has ended.

    Raises AssertionError if one of them sees anything but the log, or if memory grows with what they miss.
    """
    flow = FLOW.format(count=events // 6, text="x" * TEXT_BYTES)
    with tempfile.TemporaryDirectory(prefix="runglass-tails-") as folder:
        async with open_store(Settings(data=Path(folder))) as store:
            key = await furnish(store, PLACE, [flow])
        # No pings: they would stand between the events.
        quiet = {"RUNGLASS_PING_S": "3600", "RUNGLASS_STALLED_WRITE_LIMIT_S": "3600"}
        with started("serve", "--port", "0", "--data", folder, env=quiet) as server:
            address, headers = server.line().split()[1], {"Authorization": f"Bearer {key}"}
            base_url = f"{address}/api/v1"
            async with (
                asyncio.timeout(PATIENCE_S),
                httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=PATIENCE_S) as http,
            ):
                await _step(http, stepIndex=0, runRemaining=True)
                run_id = await _step(http, stepIndex=0)
                idle_bytes = _peak_bytes(server.pid)
                readers = [_Reader() for _ in range(fast + slow)]
                for number, reader in enumerate(readers):
                    await reader.open(address, key, run_id, stalls=number >= fast)
                await asyncio.gather(*[reader.started for reader in readers])
                connected_bytes = _peak_bytes(server.pid)
                await _step(http, executionId=run_id, stepIndex=1, runRemaining=True)
                await asyncio.gather(*[reader.ended for reader in readers[:fast]])
                full_bytes = _peak_bytes(server.pid)
                stream = (await http.get(f"/flow-runs/{run_id}/trace/stream")).content
                behind = [len(stream) - reader.seen for reader in readers[fast:]]
                for reader in readers[fast:]:
                    reader.go_on()
                await asyncio.gather(*[reader.ended for reader in readers])
                last_bytes = _peak_bytes(server.pid)
            assert server.terminate() == 0
    digest = hashlib.sha256(stream).digest()
    odd = [number for number, reader in enumerate(readers) if reader.digest.digest() != digest]
    assert not odd, f"tails {odd[:20]} saw something else than the log"
    # One that has everything in its socket's buffer was never slow, and proves nothing.
    assert all(missing > len(stream) // 2 for missing in behind), (
        "the slow tails were not slow: write more events"
    )
    connections, held = connected_bytes - idle_bytes, last_bytes - connected_bytes
    most = (fast + slow) * CONNECTION_BYTES + ROOM_BYTES
    assert connections <= most, f"connecting took {_mib(connections)}, more than {_mib(most)}"
    most = slow * STALLED_BYTES + ROOM_BYTES
    assert held <= most, f"following took {_mib(held)}, more than {_mib(most)}"
    return [
        f"{fast} tails and {slow} slow ones of {_mib(len(stream))}, {events // 6} iterations: each saw it",
        f"peak memory: {_mib(idle_bytes)} idle, {_mib(connected_bytes)} connected, {_mib(full_bytes)} after "
        f"the run, {_mib(last_bytes)} after the slow ones; unread by them: {_mib(sum(behind))}",
    ]


async def _step(http: httpx2.AsyncClient, **body: object) -> str:
    """Goes on with the run that the body names, or a new one, as far as it says; the run's id."""
    answer = await http.post(f"/seq/{PLACE}/followed/step", json=body)
    assert answer.status_code == 200, answer.text
    return answer.text.split('"executionId":"')[1][:36]


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _peak_bytes(pid: int) -> int:
    """The most memory that the process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None, "this system does not tell a process's peak of memory"
    return int(found[1]) * 1024


class _Reader(asyncio.Protocol):
    """A tail as a bare socket. `seen` counts the bytes that came of the stream, `digest` is theirs."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.seen = 0
        self.digest = hashlib.sha256()
        self.started: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._stalls = False
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    async def open(self, address: str, key: str, run_id: str, *, stalls: bool) -> None:
        self._stalls = stalls
        place = urlsplit(address)
        connection = socket.socket()
        if stalls:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (place.hostname, place.port))
        self._transport, _ = await loop.create_connection(lambda: self, sock=connection)
        self._transport.write(
            f"GET /api/v1/flow-runs/{run_id}/trace/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: Bearer {key}\r\n\r\n".encode()
        )

    def go_on(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self.started.done():
            head, end, self._rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            assert head.startswith(b"HTTP/1.1 200 "), head
            self.started.set_result(None)
            if self._stalls:
                assert self._transport is not None
                self._transport.pause_reading()
        # The whole parts of the chunked encoding.
        while (line := self._rest.find(b"\r\n")) >= 0:
            start, size = line + 2, int(self._rest[:line], 16)
            if len(self._rest) < start + size + 2:
                return
            self.digest.update(self._rest[start : start + size])
            self.seen += size
            self._rest = self._rest[start + size + 2 :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.started.done():
            self.started.set_exception(AssertionError(f"a tail got no stream but {self._rest[:300]!r}"))
        if not self.ended.done():
            self.ended.set_result(None)
