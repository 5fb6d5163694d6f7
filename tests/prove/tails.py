"""Many tails on one run: each sees exactly the log, and what they cost in memory does not grow with it.

The server has a process of its own, so that the memory measured is its alone. The readers are bare sockets:
what each gets must be, byte by byte, what a reader gets that comes when the run has ended.
"""

import asyncio
import hashlib
import socket
import tempfile
from pathlib import Path

import httpx2

from bench.memory import peak
from runglass.tails.run_log import PAGE_BYTES
from tests.contract.wire import walked
from tests.e2e.command import fill, served
from tests.prove.attacking.attack import loop
from tests.prove.attacking.http import Connection, head

COPY = {"id": "copy", "type": "passthrough", "input": {"text": "x" * 500}}
# Tails that could not keep up without pauses would be slow ones.
PAUSE = {"id": "pause", "type": "wait", "ms": 5}
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
    steps = [{"id": "wait", "type": "passthrough"}, *loop(events // 6, [COPY, PAUSE])]
    with tempfile.TemporaryDirectory(prefix="runglass-tails-") as folder:
        data = Path(folder)
        key = await asyncio.to_thread(fill, data, {"slug": "followed", "capture": "full", "steps": steps})
        # No pings: they would stand between the events.
        quiet = {"RUNGLASS_PING_S": "3600", "RUNGLASS_STALLED_WRITE_LIMIT_S": "3600"}
        with served(data, key, env=quiet) as (server, http):
            async with asyncio.timeout(PATIENCE_S):
                await _step(http, stepIndex=0, runRemaining=True)
                run_id = await _step(http, stepIndex=0)
                idle_bytes = peak(server.pid)
                readers = [await _opened(http, run_id, stalls=False) for _ in range(fast)]
                stalled = [await _opened(http, run_id, stalls=True) for _ in range(slow)]
                connected_bytes = peak(server.pid)
                following = [asyncio.create_task(_seen_by(tail)) for tail in readers]
                await _step(http, executionId=run_id, stepIndex=1, runRemaining=True)
                seen = await asyncio.gather(*following)
                full_bytes = peak(server.pid)
                stream = http.get(f"/flow-runs/{run_id}/trace/stream").content
                for tail in stalled:
                    tail.writer.transport.resume_reading()  # type: ignore[attr-defined]
                seen += await asyncio.gather(*map(_seen_by, stalled))
                last_bytes = peak(server.pid)
            assert server.terminate() == 0
    assert len(stream) > STALLED_BYTES, (
        "the log is too short for a tail to stand still in it: tell more events"
    )
    digest = hashlib.sha256(stream).digest()
    odd = [number for number, found in enumerate(seen) if found != digest]
    assert not odd, f"tails {odd[:20]} saw something else than the log"
    connections, held = connected_bytes - idle_bytes, last_bytes - connected_bytes
    most = (fast + slow) * CONNECTION_BYTES + ROOM_BYTES
    assert connections <= most, f"connecting took {_mib(connections)}, more than {_mib(most)}"
    most = slow * STALLED_BYTES + ROOM_BYTES
    assert held <= most, f"following took {_mib(held)}, more than {_mib(most)}"
    return [
        f"{fast} tails and {slow} slow ones of {_mib(len(stream))}, {events // 6} iterations: each saw it",
        f"peak memory: {_mib(idle_bytes)} idle, {_mib(connected_bytes)} connected, {_mib(full_bytes)} after "
        f"the run, {_mib(last_bytes)} after the slow ones",
    ]


async def _step(http: httpx2.Client, **body: object) -> str:
    """Goes on with the run that the body names, or a new one, as far as it says; the run's id."""
    events = await asyncio.to_thread(walked, http, "/seq/acme/shop/followed/step", **body)
    return str(events[0].data["executionId"])


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


async def _opened(http: httpx2.Client, run_id: str, *, stalls: bool) -> Connection:
    """A tail of the run, whose stream has begun; one that `stalls` takes nothing more of it."""
    place, raw = http.base_url, socket.socket()
    if stalls:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (place.host, place.port))
    tail = Connection(*await asyncio.open_connection(sock=raw), f"{place.host}:{place.port}")
    headers = [("Connection", "close"), ("Authorization", http.headers["Authorization"])]
    await tail.send(head("GET", f"/api/v1/flow-runs/{run_id}/trace/stream", host=tail.host, headers=headers))
    status, _ = await tail.answer_head()
    assert status == 200, f"a tail got no stream but {status}"
    if stalls:
        tail.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return tail


async def _seen_by(tail: Connection) -> bytes:
    """A digest of the stream, once it has ended."""
    digest = hashlib.sha256()
    async with tail:
        while part := await tail.chunk():
            digest.update(part)
    return digest.digest()
