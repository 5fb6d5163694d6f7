"""Event streams by the letter of the HTML standard, for the tests of a decoder that is built otherwise.

Only `runglass.wire.sse` is imported, so that a fuzzer can run this in an environment of its own.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from runglass.wire.sse import Decoder, Frame, FrameTooLarge


def feed_all(decoder: Decoder, chunks: Iterable[bytes]) -> list[Frame]:
    return [found for chunk in chunks for found in decoder.feed(chunk)]


def cut(stream: bytes, borders: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(border % (len(stream) + 1) for border in borders), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def reference(stream: bytes) -> tuple[list[tuple[str, str, str]], str, int | None]:
    """The standard's text, line for line, on a whole stream: events, last event id, reconnection time."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)
    lines.pop()  # not ended, so not yet a line
    events: list[tuple[str, str, str]] = []
    data = event_type = id_buffer = last_event_id = ""
    retry: int | None = None
    for line in lines:
        if line == "":
            last_event_id = id_buffer
            if data != "":
                events.append((last_event_id, event_type or "message", data.removesuffix("\n")))
            data = event_type = ""
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            event_type = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]{1,18}", value):
            retry = int(value)
    return events, last_event_id, retry


# Pieces that meet in every way that matters: each field, each line end, near misses and malformed UTF-8.
PIECES: list[bytes] = [
    *[b"data", b"event", b"id", b"retry", b"Data", b":", b": ", b" ", b"0", b"17", b"x"],
    *[b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\xef\xbb\xbf", b"\xef", b"\xff", b"\xe2\x82"],
    *[each.encode() for each in ("é", "\u2028", "\x85", "\v", "\f", "٣")],
    *[b"data: x\n", b"id: 4\n", b"event: e\n", b"retry: 5\n", b": c\n", b"data\r", b"id\r\n"],
    *[
        b"id: 1\nevent: a\ndata: {}\n\n",
        b"id: 2\r\nevent: b\r\ndata: []\r\n\r\n",
        b"id: \0\nevent: a\ndata: z\n\n",
    ],
]


def sizes(stream: bytes) -> list[int]:
    """The bytes of each frame of a stream, the unfinished rest included, each line end counted as one."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = [0]
    for line in text.splitlines(keepends=True):
        if line == b"\n":
            found.append(0)
        else:
            found[-1] += len(line)
    return found


def check(stream: bytes, chunks: Iterable[bytes], limit: int) -> None:
    """Raises AssertionError if a decoder that gets these chunks of the stream departs from the standard.

    That is: another event, id or time, a FrameTooLarge too much or too few, any other exception.
    """
    decoder = Decoder(limit)
    found: list[Frame] = []
    refused = False
    for chunk in chunks:
        try:
            found += decoder.feed(chunk)
        except FrameTooLarge:
            refused = True
            break
    assert refused == (max(sizes(stream)) > limit), f"limit {limit}, sizes {sizes(stream)}"
    expected = reference(stream)
    events = [(each.id, each.event, each.data.decode("utf-8", "replace")) for each in found]
    mine = (events, decoder.last_event_id, decoder.retry_ms)
    if refused:
        assert mine[0] == expected[0][: len(mine[0])], f"{mine} is not the beginning of {expected}"
    else:
        assert mine == expected, f"{mine} instead of {expected}"
