"""What a program with a key that only sends can send as traces: bombs, and values and spans without end."""

import functools
import gzip
import struct
from collections.abc import Callable, Sequence

from backports import zstd

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import SOURCE, Field
from tests.prove.attacking.http import Answer, call

FAMILY = Family("otlp")

MOST_BYTES = (16 << 20) - 1000
IDS = b"\x0a\x10" + bytes(range(16)) + b"\x12\x08" + bytes(range(8))
"""The ids of a span."""


def _frame(tag: int, content: bytes) -> bytes:
    size, encoded = len(content), bytearray([tag])
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(encoded) + bytes([size]) + content


def _request(spans: bytes) -> bytes:
    return _frame(0x0A, _frame(0x12, spans))


def _filled(part: bytes, *, most_bytes: int = MOST_BYTES) -> bytes:
    return part * (most_bytes // len(part))


def _zstd_bomb() -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.compression_level: 1,
    }
    return zstd.compress(bytes(1 << 30), options=options)


def _small_spans(traces: int) -> bytes:
    """So many spans, each of a trace of its own."""
    span = struct.Struct(">BB8xQBBQ")
    return _request(
        b"".join(
            _frame(0x12, span.pack(0x0A, 16, number, 0x12, 8, number)) for number in range(1, traces + 1)
        )
    )


BODIES: dict[str, tuple[str, Callable[[], bytes], Sequence[tuple[str, str]]]] = {
    "gzip-bomb": (
        "a gigabyte of zeros as gzip",
        lambda: gzip.compress(bytes(1 << 30), 6),
        [("Content-Encoding", "gzip")],
    ),
    "zstd-bomb": ("the same as zstd, with a window of 128 MB", _zstd_bomb, [("Content-Encoding", "zstd")]),
    "many-streams-of-gzip": (
        "800,000 empty streams of gzip in one body",
        lambda: _filled(gzip.compress(b"")),
        [("Content-Encoding", "gzip")],
    ),
    "empty-attributes": (
        "a span of eight million attributes",
        lambda: _request(_frame(0x12, IDS + _filled(b"\x4a\x00"))),
        [],
    ),
    "empty-events": (
        "a span of eight million events",
        lambda: _request(_frame(0x12, IDS + _filled(b"\x5a\x00"))),
        [],
    ),
    "events-of-small-spans": (
        "260 spans with eight million events, a few kilobytes of gzip",
        lambda: gzip.compress(_request(_filled(_frame(0x12, IDS + b"\x5a\x00" * 32_000)))),
        [("Content-Encoding", "gzip")],
    ),
    "list-of-nothing": (
        "an attribute that is a list of eight million nothings",
        lambda: _request(_frame(0x12, IDS + _frame(0x4A, _frame(0x12, _frame(0x2A, _filled(b"\x0a\x00")))))),
        [],
    ),
    "numbers-without-end": (
        "a span of eight million numbers, none of which has a name",
        lambda: _request(_frame(0x12, _filled(b"\x30\x01"))),
        [],
    ),
    "empty-spans": ("eight million spans", lambda: _request(_filled(b"\x12\x00")), []),
    "most-empty-spans": ("as many empty spans as are looked at", lambda: _request(b"\x12\x00" * 199_000), []),
    "most-attributes": (
        "spans of as many attributes as are read, 40 of them",
        lambda: _request(_frame(0x12, IDS + b"\x4a\x00" * 199_000) * 40),
        [],
    ),
    "lists-of-json": (
        "a span of OTLP/JSON with five million lists",
        lambda: (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":{"a":['
            + _filled(b"[],")
            + b"1]}}]}]}]}"
        ),
        [("Content-Type", "application/json")],
    ),
    "traces-of-one-span": ("50,000 spans, each of a trace of its own", lambda: _small_spans(50_000), []),
}


async def _sent(field: Field, make: Callable[[], bytes], headers: Sequence[tuple[str, str]]) -> None:
    body = make()

    async def send(_: int) -> Answer:
        every = [*field.headers(), *headers]
        answer = await call(field.address, "POST", "/v1/traces", body, headers=every, source=SOURCE)
        field.tally[answer.status] += 1
        return answer

    await field.flood(send, beside=3, per_s=6)


for name, (about, make_body, more) in BODIES.items():
    FAMILY.add(name, about, functools.partial(_sent, make=make_body, headers=more), role="record")
