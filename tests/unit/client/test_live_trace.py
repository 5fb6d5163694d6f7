"""Live traces over a real socket: nothing is lost, nothing comes twice, and the end is the end."""

import asyncio
from typing import Any

import pytest

from runglass import APIConnectionError, AsyncClient, FlowNotFoundError
from runglass.client.core.stream_cursor import SILENCE_S, TailCursor
from runglass.wire.sse import PING
from tests.unit.client.scripted import (
    CHUNKED,
    DRIPPING,
    EVENT_STREAM,
    FRAMES,
    SEQS,
    Exchange,
    Scene,
    ScriptedServer,
    answers,
    drips,
    hangs_up,
    in_chunk,
    refuses,
    resets,
    sends,
    seqs,
    stream,
    waits,
)
from tests.unit.client.sides import KEY, RUN, Side

PATH = f"/flow-runs/{RUN}/trace/stream"
GOES_ON = waits(sends(FRAMES[0]))


async def plays_on(exchange: Exchange) -> None:
    """A good server: everything after `Last-Event-ID`, then a clean end."""
    await exchange.start(200, EVENT_STREAM)
    await exchange.send(stream(after=int(exchange.headers.get("last-event-id", "0"))))


def live(side: Side, server: ScriptedServer) -> Any:
    return side.client(server.url).flow("acme/school/grade-3").run(RUN).live_trace()


LOST = {
    "no answer": hangs_up,
    "closed": sends(FRAMES[0]),
    "in a frame": sends(stream()[:-10]),
    "in a chunk": sends(in_chunk(stream())[:-10], CHUNKED),
    "ended in good order": answers(FRAMES[0], headers=EVENT_STREAM, chunked=True),
    "reset": resets(sends(FRAMES[0])),
    "503": refuses(503, "UNAVAILABLE"),
    "gap": sends(FRAMES[0] + FRAMES[2]),
}


@pytest.mark.parametrize("scene", LOST.values(), ids=LOST)
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


SILENT = {
    **DRIPPING,
    "after an event": GOES_ON,
    "from the start": waits(),
    "refusal": drips(b" " * 5000, {"content-length": "5000"}, status=404),
}


@pytest.mark.parametrize("scene", SILENT.values(), ids=SILENT)
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


def test_leaving_a_live_trace_closes_its_connection(server: ScriptedServer, side: Side) -> None:
    server.plays(GOES_ON)
    events = side.following(live(side, server))
    assert next(events).seq == 1
    # As a blocking loop does with `break`. On asyncio a loop cannot: the side closes the generator.
    del events
    server.until_left()


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
