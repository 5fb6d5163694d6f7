"""A client that is closed by another thread or task: whatever it waited for ends at once."""

import asyncio
import threading

import pytest

from runglass import AsyncClient, Client
from runglass.client.transport.blocking import SyncTransport
from tests.unit.client.scripted import EVENT_STREAM, Exchange, ScriptedServer
from tests.unit.client.sides import KEY, RUN

AT_ONCE_S = 30.0
"""Before the 45 s after which a silent stream is given up."""


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
