"""A data folder opened by a server in this process, which is asked without a socket.

The application runs on the event loop of a thread. No port of the machine leads to it, and its key is in
memory alone; a command that looks does not wait for an HTTP library.
"""

import asyncio
import math
import signal
import time
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote

from msgspec.structs import replace

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.local_store import find_store, local_key, named_project
from runglass.client import Client
from runglass.client.core.connection import API_PATH, ServerConnection
from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import ENDED_EARLY, Answer, ConnectionLost, error_of, finish, timed_out
from runglass.config.settings import Settings
from runglass.store.base import Store
from runglass.store.keys import LOCAL_KEY, make_key
from runglass.store.records import ApiKey
from runglass.support.import_without_gc import loading

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from starlette.types import ASGIApp, Message

    from runglass.client.transport import Cursor

T = TypeVar("T")

PIECE_BYTES = 64 * 1024
MOST_WAITING = 16
"""Parts of an answer that wait until they are read."""


@contextmanager
def in_process(
    settings: Settings, name: ProjectName | None, *, executes: bool = False, create: bool | None = None
) -> Iterator[Client]:
    """A client of a server on the store, until the block ends, with a key of the project.

    One that `executes` has the store to itself and goes on with its runs; any other one looks and manages,
    beside a server that has it. Without a name the store must have one project; `create` is as for
    `named_project`. Raises NotFound, UsageError, and what opening the store raises.
    """
    find_store(settings, create=create)
    # Imported here: no other command is to wait for the server.
    with loading():
        from runglass.runtime.composition import open_runtime
        from runglass.server import create_app

    @asynccontextmanager
    async def application() -> AsyncIterator[InProcessTransport]:
        async with open_runtime(settings, is_guest=not executes) as runtime:
            store = runtime.store
            project, made = await named_project(store, name, create=create), make_key()
            runtime.store = with_keys(store, {made.digest: local_key(store, project)})
            yield InProcessTransport(portal, create_app(runtime), made.key)

    with (
        open_portal() as portal,
        portal.wrap_async_context_manager(application()) as transport,
    ):
        client = Client(transport.endpoint.api_key, base_url=transport.endpoint.base_url)
        client._made = cast(Any, transport)
        yield client


@contextmanager
def open_portal() -> Iterator["BlockingPortal"]:
    """A portal to the event loop of a thread, until the block ends. Opened in the main thread.

    Ctrl-C comes once it is open: before that anyio would wait for a thread that nobody has told to end.
    """
    with loading():
        from anyio.from_thread import start_blocking_portal
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    with ExitStack() as stack:
        try:
            portal = stack.enter_context(start_blocking_portal())
        finally:
            signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(signal.SIGINT, None)
        yield portal


def with_keys(store: Store, keys: Mapping[bytes, ApiKey]) -> Store:
    """The store, which also finds these keys by their digests; they are in memory alone."""
    return cast(Store, _StoreWithKeys(store, keys))


class _StoreWithKeys:
    def __init__(self, store: Store, keys: Mapping[bytes, ApiKey]) -> None:
        self._store = store
        self._keys = keys

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return self._keys.get(digest) or await self._store.find_key(digest)

    async def live_keys(self, key_ids: Iterable[int]) -> set[int]:
        ids = set(key_ids)
        return (await self._store.live_keys(ids)) | ids & {LOCAL_KEY}


class InProcessTransport:
    """As `SyncTransport`, to an application on the event loop of a portal. It is never lost."""

    def __init__(self, portal: "BlockingPortal", app: "ASGIApp", key: str) -> None:
        self.endpoint = ServerConnection(
            base_url=f"http://localhost{API_PATH}", api_key=key, timeout_s=math.inf, max_retries=0
        )
        self._portal = portal
        self._app = app

    def close(self) -> None:
        """Does nothing: the block around the transport ends it."""

    def call(self, call: RequestSpec[T], *, timeout: float | None) -> T:
        """The answer. Raises as `responses.finish` does."""
        bound_s = self.endpoint.bound_s(timeout)
        with closing(self._parts(call, [call.body or b""], bound_s=bound_s)) as parts:
            return finish(call, replace(next(parts), body=b"".join(parts)), attempts=1)

    def follow(self, cursor: "Cursor[T]", *, timeout: float = math.inf) -> Generator[T, None, None]:
        """What `cursor` reads, until it has enough. Raises as it does, and APITimeoutError."""
        with closing(self._parts(cursor.call(), [b""], bound_s=timeout)) as parts:
            head = next(parts)
            if head.status != 200:
                raise error_of(str(cursor), replace(head, body=b"".join(parts)))
            cursor.opened()
            for part in parts:
                yield from cursor.feed(part)
                if cursor.ended:
                    return
        cursor.lost(ENDED_EARLY)

    def upload(self, call: RequestSpec[T], file: IO[bytes]) -> T:
        """The answer to `call` with the rest of the file as its body. Raises as `call` does."""
        with closing(self._parts(call, iter(lambda: file.read(PIECE_BYTES), b""))) as parts:
            return finish(call, replace(next(parts), body=b"".join(parts)), attempts=1)

    def _parts(
        self, call: RequestSpec[Any], body: Iterable[bytes], *, bound_s: float = math.inf
    ) -> Generator[Any, None, None]:
        """An answer without its body, then the parts of the body. Raises APITimeoutError."""
        until_s = time.monotonic() + bound_s
        path, _, query = f"{API_PATH}{call.target}".partition("?")
        headers = {"host": "localhost", **self.endpoint.headers(), **call.headers}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "scheme": "http",
            "method": call.method,
            "path": unquote(path),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 0),
        }
        pieces, sent = iter(body), asyncio.Event()
        messages: asyncio.Queue[Message | Exception] = asyncio.Queue(MOST_WAITING)

        async def receive() -> "Message":
            if sent.is_set():
                # Until the request is cancelled.
                await asyncio.Event().wait()
            piece = next(pieces, None)
            if piece is None:
                sent.set()
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        async def respond() -> None:
            try:
                await self._app(scope, receive, messages.put)
            except Exception as error:  # noqa: BLE001  # it is raised where the request was made
                await messages.put(error)
            await messages.put(ConnectionError("the server ended its answer early"))

        responding = self._portal.start_task_soon(respond)
        try:
            while True:
                coming = self._portal.start_task_soon(messages.get)
                left_s = until_s - time.monotonic()
                try:
                    message = coming.result(None if math.isinf(bound_s) else max(left_s, 0))
                except TimeoutError as error:
                    raise timed_out(call, bound_s) from error
                finally:
                    # The portal ends only when none of its tasks goes on.
                    coming.cancel()
                if isinstance(message, ConnectionError):
                    finish(call, ConnectionLost(str(message)), attempts=1)
                elif isinstance(message, Exception):
                    raise message
                elif message["type"] == "http.response.start":
                    told = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                    yield Answer(message["status"], told, b"")
                else:
                    yield message.get("body", b"")
                    if not message.get("more_body", False):
                        return
        finally:
            responding.cancel()
