"""A raw HTTP server that plays scenes: it drips, cuts and lies on a real socket, as told.

It runs on an event loop in a thread of its own, so that blocking and asyncio clients meet the same server.
At the end is what a server sends of a short run: its stream, six events long, its result, and its place in
a list.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Self

import msgspec
from anyio.from_thread import start_blocking_portal

from runglass import StreamEvent
from runglass.wire.sse import RETRY, frame
from tests.prove.clustering.network import Answering, reset
from tests.unit.client.sides import RUN, Side

Scene = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request and the bare connection that it came on."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = request.split(" ")
        pairs = (line.partition(": ") for line in lines if line)
        self.headers = {name.lower(): value for name, _, value in pairs}
        self.body = b""
        self.keeps_open = False
        self._reader = reader
        self.connection = writer

    async def read_body(self) -> bytes:
        self.body = await self._reader.readexactly(int(self.headers.get("content-length", "0")))
        return self.body

    async def send(self, data: bytes) -> None:
        self.connection.write(data)
        await self.connection.drain()

    async def start(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Status line and headers; without a length among them the body ends with the connection."""
        lines = [f"{name}: {value}\r\n" for name, value in (headers or {}).items()]
        await self.send(f"HTTP/1.1 {status} X\r\n{''.join(lines)}\r\n".encode())

    async def hung_up(self, *, within_s: float | None = None) -> bool:
        """Whether the client closes its end within that time; without one this waits for it."""
        try:
            async with asyncio.timeout(within_s):
                return await self._reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    async def drip(self, data: bytes) -> None:
        """A byte every 20 ms, until the client has had enough."""
        for position in range(len(data)):
            if await self.hung_up(within_s=0.02):
                return
            await self.send(data[position : position + 1])


class ScriptedServer(Answering):
    """Plays the given scenes, one per request; the last one again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Exchange] = []
        self._scenes: list[Scene] = []
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        self._portal = self._entered.enter_context(start_blocking_portal())
        self._entered.enter_context(self._portal.wrap_async_context_manager(self._listening()))
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        return self

    def __exit__(self, *exc: object) -> None:
        self._entered.close()

    def plays(self, *scenes: Scene) -> None:
        self._scenes = list(scenes)

    def sent(self) -> list[Any]:
        """The bodies of the requests."""
        return [msgspec.json.decode(each.body) for each in self.requests]

    def targets(self, path: str) -> list[str]:
        """What each request has asked for behind this path."""
        return [each.target.removeprefix(f"/api/v1{path}") for each in self.requests]

    def until_left(self) -> None:
        """Returns when clients have closed all of their connections."""
        self._portal.start_task_soon(self.until_all_left).result(timeout=60)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        before = asyncio.all_tasks()
        async with self.serving():
            yield
            # Connections that are being accepted as it closes would be left open.
            while accepting := asyncio.all_tasks() - self.tasks - before:
                await asyncio.wait(accepting, timeout=0.01)

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        exchange = Exchange(head, reader, writer)
        self.requests.append(exchange)
        scene = self._scenes.pop(0) if len(self._scenes) > 1 else self._scenes[0]
        await scene(exchange)
        return exchange.keeps_open


def flow(side: Side, server: ScriptedServer) -> Any:
    return side.client(server.url).flow("a/p/s")


def answers(
    body: object = None, *, status: int = 200, headers: Mapping[str, str] | None = None, chunked: bool = False
) -> Scene:
    """A whole, good answer: `body` as it is where it is bytes, else as JSON."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)

    async def scene(exchange: Exchange) -> None:
        await exchange.read_body()
        length = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(data))}
        await exchange.start(status, {**length, **(headers or {})})
        await exchange.send(in_chunk(data) + LAST_CHUNK if chunked else data)
        exchange.keeps_open = True

    return scene


def refuses(status: int, code: str, *, headers: Mapping[str, str] | None = None, **details: object) -> Scene:
    """An error in the shape of the wire contract."""
    detail = {"code": code, "message": f"no: {code}", **details}
    return answers({"detail": detail}, status=status, headers=headers)


async def hangs_up(exchange: Exchange) -> None:
    """Reads the request and closes without a word."""
    await exchange.read_body()


class Mute:
    """Takes requests and never answers, or streams that never go on."""

    def __init__(self, *, opens: int) -> None:
        self._opens = opens
        self.asked = threading.Event()
        self.left = threading.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.read_body()
        for _ in range(self._opens):
            await exchange.start(200, EVENT_STREAM)
        self.asked.set()
        if await exchange.hung_up(within_s=60):
            self.left.set()


def in_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


LAST_CHUNK = b"0\r\n\r\n"
EVENT_STREAM = {"content-type": "text/event-stream", "cache-control": "no-store"}
CHUNKED = {**EVENT_STREAM, "transfer-encoding": "chunked"}


def sends(body: bytes, headers: Mapping[str, str] = EVENT_STREAM) -> Scene:
    """Begins an answer, by default an event stream, sends that much and closes it in good order."""

    async def scene(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.start(200, headers)
        await exchange.send(body)

    return scene


def resets(scene: Scene = hangs_up) -> Scene:
    """Plays the scene and ends the connection with a reset."""

    async def reset_after(exchange: Exchange) -> None:
        await scene(exchange)
        reset(exchange.connection)

    return reset_after


def waits(scene: Scene = hangs_up) -> Scene:
    """Plays the scene and says no more, until the client has had enough."""

    async def wait_after(exchange: Exchange) -> None:
        await scene(exchange)
        await exchange.hung_up()

    return wait_after


def drips(data: bytes, headers: Mapping[str, str] | None = None, *, status: int = 200) -> Scene:
    """An answer, or with `headers` what comes behind them, a byte every 20 ms."""

    async def scene(exchange: Exchange) -> None:
        if headers is not None:
            await exchange.start(status, headers)
        await exchange.drip(data)

    return scene


DRIPPING = {
    "headers": drips(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 5000),
    "chunk header": drips(b"5;" + b"x" * 5000, CHUNKED),
}
"""Answers of which the HTTP library yields nothing, as long as they last."""


def event(seq: int, kind: str, **fields: object) -> bytes:
    """One frame."""
    return frame(
        seq, kind, msgspec.json.encode({"eventType": kind, "executionId": "r1", "seq": seq, **fields})
    )


FRAMES = [
    event(1, "run_started", runId="r1", flowId="f", stepCount=1, triggerType="api", version=1),
    event(2, "step_started", stepId="s", stepIndex=0, attempt=1),
    event(3, "step_output", stepId="s", outputData={"text": "é"}),
    event(4, "brand_new", stepId="s"),
    event(5, "step_completed", stepId="s", stepIndex=0, attempt=1, durationMs=1),
    event(6, "flow_completed", runId="r1", result={"text": "é"}),
]
SEQS = [1, 2, 3, 4, 5, 6]


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
RESULT = {"status": "completed", "result": {"text": "x"}, "flowId": "f", "blockCount": 1, "executionId": RUN}
"""What a call is answered with whose run has completed."""


def page(*ids: str, cursor: str | None = None) -> Scene:
    """A page of completed runs."""
    runs = [{"id": each, "flowId": "f", "status": "completed"} for each in ids]
    return answers({"runs": runs, "nextCursor": cursor})


def stream(*, after: int = 0) -> bytes:
    """The whole body of a stream that resumes after that event."""
    return RETRY + b"".join(FRAMES[after:])


def seqs(events: Iterable[StreamEvent]) -> list[int]:
    return [event.seq for event in events]
