"""A bare HTTP client: what a server can do is not to be hidden behind what a client library costs.

It understands what our server and uvicorn send, and nothing more.
"""

import asyncio
import socket
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

RECEIVE_BYTES = 1 << 20


def request(target: str, key: str, *, close: bool = False) -> bytes:
    """A GET request as it goes out."""
    tail = "Connection: close\r\n" if close else ""
    return f"GET {target} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n{tail}\r\n".encode()


def place(address: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def read_stream(address: str, target: str, key: str) -> bytes:
    """All that the server sends until it closes the connection, head and framing included.

    Raises ValueError for an answer other than 200.
    """
    received = bytearray()
    with socket.create_connection(place(address)) as connection:
        connection.sendall(request(target, key, close=True))
        while part := connection.recv(RECEIVE_BYTES):
            received += part
    if not received.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"{target} was answered with {bytes(received[:200])!r}")
    return bytes(received)


class KeptConnection:
    """One connection for many requests whose answers have a Content-Length."""

    def __init__(self, address: str) -> None:
        self._socket = socket.create_connection(place(address))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, wire: bytes) -> bytes:
        """The body of the answer to a request made by `request`. Raises ValueError unless it is 200."""
        self._socket.sendall(wire)
        received = bytearray()
        while (length := _answer_length(received)) is None or len(received) < length:
            part = self._socket.recv(RECEIVE_BYTES)
            if not part:
                raise ValueError(f"the server closed the connection after {bytes(received[:200])!r}")
            received += part
        return bytes(received[received.index(b"\r\n\r\n") + 4 :])

    def close(self) -> None:
        self._socket.close()


def requests_per_s(address: str, target: str, key: str, *, requests: int, connections: int) -> float:
    """How many of `requests` equal requests are answered in a second, over so many connections at once."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_hammer(place(address), request(target, key), requests, connections))


async def _hammer(where: tuple[str, int], wire: bytes, requests: int, connections: int) -> float:
    loop = asyncio.get_running_loop()
    each = -(-requests // connections)
    asking = []
    for _ in range(connections):
        _, protocol = await loop.create_connection(lambda: _Asking(wire, each), *where)
        asking.append(protocol)
    began_s = time.perf_counter()
    for protocol in asking:
        protocol.begin()
    await asyncio.gather(*[protocol.done for protocol in asking])
    return each * connections / (time.perf_counter() - began_s)


class _Asking(asyncio.Protocol):
    """Sends the same request again as soon as it has been answered."""

    def __init__(self, wire: bytes, times: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._left = times
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not descend from asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)

    def begin(self) -> None:
        assert self._transport is not None
        self._transport.write(self._wire)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            length = _answer_length(self._received)
        except ValueError as error:
            self.done.set_exception(error)
            return
        if length is None or len(self._received) < length:
            return
        self._received.clear()
        self._left -= 1
        if self._left:
            self.begin()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed a connection"))


def _answer_length(received: bytearray) -> int | None:
    """Bytes of head and body together; None while the head is not whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    if not head.startswith(b"http/1.1 200 "):
        raise ValueError(f"the answer is {bytes(received[:200])!r}")
    at = head.index(b"content-length:") + len(b"content-length:")
    return end + 4 + int(head[at:].split(b"\r\n", 1)[0])
