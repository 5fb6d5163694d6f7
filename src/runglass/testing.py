"""Helpers for tests that need a running Runglass, in this repository and in others."""

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from runglass.config.settings import Settings
from runglass.flows.parser import parse_flow
from runglass.store.keys import make_key
from runglass.store.records import FlowRecord, Role

if TYPE_CHECKING:
    from runglass.runtime.runtime import FixedLimits, Runtime

T = TypeVar("T")

ORG, PROJECT = "acme", "demo"
STOP_S = 30.0


class RunningServer:
    """A real server on a free port, in a thread with an event loop of its own.

    `base_url` ends in `/api/v1`; `key` is an admin key of project `acme/demo`. Sync and async tests use it
    alike; coroutines on the store go through `call`, onto the server's loop.
    """

    def __init__(self, address: str, runtime: "Runtime", loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.base_url = f"{address}/api/v1"
        self.runtime = runtime
        self._loop = loop
        self.key = self.make_key(ORG, PROJECT)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs the coroutine on the server's event loop and waits for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def make_key(self, org: str, project: str, role: Role = "admin") -> str:
        """A new key of the project, which is created if it is new."""
        new = make_key()

        async def add() -> None:
            found = await self.runtime.store.ensure_project(org, project)
            await self.runtime.store.add_key(found.id, role, new.digest, new.hint)

        self.call(add())
        return new.key

    def push(
        self, flow_text: str, *, publish: bool = True, org: str = ORG, project: str = PROJECT
    ) -> FlowRecord:
        """Stores a flow, and publishes it unless it is to stay a draft. Raises FlowFileError."""
        flow = parse_flow(flow_text)

        async def put() -> FlowRecord:
            from runglass.runtime.runtime import push_flow

            store = self.runtime.store
            found = await store.ensure_project(org, project)
            record = await push_flow(store, found, flow)
            if publish:
                await store.publish(record.id)
            return await store.flow(record.id) or record

        return self.call(put())


class _Started(NamedTuple):
    address: str
    runtime: "Runtime"
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


@contextmanager
def running_server(limits: "FixedLimits | None" = None, /, **settings: Any) -> Iterator[RunningServer]:
    """A server with these settings, until the block ends; `limits` are those that no setting changes.

    By default it listens on a free port of 127.0.0.1, keeps its data in a temporary folder, waits for no step
    when it stops, keeps its runs however long it stands still, and logs no stalls. Errors of starting and of
    stopping are raised here.
    """
    with (
        tempfile.TemporaryDirectory(prefix="runglass-") as folder,
        ThreadPoolExecutor(1, thread_name_prefix="runglass-server") as thread,
    ):
        defaults = {
            "host": "127.0.0.1",
            "port": 0,
            "data": Path(folder),
            "synchronous": "NORMAL",
            "stop_grace_s": 0.0,
            # A busy machine and a debugger stop a process for longer than its lease and its log may allow.
            "lease_s": 60.0,
            "stall_log_ms": 600_000,
        }
        started: Future[_Started] = Future()
        ended = thread.submit(_serve, Settings(**{**defaults, **settings}), limits, started)
        either: tuple[Future[Any], ...] = (started, ended)
        wait(either, return_when=FIRST_COMPLETED)
        if not started.done():
            ended.result()
        address, runtime, loop, stop = started.result()
        try:
            yield RunningServer(address, runtime, loop)
        finally:
            # A server that failed has closed its loop; `result` raises its error.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
            ended.result(STOP_S)


def _serve(settings: Settings, limits: "FixedLimits | None", started: "Future[_Started]") -> None:
    # Imported here, so that a test module that only mentions this one does not wait for the web framework.
    from runglass.runtime.composition import open_runtime
    from runglass.runtime.metrics.listener import listening
    from runglass.server import new_event_loop, serving

    async def until_stopped() -> None:
        stop = asyncio.Event()
        async with (
            open_runtime(settings, limits) as runtime,
            listening(runtime),
            serving(runtime, host=settings.host, port=settings.port) as address,
        ):
            started.set_result(_Started(address, runtime, asyncio.get_running_loop(), stop))
            await stop.wait()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(until_stopped())
