"""Writes the bytes of a response: its head and the beginning of its body in one write, and chunks or none.

uvicorn writes the head by itself, and each write is a system call, a packet and a wake-up of the client: a
quarter of the cost of a small response.
"""

import asyncio
import fcntl
import struct
import termios
from typing import Any

_HEAD = b"HTTP/1.1 "
_LARGE_BYTES = 64 * 1024
_CHUNKED = b"transfer-encoding: chunked\r\n"


class HeadBufferingTransport:
    """A transport that holds back a head until its body follows, at most for a turn of the event loop.

    A body that looks like a head is sent a little later, unchanged.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._written_bytes = 0
        # uvicorn calls it for each response, and `__getattr__` would be slower.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def unsent_bytes(self) -> int:
        """The bytes that were written and that the system has not accepted yet, as the caller takes none."""
        return self._transport.get_write_buffer_size()

    @property
    def taken_bytes(self) -> int:
        """How many of the bytes written the caller has received, as far as the system tells.

        The bytes in the system's send queue count as not received. That queue holds megabytes, and the system
        asks for more only once it is a third empty, which may take minutes on a slow line.
        """
        return self._written_bytes - self.unsent_bytes - _queued_bytes(self._transport)

    def write(self, data: bytes) -> None:
        if self._head and len(data) > _LARGE_BYTES:
            # The transport joins both in one packet without a copy of them.
            self._flush()
        elif self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._written_bytes += len(data)
        self._transport.write(data)

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        # A connection that was reset meanwhile accepts no bytes.
        if self._head and not self.is_closing():
            head, self._head = self._head, b""
            self._written_bytes += len(head)
            self._transport.write(head)


class UnchunkedTransport:
    """A transport for one response to a caller of HTTP/1.0, who knows no chunks: it leaves their framing out.

    Such a response ends with its connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_chunked: bool | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._is_chunked is None:
            self._is_chunked = _CHUNKED in data
            data = data.replace(_CHUNKED, b"")
        elif self._is_chunked:
            data = _without_framing(data)
        if data:
            self._transport.write(data)


def _without_framing(chunks: bytes) -> bytes:
    """The content of whole chunks; uvicorn splits none between two writes."""
    contents = []
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        contents.append(rest[:length])
        chunks = rest[length + 2 :]
    return b"".join(contents)


def _queued_bytes(transport: asyncio.Transport) -> int:
    """The bytes in the system's send queue; 0 where the system does not tell."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return 0
    try:
        queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    except OSError:
        return 0
    return int(struct.unpack("i", queued)[0])
