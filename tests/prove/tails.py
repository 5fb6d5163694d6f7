"""Many tails on one run: each sees exactly the log, and what they cost in memory does not grow with it.

The server has a process of its own, so that the memory measured is its alone. The readers are bare sockets:
each compares what it gets, byte by byte, with the stream that the log makes.
"""

import asyncio
import multiprocessing
import re
import socket
import time
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from runglass.log.events import FlowCompleted, StepProgress, encode_event, event_type_of
from runglass.store.records import Append, RunRecord
from runglass.tails.run_log import PAGE_BYTES
from runglass.testing import ORG, PROJECT, RunningServer, running_server
from runglass.wire.sse import RETRY, frame
from tests.records import new_run

RUN_ID = "019a0000-0000-7000-8000-000000000001"
AT = "2026-01-01T00:00:00.000Z"
OWNER = "tails"
EVENT_BYTES = 1000
RATE = 1000
"""Events per second, as far as the machine can."""

CONNECTION_BYTES = 40 * 1024
"""Most that the connection of a tail may cost the server."""
STALLED_BYTES = 4 * PAGE_BYTES
"""Most that a tail may hold of the log for a slow client: two pages that the system has not accepted yet, and
one that waits, as rows and as frames. The busier the machine is, the more of a page is full."""
ROOM_BYTES = 32 << 20
"""Most that the server may need beside: threads, caches of the database, up to 10 MiB of appends that
wait, and what the allocator keeps of what is freed."""
TIMED = 100
"""How many of the tails note when each event came."""
SMALL_BUFFER = 4096
PATIENCE_S = 120


async def tails(fast: int = 1000, slow: int = 200, events: int = 2000) -> list[str]:
    """Follows one run with `fast` tails that read and `slow` ones that stop reading until it has ended.

    Raises AssertionError if one of them sees anything but the log, or if memory grows with what they miss.
    """
    log = _log(events)
    stream = RETRY + b"".join(frame(seq, event_type_of(data), data) for seq, data in enumerate(log, 1))
    async with asyncio.timeout(PATIENCE_S), _server(events) as server:
        idle_bytes = await server.memory()
        began_s = time.perf_counter()
        readers = [_Reader(stream, timed=n < TIMED) for n in range(fast + slow)]
        for n, reader in enumerate(readers):
            await reader.open(server, stalls=n >= fast)
        await asyncio.gather(*[reader.started for reader in readers])
        connected_s = time.perf_counter() - began_s
        connected_bytes = await server.memory()
        began_s = time.perf_counter()
        written = await server.write()
        await asyncio.gather(*[reader.ended for reader in readers[:fast]])
        wrote_s = time.perf_counter() - began_s
        full_bytes = await server.memory()
        behind = [len(stream) - reader.seen for reader in readers[fast:]]
        for reader in readers[fast:]:
            reader.go_on()
        await asyncio.gather(*[reader.ended for reader in readers])
        last_bytes = await server.memory()
    for n, reader in enumerate(readers):
        assert reader.seen == len(stream), f"tail {n} ended {len(stream) - reader.seen} bytes early"
    # One that has everything in its socket's buffer was never slow, and proves nothing.
    assert all(missing > len(stream) // 2 for missing in behind), (
        "the slow tails were not slow: write more events"
    )
    connections, held = connected_bytes - idle_bytes, last_bytes - connected_bytes
    most = (fast + slow) * CONNECTION_BYTES + ROOM_BYTES
    assert connections <= most, f"connecting took {_mib(connections)}, more than {_mib(most)}"
    most = slow * STALLED_BYTES + ROOM_BYTES
    assert held <= most, f"following took {_mib(held)}, more than {_mib(most)}"
    lines = [
        f"{fast} tails and {slow} slow ones, {events} events of {EVENT_BYTES} B: each saw exactly the log",
        f"connected in {connected_s:.1f} s, followed for {wrote_s:.1f} s",
        f"peak memory: {_mib(idle_bytes)} idle, {_mib(connected_bytes)} connected, {_mib(full_bytes)} after "
        f"the run, {_mib(last_bytes)} after the slow ones; unread by them: {_mib(sum(behind))}",
    ]
    if fast:
        lines.append(_latencies(written, stream, readers[: min(fast, TIMED)]))
    return lines


def _log(events: int) -> list[bytes]:
    """The log of a run with so many events, the last one included."""
    text = "x" * EVENT_BYTES
    parts = (
        StepProgress(execution_id=RUN_ID, seq=seq, at=AT, step_id="say", attempt=1, text=text)
        for seq in range(1, events)
    )
    end = FlowCompleted(execution_id=RUN_ID, seq=events, at=AT, run_id=RUN_ID)
    return [*map(encode_event, parts), encode_event(end)]


def _latencies(due_at_s: list[float], stream: bytes, readers: "list[_Reader]") -> str:
    ends = list(accumulate(len(part) for part in re.split(rb"(?<=\n\n)", stream) if part))[1:]
    late_ms = []
    for reader in readers:
        before = 0
        for at_s, seen in reader.arrivals:
            until = bisect_right(ends, seen)
            late_ms += [(at_s - due_s) * 1000 for due_s in due_at_s[before:until]]
            before = until
    cuts = quantiles(late_ms, n=100)
    spent_s = max(reader.arrivals[-1][0] for reader in readers) - due_at_s[0]
    return (
        f"{len(due_at_s) / spent_s:.0f} events/s of {RATE} asked; from when one is due until a tail has it: "
        f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, most {max(late_ms):.1f} ms"
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


class _Reader(asyncio.Protocol):
    """A tail as a bare socket. `seen` counts the bytes of the stream that came and were right."""

    def __init__(self, stream: bytes, *, timed: bool) -> None:
        loop = asyncio.get_running_loop()
        self.seen = 0
        self.arrivals: list[tuple[float, int]] = []
        self.started: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._stream = stream
        self._timed = timed
        self._stalls = False
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    async def open(self, server: "_Server", *, stalls: bool) -> None:
        self._stalls = stalls
        connection = socket.socket()
        if stalls:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (server.host, server.port))
        self._transport, _ = await loop.create_connection(lambda: self, sock=connection)
        self._transport.write(
            f"GET /api/v1/flow-runs/{RUN_ID}/trace/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: Bearer {server.key}\r\n\r\n".encode()
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
        self._read_parts()
        if self._timed:
            self.arrivals.append((time.perf_counter(), self.seen))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.started.done():
            self.started.set_exception(AssertionError(f"a tail got no stream but {self._rest[:300]!r}"))
        if not self.ended.done():
            self.ended.set_result(None)

    def _read_parts(self) -> None:
        """Takes the whole parts of the chunked encoding."""
        while (line := self._rest.find(b"\r\n")) >= 0:
            start, size = line + 2, int(self._rest[:line], 16)
            if len(self._rest) < start + size + 2:
                return
            part = self._rest[start : start + size]
            if not self._stream.startswith(part, self.seen):
                assert self._transport is not None
                if not self.ended.done():
                    message = f"after byte {self.seen} a tail got {part[:300]!r}"
                    self.ended.set_exception(AssertionError(message))
                self._transport.abort()
                return
            self.seen += size
            self._rest = self._rest[start + size + 2 :]


class _Server(NamedTuple):
    """The server's process, asked through a pipe."""

    pipe: "Connection[Any, Any]"
    host: str
    port: int
    key: str

    async def memory(self) -> int:
        """Its peak of resident memory, in bytes."""
        return int(await self._ask("measure"))

    async def write(self) -> list[float]:
        """Writes the whole log; when each event was due, on this machine's monotonic clock."""
        found: list[float] = await self._ask("write")
        return found

    async def _ask(self, what: str) -> Any:
        self.pipe.send(what)
        try:
            return await asyncio.to_thread(self.pipe.recv)
        except EOFError as error:
            raise AssertionError(f"the server broke down when asked to {what}; it said why above") from error


@asynccontextmanager
async def _server(events: int) -> AsyncIterator[_Server]:
    spawning = multiprocessing.get_context("spawn")
    mine, its = spawning.Pipe()
    process = spawning.Process(target=_serve, args=(its, events))
    process.start()
    its.close()
    try:
        address, key = await asyncio.to_thread(mine.recv)
        place = urlsplit(address)
        yield _Server(mine, place.hostname, place.port, key)
        mine.send("stop")
        await asyncio.to_thread(process.join)
        assert process.exitcode == 0, f"the server ended with {process.exitcode}"
    finally:
        process.kill()
        await asyncio.to_thread(process.join)
        mine.close()


def _serve(pipe: "Connection[Any, Any]", events: int) -> None:
    log = _log(events)
    # No pings: they would stand between the events.
    with running_server(ping_s=3600) as server:
        run = server.call(_new_run(server))
        pipe.send((server.address, server.key))
        while (asked := pipe.recv()) != "stop":
            pipe.send(_peak_bytes() if asked == "measure" else server.call(_write(server, run, log)))


async def _new_run(server: RunningServer) -> RunRecord:
    store = server.runtime.store
    project = await store.ensure_project(ORG, PROJECT)
    # The server must not take the run for one that nobody goes on with.
    await store.hold_lease(OWNER, until="9999-01-01T00:00:00.000Z", renew=False)
    flow = await store.put_draft(project.id, "followed", name=None, capture=None, source=b"{}")
    new = new_run(project.id, flow.id, id=RUN_ID, owner=OWNER)
    return await store.create_run(new)


async def _write(server: RunningServer, run: RunRecord, log: list[bytes]) -> list[float]:
    """When each event was due. None waits for the one before: a busy server must not slow its load down."""
    due_at_s: list[float] = []
    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for head, data in enumerate(log):
            due_at_s.append(began_s + head / RATE)
            await asyncio.sleep(max(0.0, due_at_s[-1] - time.perf_counter()))
            status = "running" if head + 1 < len(log) else "completed"
            batch = Append(
                run_no=run.no,
                head=head,
                fence=run.fence,
                events=[data],
                status=status,
                summary=b"{}",
                owner=OWNER,
            )
            group.create_task(_append(server, run, batch))
    return due_at_s


async def _append(server: RunningServer, run: RunRecord, batch: Append) -> None:
    await server.runtime.store.append(batch)
    await server.runtime.bus.wake(run.id)


def _peak_bytes() -> int:
    # Not `getrusage`: there a new process inherits the peak of the one that started it.
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None, "this system does not tell a process's peak of memory"
    return int(found[1]) * 1024
