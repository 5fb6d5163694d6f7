"""The three readers that every broken stream is given to: blocking client, asyncio client, bare HTTP.

The clients keep their cursor and their patience; only the waits before they come back take no time.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from runglass import AsyncRun, Run
from runglass.client.core.connection import ServerConnection, endpoint
from runglass.client.core.requests import run_path
from runglass.client.transport.blocking import SyncTransport
from runglass.client.transport.on_asyncio import AsyncTransport
from runglass.log.events import TERMINAL_EVENTS, decode_event
from runglass.wire.sse import Decoder
from tests.prove.recorded import Row

Kind = Literal["sync client", "async client", "raw HTTP"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Read = Callable[[str], Awaitable[list[Any]]]
"""Follows the run with that id to its end, and returns what it saw."""

_MOST_IN_VAIN = 50
_PATIENT = 10
"""A client gives up sooner on a server that never answered, and a cut before the status line is no answer."""


def expected(kind: Kind, rows: tuple[Row, ...]) -> list[Any]:
    return list(rows) if kind == "raw HTTP" else [decode_event(row.data) for row in rows]


class Hasty(SyncTransport):
    """A transport that does not wait between two attempts."""

    def sleep(self, seconds: float) -> None:
        """Returns at once."""


class AsyncHasty(AsyncTransport):
    """A transport that does not wait between two attempts."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def _endpoint(base_url: str, key: str) -> ServerConnection:
    return endpoint(api_key=key, base_url=base_url, timeout=60.0, max_retries=_PATIENT, session_id=None)


@asynccontextmanager
async def reader(kind: Kind, base_url: str, key: str) -> AsyncIterator[Read]:
    match kind:
        case "sync client":
            blocking = Hasty(_endpoint(base_url, key))
            with closing(blocking):
                yield lambda run_id: asyncio.to_thread(
                    list, Run(blocking, run_path(run_id), run_id).live_trace()
                )
        case "async client":
            on_asyncio = AsyncHasty(_endpoint(base_url, key))
            async with aclosing(on_asyncio):

                async def follow(run_id: str) -> list[Any]:
                    run = AsyncRun(on_asyncio, run_path(run_id), run_id)
                    return [event async for event in run.live_trace()]

                yield follow
        case "raw HTTP":
            yield lambda run_id: read_raw(base_url, run_id, key)


@contextmanager
def noted(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(what)
        raise


@contextmanager
def as_one_lie() -> Iterator[None]:
    """Raises AssertionError with the first failure of a group of readers; the others were cut short."""
    try:
        yield
    except ExceptionGroup as failures:
        first = failures.exceptions[0]
        notes: list[str] = getattr(first, "__notes__", [])
        raise AssertionError("\n".join([f"{type(first).__name__}: {first}", *notes])) from failures


async def read_raw(base_url: str, run_id: str, key: str) -> list[Row]:
    """The events of a run as anybody reads them who has a socket and the standard of event streams."""
    rows: list[Row] = []
    last_id, in_vain = "", 0
    while not rows or rows[-1].event not in TERMINAL_EVENTS:
        had = len(rows)
        decoder = Decoder()
        async with aclosing(_body(base_url, run_id, key, last_id)) as body:
            async for part in body:
                rows += [Row(int(frame.id), frame.event, frame.data) for frame in decoder.feed(part)]
        last_id = decoder.last_event_id or last_id
        in_vain = in_vain + 1 if len(rows) == had else 0
        assert in_vain < _MOST_IN_VAIN, f"{in_vain} connections after event {last_id!r} brought nothing"
    return rows


async def _body(base_url: str, run_id: str, key: str, last_id: str) -> AsyncGenerator[bytes, None]:
    """What one connection brings, taken out of its chunks, until it ends or breaks."""
    parts = urlsplit(base_url)
    resume = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
    incoming, outgoing = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        outgoing.write(
            f"GET {parts.path}/flow-runs/{run_id}/trace/stream HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {key}\r\nConnection: close\r\n{resume}\r\n".encode()
        )
        head = await incoming.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), f"the answer after event {last_id!r} is {head[:200]!r}"
        while left := int(await incoming.readuntil(b"\r\n"), 16):
            while left:
                part = await incoming.read(left)
                if not part:
                    return
                left -= len(part)
                yield part
            await incoming.readexactly(2)
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        outgoing.close()
