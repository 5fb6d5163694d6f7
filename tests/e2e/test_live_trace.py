"""How a live trace can end, told apart by the caller, and what the server is left with: nothing, at once.

That a reader gives up on a server that has gone is proved in `tests/unit/client/test_live_trace.py`.
"""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runglass import (
    APITimeoutError,
    AsyncClient,
    Client,
    FlowCompleted,
    FlowNotFoundError,
    StepStarted,
)
from runglass.bus.base import Listener
from runglass.client.transport.blocking import SyncTransport
from runglass.testing import RunningServer, running_server
from tests.unit.client.scripted import EVENT_STREAM, Exchange, ScriptedServer
from tests.unit.client.sides import KEY, RUN, Side

FLOWS = [
    "slug: brief\nsteps: [{id: only, type: passthrough}]",
    "slug: endless\nsteps: [{id: hold, type: wait, ms: 600000}]",
]
AT_ONCE_S = 30.0
"""Before the next poll of a tail, or the 45 s after which a silent stream is given up."""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        for flow in FLOWS:
            running.push(flow)
        yield running


class Tails:
    """Counts those who listen to runs on the server."""

    def __init__(self, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = threading.Event()
        self.held = threading.Event()
        self.count = 0
        listen = server.runtime.bus.listen

        @asynccontextmanager
        async def counted(run_id: str) -> AsyncIterator[Listener]:
            self.count += 1
            try:
                async with listen(run_id) as listener:
                    self.held.set()
                    yield listener
            finally:
                self.count -= 1
                self.left.set()

        monkeypatch.setattr(server.runtime.bus, "listen", counted)


@pytest.fixture
def tails(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Tails:
    return Tails(server, monkeypatch)


def connect(side: Side, server: RunningServer) -> Any:
    return side.client(server.base_url, api_key=server.key, org="acme", project="demo")


def begun(side: Side, server: RunningServer) -> Any:
    """A run that goes on until it is cancelled."""
    return side.value(connect(side, server).flow("endless").execute_async()).run


def until_held(events: Iterator[Any]) -> None:
    while not isinstance(next(events), StepStarted):
        pass


def test_a_live_trace_ends_with_its_run(server: RunningServer, side: Side) -> None:
    job = side.value(connect(side, server).flow("brief").execute_async())
    assert isinstance(side.events(job.run.live_trace())[-1], FlowCompleted)


def test_a_wait_that_times_out_leaves_the_run_going_on(server: RunningServer, side: Side) -> None:
    run = begun(side, server)
    with pytest.raises(APITimeoutError, match="it is still active"):
        side.value(run.wait(0.1))
    side.value(run.cancel())


def test_an_unknown_run_is_not_followed(server: RunningServer, side: Side) -> None:
    run = connect(side, server).run(uuid.uuid4())
    events = side.following(run.live_trace())
    with pytest.raises(FlowNotFoundError, match="RUN_NOT_FOUND"):
        next(events)


def test_closing_the_generator_ends_the_tail(server: RunningServer, side: Side, tails: Tails) -> None:
    run = begun(side, server)
    events = side.following(run.live_trace())
    until_held(events)
    tails.left.clear()
    # What has been stored is sent before the server listens for more.
    assert tails.held.wait(AT_ONCE_S)
    assert tails.count == 1
    events.close()
    assert tails.left.wait(AT_ONCE_S)
    assert tails.count == 0
    assert list(events) == []
    side.value(run.cancel())


async def test_cancelling_the_task_ends_the_tail(server: RunningServer, tails: Tails) -> None:
    held = asyncio.Event()

    async def follow(client: AsyncClient, run_id: str) -> None:
        async for event in client.run(run_id).live_trace():
            if isinstance(event, StepStarted):
                held.set()

    async with AsyncClient(server.key, base_url=server.base_url) as client:
        job = await client.flow("acme/demo/endless").execute_async()
        task = asyncio.create_task(follow(client, job.execution_id))
        await held.wait()
        assert await asyncio.to_thread(tails.held.wait, AT_ONCE_S)
        tails.left.clear()
        task.cancel()
        assert await asyncio.to_thread(tails.left.wait, AT_ONCE_S)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tails.count == 0
        await job.run.cancel()


def test_closing_the_client_in_another_thread_ends_a_live_trace(server: RunningServer, tails: Tails) -> None:
    held = threading.Event()
    ended: list[BaseException] = []
    client = Client(server.key, base_url=server.base_url)
    run = client.flow("acme/demo/endless").execute_async().run

    def follow() -> None:
        try:
            for event in run.live_trace():
                if isinstance(event, StepStarted):
                    held.set()
        except RuntimeError as error:
            ended.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    assert held.wait(AT_ONCE_S)
    assert tails.held.wait(AT_ONCE_S)
    tails.left.clear()
    client.close()
    thread.join(AT_ONCE_S)
    assert not thread.is_alive()
    assert "the client has been closed" in str(ended[0])
    assert tails.left.wait(AT_ONCE_S)
    with Client(server.key, base_url=server.base_url) as another:
        another.run(run.execution_id).cancel()


async def test_closing_the_client_in_another_task_ends_a_live_trace(
    server: RunningServer, tails: Tails
) -> None:
    client = AsyncClient(server.key, base_url=server.base_url)
    run = (await client.flow("acme/demo/endless").execute_async()).run
    events = run.live_trace()
    async for event in events:
        if isinstance(event, StepStarted):
            break
    waiting = asyncio.ensure_future(anext(events))
    assert await asyncio.to_thread(tails.held.wait, AT_ONCE_S)
    tails.left.clear()
    await client.aclose()
    with pytest.raises(RuntimeError, match="the client has been closed"):
        await asyncio.wait_for(waiting, AT_ONCE_S)
    assert await asyncio.to_thread(tails.left.wait, AT_ONCE_S)
    async with AsyncClient(server.key, base_url=server.base_url) as another:
        await another.run(run.execution_id).cancel()


class Mute:
    """Takes requests and never answers, or streams that never go on."""

    def __init__(self, *, opens: int) -> None:
        self._opens = opens
        self.asked = threading.Event()
        self.left = threading.Event()

    async def __call__(self, exchange: Exchange) -> None:
        for _ in range(self._opens):
            await exchange.start(200, EVENT_STREAM)
        self.asked.set()
        if await exchange.hung_up(within_s=60):
            self.left.set()


@pytest.mark.parametrize("opens", [0, 1])
@pytest.mark.parametrize("asked", ["trace", "live_trace"])
def test_a_closed_client_waits_for_nothing(opens: int, asked: str) -> None:
    """Whatever its thread waited for: the head of an answer, or the rest of it."""
    ended: list[BaseException] = []
    mute = Mute(opens=opens)
    with ScriptedServer() as silent:
        silent.plays(mute)
        client = Client(KEY, base_url=silent.url)

        def ask() -> None:
            try:
                run = client.run(RUN)
                list(run.live_trace()) if asked == "live_trace" else run.trace()
            except RuntimeError as error:
                ended.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert mute.asked.wait(AT_ONCE_S)
        client.close()
        thread.join(AT_ONCE_S)
        assert not thread.is_alive()
        assert mute.left.wait(AT_ONCE_S)
    assert "the client has been closed" in str(ended[0])


@pytest.mark.parametrize("opens", [0, 1])
@pytest.mark.parametrize("asked", ["trace", "live_trace"])
async def test_a_closed_async_client_waits_for_nothing(opens: int, asked: str) -> None:
    """Its twin."""
    mute = Mute(opens=opens)
    with ScriptedServer() as silent:
        silent.plays(mute)
        client = AsyncClient(KEY, base_url=silent.url)
        run = client.run(RUN)
        asking = asyncio.ensure_future(anext(run.live_trace()) if asked == "live_trace" else run.trace())
        assert await asyncio.to_thread(mute.asked.wait, AT_ONCE_S)
        await client.aclose()
        with pytest.raises(RuntimeError, match="the client has been closed"):
            await asyncio.wait_for(asking, AT_ONCE_S)
        assert await asyncio.to_thread(mute.left.wait, AT_ONCE_S)


def test_a_closed_client_does_not_wait_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose server is away sleeps between two attempts; closing the client wakes it."""
    with ScriptedServer() as gone:
        pass
    client = Client(KEY, base_url=gone.url, max_retries=100)
    ended: list[BaseException] = []

    def follow() -> None:
        try:
            list(client.run(RUN).live_trace())
        except RuntimeError as error:
            ended.append(error)

    slept = threading.Event()
    sleep = SyncTransport.sleep

    def sleeping(transport: SyncTransport, seconds: float) -> None:
        slept.set()
        sleep(transport, seconds + 60)

    monkeypatch.setattr(SyncTransport, "sleep", sleeping)
    thread = threading.Thread(target=follow)
    thread.start()
    assert slept.wait(AT_ONCE_S)
    client.close()
    thread.join(AT_ONCE_S)
    assert not thread.is_alive()
    assert "the client has been closed" in str(ended[0])
