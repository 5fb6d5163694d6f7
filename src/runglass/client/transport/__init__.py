"""The only HTTP in the client: performs described calls and follows streams, once blocking, once on asyncio.

Knows no flows and no runs.

`client/core` decides for both transports, without I/O, what to send, what an outcome means, and whether to
try again. `blocking` is written from `on_asyncio`; how the two wait and are ended differs, and stands in
`blocking_sockets` and `asyncio_sockets`. A program loads the half that it needs. This file has their common
use of the HTTP library, which takes longer to load than everything else in the client.
"""

import ssl
from collections.abc import Iterator
from typing import Protocol, TypeVar

import httpx2

from runglass.client.core.connection import ServerConnection
from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import Answer, ConnectionLost, Deadline, Outcome
from runglass.errors import APITimeoutError

# A stream holds its connection, and any number may be followed at a time. Idle connections go before common
# servers close them (after 5 s): a POST that meets a closed one cannot know whether it was read.
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=4.0)

PIECE_BYTES = 64 * 1024
"""So much of a file is read and sent at a time."""

HttpClient = TypeVar("HttpClient", httpx2.Client, httpx2.AsyncClient)
News_co = TypeVar("News_co", covariant=True)


class Cursor(Protocol[News_co]):
    """The interface through which a transport follows a stream, or an answer part by part."""

    ended: bool
    gap: ConnectionLost | None

    def call(self) -> RequestSpec[None]:
        """The request that opens the stream, now or again."""

    def opened(self) -> None: ...

    def feed(self, chunk: bytes) -> Iterator[News_co]: ...

    def lost(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the stream is opened again; None where it is complete."""


def checked(base_url: str) -> str:
    """The URL, which the library can use. Raises ValueError."""
    try:
        httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"base_url {base_url!r} cannot be used: {error}") from error
    return base_url


def http_client(kind: type[HttpClient], endpoint: ServerConnection) -> HttpClient:
    """The library's client for the server. Raises ValueError, also for what its environment names."""
    verify = verification(checked(endpoint.base_url))
    try:
        return kind(headers=endpoint.headers(), limits=LIMITS, timeout=None, verify=verify)
    except (httpx2.InvalidURL, ImportError, OSError, ValueError) as error:
        raise ValueError(
            "a proxy or certificates of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE)"
            f" cannot be used: {error}"
        ) from error


def verification(base_url: str) -> ssl.SSLContext | bool:
    """The library's `verify`: True, or for plain http a context without certificates."""
    # Reading the machine's certificates takes as long as several calls, and plain http never asks for them.
    # If a plain URL led to TLS all the same, this context would trust no server.
    return True if base_url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def not_ended(cursor: Cursor[object], deadline: Deadline) -> APITimeoutError:
    """The exception for a run that outlasts the wait for its end."""
    return APITimeoutError(f"{cursor}: the run did not end within {deadline.seconds:g} s; it is still active")


def closed(what: object) -> RuntimeError:
    """The exception for a call of a closed client; `what` is the call."""
    return RuntimeError(f"{what} cannot be had: the client has been closed; make a new one")


def is_wanted(response: httpx2.Response, call: RequestSpec[None]) -> bool:
    """Whether the response is good and of the type that the call asks for; any other is a refusal."""
    kind: str = response.headers.get("content-type", "")
    return response.status_code == 200 and kind.lower().startswith(call.headers.get("Accept", ""))


def silent(silence_s: float, error: Exception) -> ConnectionLost:
    """The outcome of a call on which nothing was heard for so long."""
    return ConnectionLost(f"nothing was heard for {silence_s:g} s", cause=error)


def answer(response: httpx2.Response, body: bytearray) -> Answer:
    """The response as the client reads it."""
    return Answer(response.status_code, dict(response.headers), body)


def lost(error: httpx2.RequestError, base_url: str) -> ConnectionLost:
    """The outcome of a call that ends with an error of the library."""
    why = str(error) or type(error).__name__
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)):
        return ConnectionLost(f"{base_url} cannot be reached: {why}", sent=False, cause=error)
    return ConnectionLost(f"the connection to {base_url} broke off: {why}", cause=error)
