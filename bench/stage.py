"""What the figures share: sizes, a folder on a real disk, data that is made once, and servers on it.

Everything is made when it is first asked for and is gone at the end of the block.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import uvloop

from bench import flows
from bench.children import ROOT, BenchError, Child, Server, child, server
from bench.postgres import PostgresServer
from bench.sizes import Sizes
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import Runtime
from runglass.store.keys import make_key

PEERS = ROOT / ".bench"
PEER_PYTHON = PEERS / "bin" / "python"
PEERS_STAMP = PEERS / "bench.stamp"
"""There once all peers are installed."""


class Data(NamedTuple):
    """A folder with finished runs, by their ids, and a key to read them."""

    folder: Path
    key: str
    small: str
    medium: str
    long: str
    replayed: str
    replayed_events: int


class Stage:
    """Where the figures are measured. `with_peers` says whether peers may be looked for at all."""

    def __init__(self, sizes: Sizes, *, with_peers: bool) -> None:
        self.sizes = sizes
        self.has_peers = with_peers and PEERS_STAMP.exists()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        """Beside the peers: temporary files may lie in memory, where a sync costs nothing."""
        PEERS.mkdir(exist_ok=True)
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="data-", dir=PEERS)))

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """An empty folder, until the block ends."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def peer(self, name: str, *arguments: str | Path | int) -> Iterator[Child | None]:
        """The worker `bench/peers/NAME.py` on the peers' interpreter; None if they are not installed."""
        if not self.has_peers:
            yield None
            return
        with child(f"bench.peers.{name}", *arguments, python=PEER_PYTHON) as worker:
            yield worker

    @cached_property
    def phoenix(self) -> Child | None:
        """The peer that is a server, shared because it takes half a minute to start; None without peers."""
        folder = self._stack.enter_context(self.new_folder())
        return self._stack.enter_context(self.peer("phoenix_server", folder))

    @cached_property
    def postgres(self) -> PostgresServer:
        """A PostgreSQL that syncs each commit, shared by ours and the peers."""
        started = PostgresServer()
        self._stack.callback(started.close)
        return started

    @cached_property
    def data(self) -> Data:
        """Runs of every size that is read, made by running flows."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_make_data(self.folder / "shared", self.sizes))

    @cached_property
    def server(self) -> Server:
        """Runglass in a process of its own, on `data`."""
        return self._stack.enter_context(serve(self.data.folder))

    @cached_property
    def client_address(self) -> str:
        """The base URL for our client."""
        return f"{self.server.address}/api/v1"

    @contextmanager
    def bare(self, **answers: bytes) -> Iterator[Server]:
        """uvicorn with nothing around it: `/NAME` is answered with these bytes."""
        with self.new_folder() as folder:
            for name, body in answers.items():
                (folder / name).write_bytes(body)
            with server("bench.workers.bare", folder) as started:
                yield started


@contextmanager
def serve(data: Path) -> Iterator[Server]:
    """`runglass serve` on this data, as anybody starts it, on a free port."""
    with server("runglass", "serve", "--port", 0, "--data", data, "--log-level", "error") as started:
        yield started


def worker(database: str, *options: str | int) -> AbstractContextManager[Server]:
    """`runglass worker` on the PostgreSQL database at this address, as anybody starts it."""
    return server(
        *("runglass", "worker", "--log-level", "error", *options), settings={"RUNGLASS_STORE": database}
    )


async def add_key(runtime: Runtime) -> str:
    """A new key of the bench's project, which is allowed everything."""
    project = await runtime.store.ensure_project(flows.ORG, flows.PROJECT)
    new = make_key()
    await runtime.store.add_key(project.id, "admin", new.digest, new.hint)
    return new.key


async def _make_data(folder: Path, sizes: Sizes) -> Data:
    async with open_runtime(Settings(data=folder, synchronous="NORMAL")) as runtime:
        project = await flows.push(runtime, flows.LOOP, flows.TEXTS, flows.WAIT)
        small, medium, long = [
            await flows.run(runtime, project, "texts", flows.loop_of(steps, trace=True))
            for steps in (sizes.small_trace_steps, sizes.trace_steps, sizes.long_trace_steps)
        ]
        # Two events for each step, and three for the run and its loop.
        replayed = await flows.run(runtime, project, "loop", flows.loop_of((sizes.stream_events - 3) // 2))
        record = await runtime.store.run(replayed)
        if record is None or record.status != "completed":
            raise BenchError(f"the run {replayed!r} that was to be replayed did not complete")
        return Data(folder, await add_key(runtime), small, medium, long, replayed, record.head)
