"""What a program with a key that only sends can send as traces: bombs, and values and spans without end."""

import gzip
import struct
from collections.abc import Callable

from backports import zstd

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import SOURCE, Field
from tests.prove.attacking.http import Answer, call

FAMILY = Family("otlp")

MOST_BYTES = (16 << 20) - 1000
IDS = b"\x0a\x10" + bytes(range(16)) + b"\x12\x08" + bytes(range(8))
"""The ids of a span."""
GZIP, ZSTD, JSON = (
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "zstd"),
    ("Content-Type", "application/json"),
)
PROTOBUF = ("Content-Type", "application/x-protobuf")


def _frame(tag: int, content: bytes) -> bytes:
    size, encoded = len(content), bytearray([tag])
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(encoded) + bytes([size]) + content


def _request(spans: bytes) -> bytes:
    return _frame(0x0A, _frame(0x12, spans))


def _span(content: bytes) -> bytes:
    return _frame(0x12, IDS + content)


def _filled(part: bytes) -> bytes:
    return part * (MOST_BYTES // len(part))


def _zstd_bomb() -> bytes:
    """A gigabyte of zeros, with a window of 128 MB."""
    of = zstd.CompressionParameter
    return zstd.compress(bytes(1 << 30), options={of.window_log: 27, of.compression_level: 1})


def _small_spans(traces: int) -> bytes:
    span = struct.Struct(">BB8xQBBQ")
    spans = (_frame(0x12, span.pack(0x0A, 16, number, 0x12, 8, number)) for number in range(1, traces + 1))
    return _request(b"".join(spans))


BODIES: dict[str, tuple[Callable[[], bytes], tuple[str, str]]] = {
    "gzip-bomb": (lambda: gzip.compress(bytes(1 << 30), 6), GZIP),
    "zstd-bomb": (_zstd_bomb, ZSTD),
    "many-streams-of-gzip": (lambda: _filled(gzip.compress(b"")), GZIP),
    "empty-attributes": (lambda: _request(_span(_filled(b"\x4a\x00"))), PROTOBUF),
    "empty-events": (lambda: _request(_span(_filled(b"\x5a\x00"))), PROTOBUF),
    "events-of-small-spans": (lambda: gzip.compress(_request(_filled(_span(b"\x5a\x00" * 32_000)))), GZIP),
    "list-of-nothing": (
        lambda: _request(_span(_frame(0x4A, _frame(0x12, _frame(0x2A, _filled(b"\x0a\x00")))))),
        PROTOBUF,
    ),
    "numbers-without-end": (lambda: _request(_frame(0x12, _filled(b"\x30\x01"))), PROTOBUF),
    "empty-spans": (lambda: _request(_filled(b"\x12\x00")), PROTOBUF),
    "most-empty-spans": (lambda: _request(b"\x12\x00" * 199_000), PROTOBUF),
    "most-attributes": (lambda: _request(_span(b"\x4a\x00" * 199_000) * 40), PROTOBUF),
    "lists-of-json": (
        lambda: (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":{"a":['
            + _filled(b"[],")
            + b"1]}}]}]}]}"
        ),
        JSON,
    ),
    "traces-of-one-span": (lambda: _small_spans(50_000), PROTOBUF),
}


async def _sent(field: Field, sends: tuple[Callable[[], bytes], tuple[str, str]]) -> None:
    body, every = sends[0](), [*field.headers(), sends[1]]

    async def send(_: int) -> Answer:
        answer = await call(field.address, "POST", "/v1/traces", body, headers=every, source=SOURCE)
        field.tally[answer.status] += 1
        return answer

    await field.flood(send, beside=3, per_s=6)


FAMILY.each("record", _sent, BODIES)
