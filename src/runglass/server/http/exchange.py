"""One request and its response: what the application receives and sends, and hears of a loss."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from starlette.types import Message, Receive, Scope, Send

from runglass.limits.pace import LARGE_MOVE_BYTES, paced_transfer

if TYPE_CHECKING:
    from runglass.server.http.connections import Connection

EXCHANGE = "exchange"
"""Where the state of a request's scope has its `Exchange`."""
CONNECTION = "connection"
"""Where it has the `Connection` that the request came by; over gRPC there is none."""
ENDPOINT = "endpoint"
"""Where it has the method and the pattern of the path, once they are known."""
_LARGE_PART_BYTES = 64 * 1024


class CallerLeft(Exception):
    """The caller of a request has left, and what it waited for is for nobody else."""


class Exchange:
    """Receives a request and sends its response, with the headers that each one has.

    A browser keeps none that does not say how, and takes none for something else than it says it is. Large
    work is done at its pace. A request over gRPC has no `connection`.
    """

    def __init__(
        self, receive: Receive, send: Send, request_id: str, *, connection: "Connection | None", expects: bool
    ) -> None:
        self._receive = receive
        self._send = send
        self._connection = connection
        self._expects = expects
        self._headers = [
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
        ]
        self._head: Message | None = None
        self.status = 0
        """The status that was sent; 0 where there is none so far."""
        self.began_s = 0.0
        """When it was sent, by the monotonic clock."""
        self._has_ended = False

    async def receive(self) -> Message:
        """The next message of ASGI."""
        self._expects = False
        message = await self._receive()
        if message["type"] == "http.request":
            await paced_transfer(len(message["body"]))
        return message

    async def send(self, message: Message) -> None:
        """Sends a message of ASGI. The head of the response waits for the beginning of its body."""
        if message["type"] == "http.response.start":
            own = dict(message["headers"])
            missing = [each for each in self._headers if each[0] not in own]
            if self._expects:
                # A caller that was not told to go on may send the body, or the next request in its place.
                missing.append((b"connection", b"close"))
            message["headers"] = [*message["headers"], *missing]
            self._head = message
            return
        await paced_transfer(len(message["body"]))
        self._has_ended = not message.get("more_body", False)
        if (head := self._head) is None:
            await self._send(message)
            return
        self._head, self.status, self.began_s = None, head["status"], time.monotonic()
        if self._connection is None:
            await self._send(head)
            await self._send(message)
            return
        self._connection.responses += 1
        writer = self._connection.writer
        writer.hold()
        try:
            await self._send(head)
            await self._send(message)
        finally:
            writer.flush()

    def send_now(self, part: bytes) -> bool:
        """Sends a part amid the body without waiting.

        False, and nothing is sent, if the caller is slow, has left, or waits for nothing more, or if the part
        is large and has to wait for its turn. The parts before it must have been sent.
        """
        connection = self._connection
        if connection is None or connection.is_lost or connection.writer.get_write_buffer_size():
            return False
        if not self.status or self._has_ended or len(part) > LARGE_MOVE_BYTES:
            return False
        sending = self._send({"type": "http.response.body", "body": part, "more_body": True})
        try:
            # uvicorn waits for nothing but a caller that is slow, so that this is over at once.
            next(sending.__await__())
        except StopIteration:
            return True
        raise AssertionError("a part of a response was kept waiting, though its caller is not slow")

    @contextmanager
    def on_loss(self, call: Callable[[], object]) -> Iterator[None]:
        """Inside the block, `call` is called once the connection is lost; at once if it is already."""
        if (connection := self._connection) is None:
            yield
            return
        if connection.is_lost:
            call()
        connection.on_loss.append(call)
        try:
            yield
        finally:
            connection.on_loss.remove(call)

    def cut_off(self) -> None:
        """Ends the connection amid the response; does nothing once that is complete."""
        if self._connection is not None and not self._has_ended:
            self._connection.cut_off()


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of a request."""
    exchange: Exchange = scope["state"][EXCHANGE]
    return exchange


class JoiningTransport:
    """A transport that can send several writes in one.

    uvicorn writes the head of a response by itself, and each write is a system call, a packet and a wake-up
    of the client: a quarter of the cost of a small response.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] | None = None
        # uvicorn calls it for each response, and `__getattr__` would be slower.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._parts is None:
            self._transport.write(data)
        else:
            self._parts.append(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def hold(self) -> None:
        """Holds back what is written until `flush`."""
        self._parts = []

    def flush(self) -> None:
        """Sends what was held back."""
        parts, self._parts = self._parts, None
        if parts and not self.is_closing():
            # One write of one piece is the fastest; a large body is not copied for it.
            if len(parts[-1]) > _LARGE_PART_BYTES:
                self._transport.writelines(parts)
            else:
                self._transport.write(b"".join(parts))
