"""The limit of following: each byte that comes in on a port is one ready event to every connection.

Nothing is recorded, stored or read. `do` is `begin` or `end`, as in `paced.py`.
"""

import asyncio
import threading
from typing import Any, cast

import uvloop

from bench.answering import Message, answer
from bench.samples import stream_chunks

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
FIRST, EVENT = stream_chunks(3)[0].split(b"\n\n")[:2]


class Follower(asyncio.Protocol):
    """A connection that is sent every event from now on."""

    def __init__(self, followers: set[asyncio.WriteTransport]) -> None:
        self._followers = followers
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(HEAD + FIRST + b"\n\n")
        self._followers.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._followers.discard(cast(asyncio.WriteTransport, self._transport))


class Pace(asyncio.Protocol):
    """The connection that sets the pace."""

    def __init__(self, followers: set[asyncio.WriteTransport]) -> None:
        self._followers = followers

    def data_received(self, data: bytes) -> None:
        frames = (EVENT + b"\n\n") * len(data)
        for follower in self._followers:
            follower.write(frames)


async def listen() -> tuple[int, int]:
    """The ports for followers and for the pace."""
    loop = asyncio.get_running_loop()
    followers: set[asyncio.WriteTransport] = set()
    servers = [
        await loop.create_server(make, "127.0.0.1", 0)
        for make in (lambda: Follower(followers), lambda: Pace(followers))
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    return ports[0], ports[1]


if __name__ == "__main__":
    event_loop = uvloop.new_event_loop()
    threading.Thread(target=event_loop.run_forever, daemon=True).start()

    def work(message: Message) -> Message:
        if message["do"] == "end":
            return {}
        found: Any = asyncio.run_coroutine_threadsafe(listen(), event_loop).result()
        return {"address": f"http://127.0.0.1:{found[0]}", "key": "", "target": "/", "port": found[1]}

    answer(work)
