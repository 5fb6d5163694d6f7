"""Live traces: nothing is lost, nothing comes twice, and the end is the end.

First over a real socket, then the laws of the cursor by itself: any cut, any chunk border, any repeat.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass import APIConnectionError, AsyncClient, FlowNotFoundError, StreamEvent
from runglass.client.core import requests
from runglass.client.core.responses import Answer, ConnectionLost
from runglass.client.core.stream_cursor import SILENCE_S, ListCursor, TailCursor
from runglass.wire.sse import PING, RETRY, frame
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


REFUSED = ConnectionLost("refused", sent=False, cause=OSError("refused"))


def opened(cursor: TailCursor | None = None) -> TailCursor:
    cursor = cursor or TailCursor(PATH, chance=lambda: 1.0)
    cursor.opened()
    return cursor


def fed(cursor: TailCursor, chunks: Iterable[bytes]) -> list[StreamEvent]:
    return [event for chunk in chunks for event in cursor.feed(chunk)]


@given(st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(1, 700), max_size=5)), max_size=8))
def test_every_event_comes_once_and_in_order_over_any_connections_and_chunks(
    connections: list[tuple[int, list[int]]],
) -> None:
    cursor = TailCursor(PATH, attempts=10_000)
    seen: list[StreamEvent] = []
    for again, ends in [*connections, (0, [len(stream())])]:
        if cursor.ended:
            break
        cursor.opened()
        # A server may send events that were had already, but starts no later than asked for.
        body = stream(after=max(0, int(cursor.call().headers.get("Last-Event-ID", "0")) - again))
        ends = sorted(ends)
        seen += fed(cursor, [body[begin:end] for begin, end in zip([0, *ends], ends, strict=False)])
        if not cursor.ended:
            cursor.lost(ConnectionLost("cut"))
    assert seqs(seen) == SEQS


def test_nothing_after_the_terminal_event_is_read() -> None:
    cursor = opened()
    assert seqs(fed(cursor, [b"".join(FRAMES) + frame(99, "later", b"{}")])) == SEQS
    assert cursor.ended


def test_a_frame_without_id_or_an_event_without_seq_is_numbered_by_the_other() -> None:
    cursor = opened()
    without_id = b'data: {"eventType":"a","executionId":"r1","seq":1}\n\n'
    without_seq = b'id: 2\ndata: {"eventType":"a","executionId":"r1"}\n\n'
    assert len(fed(cursor, [without_id, without_seq])) == 2
    assert cursor.last == 2
    with pytest.raises(APIConnectionError, match="has no number"):
        fed(opened(), [b'data: {"eventType":"a","executionId":"r1"}\n\n'])


@pytest.mark.parametrize("data", [b"{", b"[1]", b'"x"', b'{"eventType":"a","x":"\xff"}'])
def test_an_unreadable_event_is_an_error_that_names_it_after_those_before_it(data: bytes) -> None:
    cursor = opened()
    feeding = cursor.feed(FRAMES[0] + b"id: 2\ndata: " + data + b"\n\n")
    assert next(feeding).seq == 1
    with pytest.raises(APIConnectionError, match="event 2 is not readable") as caught:
        next(feeding)
    assert caught.value.__cause__ is not None


def test_an_id_of_any_length_is_no_number() -> None:
    long = b"id: %b\n" % (b"9" * 5000)
    with pytest.raises(APIConnectionError, match="has no number"):
        fed(opened(), [long + b'data: {"eventType":"a","executionId":"r1"}\n\n'])
    assert changes(3, long + b"\n") == ([], 3)


def test_a_frame_over_the_limit_is_an_error() -> None:
    cursor = opened()
    megabyte = b"x" * (1024 * 1024)
    with pytest.raises(APIConnectionError, match="larger than the limit"):
        fed(cursor, [b"data: ", *[megabyte] * 65])


def test_the_cursor_gives_up_soon_on_a_server_that_never_answered() -> None:
    cursor = TailCursor(PATH, first_attempts=3, chance=lambda: 1.0)
    assert [cursor.lost(REFUSED), cursor.lost(REFUSED)] == [1.0, 2.0]
    with pytest.raises(APIConnectionError, match=r"gave up after 3 attempts.*event 0.*refused") as caught:
        cursor.lost(REFUSED)
    assert caught.value.__cause__ is REFUSED.cause
    body = b'{"detail": {"code": "UNAVAILABLE", "message": "store is down"}}'
    with pytest.raises(APIConnectionError, match=r"gave up after 1 attempt .*store is down") as caught:
        TailCursor(PATH, first_attempts=1).lost(Answer(503, {}, body))
    assert caught.value.__cause__ is not None


def changes(after: int | None, *frames: bytes) -> tuple[list[tuple[str, bool]], int]:
    """The runs that the frames tell, whether they are in the list, and where the cursor is then."""
    cursor = ListCursor(requests.runs(flow_id=None, status=None), after=after, first_attempts=1)
    cursor.opened()
    return [(each.run_id, each.run is not None) for data in frames for each in cursor.feed(data)], cursor.last


def out_of_list(number: int, run_id: str) -> bytes:
    return frame(number, "gone", b'{"id":"%b"}' % run_id.encode())


def test_a_run_that_never_met_the_query_is_not_told() -> None:
    mine = frame(2, "run", b'{"id":"mine","flowId":"f","status":"running"}')
    told = changes(None, out_of_list(1, "other"), mine, out_of_list(3, "mine"), out_of_list(4, "mine"))
    assert told == ([("mine", True), ("mine", False)], 4)


def test_a_reader_with_a_page_is_told_of_each_run_that_may_have_been_on_it() -> None:
    assert changes(3, out_of_list(4, "other")) == ([("other", False)], 4)


def test_an_event_restores_its_patience_and_a_mere_connection_does_not() -> None:
    cursor = opened()
    for _ in range(5):
        cursor.lost(REFUSED)
    fed(opened(cursor), FRAMES[:1])
    assert [cursor.lost(REFUSED), cursor.lost(REFUSED)] == [0.05, 1.0]
    for _ in range(6):
        fed(opened(cursor), [RETRY + PING + FRAMES[0]])
        cursor.lost(ConnectionLost("closed"))
    opened(cursor)
    with pytest.raises(APIConnectionError, match="gave up after 8 attempts"):
        cursor.lost(ConnectionLost("closed"))


def test_a_stream_that_brought_news_is_opened_again_at_once_and_one_that_brought_none_is_not() -> None:
    cursor = TailCursor(PATH, chance=lambda: 0.0)
    for brought in FRAMES[:4]:
        fed(opened(cursor), [RETRY + brought])
        assert cursor.lost(ConnectionLost("cut")) == 0.025
    for waits_s in (0.5, 1.0, 2.0):
        fed(opened(cursor), [RETRY + FRAMES[3]])
        assert cursor.lost(ConnectionLost("cut")) == waits_s
    fed(opened(cursor), [RETRY + FRAMES[4]])
    assert cursor.lost(ConnectionLost("cut")) == 0.025


def test_a_quiet_run_behind_a_proxy_that_cuts_is_followed_for_as_long_as_pings_come() -> None:
    clock = [0.0]

    def cut(cursor: TailCursor, *, heard_for_s: int) -> None:
        cursor.opened()
        clock[0] += heard_for_s
        fed(cursor, [PING])
        clock[0] += 44
        cursor.lost(ConnectionLost("cut"))

    patient, impatient = (TailCursor(PATH, attempts=3, now=lambda: clock[0]) for _ in range(2))
    for _ in range(3):
        cut(patient, heard_for_s=16)
    for _ in range(2):
        cut(impatient, heard_for_s=1)
    with pytest.raises(APIConnectionError, match="gave up after 3 attempts"):
        cut(impatient, heard_for_s=1)


def test_the_cursor_waits_as_the_server_asked() -> None:
    cursor = opened()
    fed(cursor, [b"retry: 20\n\n"])
    assert [cursor.lost(REFUSED) for _ in range(3)] == [0.02, 0.04, 0.08]
    assert cursor.lost(Answer(503, {"retry-after": "9"}, b"")) == 9


def test_an_answer_that_is_no_stream_is_quoted() -> None:
    with pytest.raises(APIConnectionError, match=r"else than an event stream \(text/html\).*Hello"):
        TailCursor(PATH).lost(Answer(200, {"content-type": "text/html"}, b"<html>Hello"))
