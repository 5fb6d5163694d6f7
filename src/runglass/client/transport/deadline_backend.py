"""Blocking sockets that keep a deadline, and that another thread can close.

The HTTP library takes one number of seconds and gives each socket operation that long, and it reads headers
and connects to a name's addresses in loops of its own. So the transport passes a `Deadline` where it expects
the number, and these classes ask it before every operation. Only the blocking transport needs them: asyncio
can cancel a whole call. For the same reason they keep count of what is open: a thread that waits for a socket
does not notice that it has been closed. Knows the library's network interface and nothing of HTTP.
"""

import queue
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpcore2

from runglass.client.core.responses import Deadline

# A large write waits for room in the kernel's buffer several times, so the deadline is checked between
# slices.
_SLICE_BYTES = 16 * 1024

_Bound = Deadline | float | None


def _seconds(bound: _Bound, expired: type[Exception]) -> float | None:
    if not isinstance(bound, Deadline):
        return bound
    left = bound.bound_s()
    if left == 0:
        raise expired("the deadline has passed")
    return left


class DeadlineBackend(httpcore2.NetworkBackend):
    """Connects as `inner` does, until it is closed; every timeout may be a `Deadline`."""

    def __init__(self, inner: httpcore2.NetworkBackend) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._open: set[_Stream] = set()
        self._closed = False

    def close(self) -> None:
        """Ends every connection, also those in the making; threads that wait for one get an error."""
        with self._lock:
            self._closed = True
            streams = list(self._open)
        for stream in streams:
            stream.shut_down()

    def keep(self, inner: httpcore2.NetworkStream) -> "_Stream":
        """Adds the connection to those that `close` ends. Raises ConnectError after `close`."""
        stream = _Stream(inner, self)
        with self._lock:
            if not self._closed:
                self._open.add(stream)
                return stream
        inner.close()
        raise httpcore2.ConnectError("the client has been closed")

    def forget(self, stream: "_Stream") -> None:
        """Removes a connection that has been closed."""
        with self._lock:
            self._open.discard(stream)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: _Bound = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = _addresses(host, port, _seconds(timeout, httpcore2.ConnectTimeout))
        while True:
            address = addresses.pop(0)
            seconds = _seconds(timeout, httpcore2.ConnectTimeout)
            if seconds is not None:
                # An address that drops packets must leave time for the next.
                seconds /= len(addresses) + 1
            try:
                stream = self._inner.connect_tcp(
                    address, port, timeout=seconds, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if not addresses:
                    raise
            else:
                return self.keep(stream)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream, backend: DeadlineBackend) -> None:
        self._inner = inner
        self._backend = backend

    def shut_down(self) -> None:
        """Ends the connection and leaves the socket to who is using it."""
        with suppress(OSError):
            self._inner.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def read(self, max_bytes: int, timeout: _Bound = None) -> bytes:
        return self._inner.read(max_bytes, timeout=_seconds(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: _Bound = None) -> None:
        for start in range(0, len(buffer), _SLICE_BYTES):
            piece = buffer[start : start + _SLICE_BYTES]
            self._inner.write(piece, timeout=_seconds(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._backend.forget(self)
        # Closing alone does not wake a thread that reads here.
        self.shut_down()
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: _Bound = None
    ) -> httpcore2.NetworkStream:
        seconds = _seconds(timeout, httpcore2.ConnectTimeout)
        inner = self._inner.start_tls(ssl_context, server_hostname=server_hostname, timeout=seconds)
        self._backend.forget(self)
        return self._backend.keep(inner)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _addresses(host: str, port: int, seconds: float | None) -> list[str]:
    """The host's addresses, best first. The resolver knows no timeout, so a thread waits for it."""
    found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            found.put(error)
        else:
            found.put(list(dict.fromkeys(str(row[4][0]) for row in rows)))

    threading.Thread(target=resolve, name=f"resolve {host}", daemon=True).start()
    try:
        result = found.get(timeout=seconds)
    except queue.Empty as error:
        raise httpcore2.ConnectTimeout(f"the name {host!r} did not resolve in time") from error
    if isinstance(result, OSError):
        raise httpcore2.ConnectError(f"the name {host!r} does not resolve: {result}") from result
    return result
