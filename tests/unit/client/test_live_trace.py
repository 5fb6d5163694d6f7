"""Live traces over a real socket: nothing is lost, nothing comes twice, and the end is the end."""

import asyncio
import gc
from typing import Any

import pytest

from runglass import (
    APIConnectionError,
    AsyncClient,
    Client,
    FlowNotFoundError,
)
from runglass.client.core.stream_cursor import SILENCE_S, TailCursor
from runglass.wire.sse import PING
from tests.unit.client.scripted import (
    EVENT_STREAM,
    FRAMES,
    LAST_CHUNK,
    SEQS,
    Exchange,
    Scene,
    ScriptedServer,
    drips_a_chunk_header,
    drips_headers,
    hangs_up,
    in_chunk,
    refuses,
    says_nothing,
    sends,
    seqs,
    stream,
)
from tests.unit.client.sides import KEY, RUN, Side

PATH = f"/flow-runs/{RUN}/trace/stream"
CHUNKED = {**EVENT_STREAM, "transfer-encoding": "chunked"}


async def plays_on(exchange: Exchange) -> None:
    """A good server: everything after `Last-Event-ID`, then a clean end."""
    await exchange.start(200, EVENT_STREAM)
    await exchange.send(stream(after=int(exchange.headers.get("last-event-id", "0"))))


async def goes_on(exchange: Exchange) -> None:
    await sends(FRAMES[0])(exchange)
    await exchange.hung_up()


def live(side: Side, server: ScriptedServer) -> Any:
    return side.client(server.url).flow("acme/school/grade-3").run(RUN).live_trace()


async def breaks_in_a_chunk(exchange: Exchange) -> None:
    await exchange.start(200, CHUNKED)
    await exchange.send(in_chunk(stream())[:-10])


async def resets(exchange: Exchange) -> None:
    await sends(FRAMES[0])(exchange)
    exchange.cut()


async def ends_in_good_order(exchange: Exchange) -> None:
    await exchange.start(200, CHUNKED)
    await exchange.send(in_chunk(FRAMES[0]) + LAST_CHUNK)
    exchange.keeps_open = True


@pytest.mark.parametrize(
    "scene",
    [
        hangs_up,
        pytest.param(sends(FRAMES[0]), id="closed"),
        pytest.param(sends(stream()[:-10]), id="in a frame"),
        breaks_in_a_chunk,
        ends_in_good_order,
        resets,
        pytest.param(refuses(503, "UNAVAILABLE"), id="503"),
        pytest.param(sends(FRAMES[0] + FRAMES[2]), id="gap"),
    ],
)
def test_any_loss_is_made_good(server: ScriptedServer, side: Side, scene: Scene) -> None:
    server.plays(scene, plays_on)
    assert seqs(side.events(live(side, server))) == SEQS
    assert len(server.requests) == 2


def test_a_refusal_is_raised_at_the_first_event_and_on_coming_back(
    server: ScriptedServer, side: Side
) -> None:
    # One may repeat much of what was sent, such as the id of a run.
    large = refuses(404, "RUN_NOT_FOUND", sent="x" * 1_000_000)
    server.plays(large)
    events = side.following(live(side, server))
    with pytest.raises(FlowNotFoundError, match="RUN_NOT_FOUND"):
        next(events)
    server.plays(sends(FRAMES[0]), large)
    events = side.following(live(side, server))
    assert next(events).seq == 1
    with pytest.raises(FlowNotFoundError, match="RUN_NOT_FOUND"):
        next(events)
    assert len(server.requests) == 3


def test_a_live_trace_gives_up_on_a_server_that_went_away(side: Side) -> None:
    with ScriptedServer() as server:
        server.plays(sends(stream()[:-10]))
        events = side.following(live(side, server))
        assert [next(events).seq for _ in SEQS[1:]] == SEQS[:-1]
        url = server.url
    with pytest.raises(APIConnectionError, match=rf"gave up after 8 attempts .*at event 5.*{url}"):
        next(events)
    assert len(side.waits) == 8


async def drips_a_refusal(exchange: Exchange) -> None:
    await exchange.start(404, {"content-length": "5000"})
    await exchange.drip(b" " * 5000)


@pytest.mark.parametrize(
    "scene", [goes_on, says_nothing, drips_headers, drips_a_chunk_header, drips_a_refusal]
)
def test_a_silent_stream_is_lost_and_opened_again(server: ScriptedServer, side: Side, scene: Scene) -> None:
    transport = side.transport(server.url, silence_s=0.2)

    class Waits(list[float]):
        def append(self, seconds: float) -> None:
            """A good server has as long as ever to answer: the machine may stand still."""
            transport.silence_s = SILENCE_S

    side.waits = Waits()
    server.plays(scene, plays_on)
    assert seqs(side.events(transport.follow(TailCursor(PATH)))) == SEQS
    assert len(server.requests) == 2


def test_a_stream_that_only_pings_is_not_silent(server: ScriptedServer, side: Side) -> None:
    transport = side.transport(server.url, silence_s=1.0)

    async def pings(exchange: Exchange) -> None:
        """For longer than a stream may be silent, each time: where that ended it, it would be given up."""
        await exchange.start(200, EVENT_STREAM)
        await exchange.drip(PING * 7)
        await exchange.send(stream())

    server.plays(pings)
    assert seqs(side.events(transport.follow(TailCursor(PATH)))) == SEQS


def test_leaving_the_loop_and_forgetting_the_generator_closes_the_connection(server: ScriptedServer) -> None:
    server.plays(goes_on)
    with Client(KEY, base_url=server.url) as client:
        for event in client.run(RUN).live_trace():
            assert event.seq == 1
            break
        gc.collect()
        server.until_left()


async def test_leaving_the_async_loop_closes_the_connection(server: ScriptedServer) -> None:
    server.plays(goes_on)
    async with AsyncClient(KEY, base_url=server.url) as client:
        async for event in client.run(RUN).live_trace():
            assert event.seq == 1
            break
        gc.collect()
        await asyncio.to_thread(server.until_left)


async def test_more_live_traces_than_a_common_pool_holds_share_one_client(server: ScriptedServer) -> None:
    all_open = asyncio.Barrier(150)

    async def waits_for_all(exchange: Exchange) -> None:
        await all_open.wait()
        await plays_on(exchange)

    server.plays(waits_for_all)
    async with AsyncClient(KEY, base_url=server.url) as client:

        async def follow() -> list[int]:
            return [event.seq async for event in client.run(RUN).live_trace()]

        assert await asyncio.gather(*(follow() for _ in range(150))) == [SEQS] * 150
