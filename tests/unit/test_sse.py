"""Event streams: the encoder's exact bytes, and the decoder against the HTML standard at any chunk border."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.wire.sse import PING, RETRY, Decoder, Frame, FrameTooLarge, frame, frames, unnumbered_frame
from tests.examples import examples
from tests.sse_standard import PIECES, check, cut, feed_all

# Chunks end between pieces and, by `borders`, anywhere inside them.
pieces = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=8)
chunked = st.lists(pieces.map(b"".join), max_size=8)
borders = st.lists(st.integers(min_value=0, max_value=400), max_size=12)


@pytest.mark.parametrize("data", [b"{\n}", b"{}\r", b"\r\n"])
def test_a_line_end_in_the_data_is_refused_and_the_event_named(data: bytes) -> None:
    with pytest.raises(ValueError, match="data of event 8 contains a line end"):
        frame(8, "x", data)
    with pytest.raises(ValueError, match="data of event 8 contains a line end"):
        frames([(7, "x", b"{}"), (8, "x", data), (9, "x", b"{}")])
    with pytest.raises(ValueError, match="data of 'x' contains a line end"):
        unnumbered_frame("x", data)


@pytest.mark.parametrize("event", ["", "a\nb", "a\r"])
def test_an_event_name_that_would_break_the_frame_is_refused(event: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"event name {event!r}")):
        frame(1, event, b"{}")
    with pytest.raises(ValueError, match=re.escape(f"event name {event!r}")):
        frames([(1, event, b"{}")])


def test_a_frame_without_a_number_leaves_the_place_in_the_stream_alone() -> None:
    data = b'{"seq":0}'
    assert unnumbered_frame("step_output", data) == b'event: step_output\ndata: {"seq":0}\n\n'
    decoder = Decoder()
    found = decoder.feed(frame(3, "x", b"{}") + unnumbered_frame("step_output", data))
    assert (found[1].event, found[1].data, decoder.last_event_id) == ("step_output", data, "3")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((b"250", 250), (b"0", 0), (b"007", 7), (b"9" * 18, 10**18 - 1)),
        *((wrong, None) for wrong in (b"9" * 19, b"9" * 5000, b"", b" 5", b"-5", b"5.0", b"1_0")),
        ("٣".encode(), None),
    ],
)
def test_retry_takes_ascii_digits_only_and_at_once(value: bytes, expected: int | None) -> None:
    decoder = Decoder()
    decoder.feed(b"retry: " + value + b"\n")
    assert decoder.retry_ms == expected


def test_malformed_utf8_is_replaced_in_names_and_kept_in_data() -> None:
    found = Decoder().feed(b"id: \xff\nevent: a\xe2\x82\ndata: \xff\n\n")
    assert found == [Frame("�", "a�", b"\xff")]


def test_a_carriage_return_at_the_end_of_a_chunk_ends_its_line_at_once() -> None:
    assert Decoder().feed(b"data: a\r\n\r") == [Frame("", "message", b"a")]


@given(chunks=chunked, borders=borders, limit=st.integers(min_value=3, max_value=60) | st.just(10_000))
@examples(200, of=2_000)
def test_any_stream_is_decoded_as_the_standard_says_up_to_the_limit(
    chunks: list[bytes], borders: list[int], limit: int
) -> None:
    stream = b"".join(chunks)
    check(stream, chunks, limit)
    check(stream, cut(stream, borders), limit)


@given(noise=st.lists(chunked.map(b"".join), min_size=1, max_size=6), borders=borders)
@examples(50, of=1_000)
def test_no_event_is_lost_whatever_stands_before_it_once_that_has_ended(
    noise: list[bytes], borders: list[int]
) -> None:
    rows = [(seq, "e", b'{"n":%d}' % seq) for seq in range(len(noise))]
    stream = b"".join(junk + b"\n\n" + frame(*row) for junk, row in zip(noise, rows, strict=True))
    found = iter(feed_all(Decoder(), cut(stream, borders)))
    assert [row for row in rows if Frame(str(row[0]), *row[1:]) not in found] == []


@given(
    rows=st.lists(
        st.tuples(
            st.integers(min_value=1),
            st.text(min_size=1).filter(lambda name: "\r" not in name and "\n" not in name),
            st.binary().map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"")),
        )
    ),
    borders=borders,
)
@examples(100, of=400)
def test_what_is_encoded_comes_back(rows: list[tuple[int, str, bytes]], borders: list[int]) -> None:
    decoder = Decoder()
    found = feed_all(decoder, cut(b"\xef\xbb\xbf" + RETRY + frames(rows) + PING, borders))
    assert found == [Frame(str(seq), event, data) for seq, event, data in rows]
    assert (decoder.last_event_id, decoder.retry_ms) == (str(rows[-1][0]) if rows else "", 1000)


def test_the_error_says_the_limit_the_bytes_seen_and_the_way_out() -> None:
    decoder = Decoder(max_frame_bytes=100)
    decoder.feed(frame(41, "e", b"{}"))
    told = r"'41' is larger than the limit of 100 bytes \(205 seen\).*larger max_frame_bytes"
    with pytest.raises(FrameTooLarge, match=told):
        feed_all(decoder, [b"data", b":" + b"x" * 200])


def test_frames_before_one_that_is_too_large_do_not_count_as_read() -> None:
    decoder = Decoder(max_frame_bytes=100)
    decoder.feed(frame(41, "e", b"{}"))
    for _ in range(2):
        with pytest.raises(FrameTooLarge):
            decoder.feed(frame(42, "e", b"{}") + b"data:" + b"x" * 200)
        assert decoder.last_event_id == "41"


@pytest.mark.parametrize("whole", [frame(1, "e", b"x" * 50), unnumbered_frame("e", b"x" * 50)])
def test_a_frame_of_exactly_the_limit_passes_and_small_frames_never_add_up(whole: bytes) -> None:
    limit = len(whole) - 1
    stream = whole * 20
    assert len(Decoder(limit).feed(stream)) == 20
    assert len(feed_all(Decoder(limit), cut(stream, range(0, len(stream), 7)))) == 20
    for larger in (whole, stream):
        with pytest.raises(FrameTooLarge):
            Decoder(limit - 1).feed(larger)
