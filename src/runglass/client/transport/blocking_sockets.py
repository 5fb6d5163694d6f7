"""What the blocking transport does in a way of its own; `asyncio_sockets.py` has the same names.

Its sockets keep a deadline, and another thread can close them. The HTTP library takes one number of seconds
and gives each socket operation that long, and it reads headers and connects to a name's addresses in loops of
its own. So the transport passes a `Deadline` where it expects the number, and these classes ask it before
every operation, where asyncio cancels a whole call. For the same reason they keep count of what is open: a
thread that waits for a socket does not notice that it was closed.
"""

import queue
import socket
import ssl
import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import IO, Any

import httpcore2
import httpx2

from runglass.client.core.connection import ServerConnection
from runglass.client.core.responses import Deadline
from runglass.client.core.stream_cursor import SILENCE_S
from runglass.client.transport import PIECE_BYTES, closed, http_client

# A large write waits for room in the kernel's buffer several times, so the deadline is checked between
# slices.
_SLICE_BYTES = 16 * 1024

# Python's sockets count milliseconds in 32 bits: they would take 50 days for almost nothing.
_MOST_S = (2**31 - 1) / 1000

_Bound = Deadline | float | None


def _seconds(bound: _Bound, expired: type[Exception]) -> float | None:
    if not isinstance(bound, Deadline):
        return bound
    left = bound.bound_s()
    if left == 0:
        raise expired("the deadline has passed")
    return left if left is None else min(left, _MOST_S)


class Sockets:
    """The connections of a transport. Threads may share it."""

    def __init__(self, endpoint: ServerConnection, *, silence_s: float = SILENCE_S) -> None:
        self.endpoint = endpoint
        self.silence_s = silence_s
        self._closed = threading.Event()
        self._base = endpoint.base_url
        self._http = http_client(httpx2.Client, endpoint)
        self._backends: list[DeadlineBackend] = []
        for transport in (self._http._transport, *self._http._mounts.values()):
            if isinstance(transport, httpx2.HTTPTransport):
                # The library has no public way to replace the backend and keep proxies from the environment.
                # Reading the attribute first makes a renamed one fail here, not leave calls unbounded.
                self._backends.append(DeadlineBackend(transport._pool._network_backend))
                transport._pool._network_backend = self._backends[-1]

    def close(self) -> None:
        """Closes every connection. What waits in another thread ends at once, with a RuntimeError."""
        self._closed.set()
        for backend in self._backends:
            backend.close()
        self._http.close()

    def sleep(self, seconds: float) -> None:
        """Returns after `seconds`, or when the transport is closed."""
        self._closed.wait(min(seconds, threading.TIMEOUT_MAX))

    def _bounded(self, what: object, deadline: Deadline) -> "_Bounded":
        """Raises TimeoutError when the deadline passes, and RuntimeError where the transport is closed."""
        return _Bounded(self._closed, what, deadline)


class _Bounded:
    # A class, as one is made for each part of a stream: `contextmanager` takes three times as long.
    def __init__(self, is_closed: threading.Event, what: object, deadline: Deadline) -> None:
        self._is_closed = is_closed
        self._what = what
        self._deadline = deadline

    def __enter__(self) -> None:
        if self._is_closed.is_set():
            raise closed(self._what)

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        # A body without a length ends well where its connection is shut down.
        if self._is_closed.is_set() and (error is None or isinstance(error, httpx2.RequestError)):
            raise closed(self._what) from error
        # The kernel gives up on dead peers by itself, and the library reports that as a timeout too.
        if isinstance(error, httpx2.TimeoutException) and self._deadline.passed():
            raise TimeoutError from error


def wait_of(bound: Deadline | float) -> Deadline | float:
    """The bound of each wait for a socket."""
    return bound


def pieces_of(file: IO[bytes]) -> Generator[bytes, None, None]:
    """The rest of the file."""
    while piece := file.read(PIECE_BYTES):
        yield piece


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
