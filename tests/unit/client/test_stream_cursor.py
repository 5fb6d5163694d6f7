"""Laws of the tail cursor: any cut, any chunk border, any repeat; every event once, in order."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass import APIConnectionError, StreamEvent
from runglass.client.core import requests
from runglass.client.core.responses import Answer, ConnectionLost
from runglass.client.core.stream_cursor import ListCursor, TailCursor
from runglass.wire.sse import PING, RETRY, frame
from tests.unit.client.scripted import FRAMES, SEQS, seqs, stream

PATH = "/flow-runs/r1/trace/stream"
PAGE = requests.runs(flow_id=None, status=None)
REFUSED = ConnectionLost("refused", sent=False, cause=OSError("refused"))


def opened(cursor: TailCursor | None = None) -> TailCursor:
    cursor = cursor or TailCursor(PATH, chance=lambda: 1.0)
    cursor.opened()
    return cursor


def fed(cursor: TailCursor, chunks: Iterable[bytes]) -> list[StreamEvent]:
    return [event for chunk in chunks for event in cursor.feed(chunk)]


CONNECTIONS = st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(1, 700), max_size=5)), max_size=8)


@given(CONNECTIONS)
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
    cursor = ListCursor(PAGE, after=3, first_attempts=1)
    cursor.opened()
    assert (changes(cursor, long + b"\n"), cursor.last) == ([], 3)


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


def changes(cursor: ListCursor, *frames: bytes) -> list[tuple[str, bool]]:
    """The runs that the frames tell, and whether they are in the list."""
    return [(each.run_id, each.run is not None) for data in frames for each in cursor.feed(data)]


def in_list(number: int, run_id: str, status: str = "running") -> bytes:
    run = b'{"id":"%b","flowId":"f","status":"%b"}' % (run_id.encode(), status.encode())
    return frame(number, "run", run)


def out_of_list(number: int, run_id: str) -> bytes:
    return frame(number, "gone", b'{"id":"%b"}' % run_id.encode())


def test_a_run_that_never_met_the_query_is_not_told() -> None:
    cursor = ListCursor(PAGE, after=None, first_attempts=1)
    cursor.opened()
    told = changes(
        cursor, out_of_list(1, "other"), in_list(2, "mine"), out_of_list(3, "mine"), out_of_list(4, "mine")
    )
    assert told == [("mine", True), ("mine", False)]
    assert cursor.last == 4


def test_a_reader_with_a_page_is_told_of_each_run_that_may_have_been_on_it() -> None:
    cursor = ListCursor(PAGE, after=3, first_attempts=1)
    cursor.opened()
    assert changes(cursor, out_of_list(4, "other")) == [("other", False)]


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
