"""What is sent to be taken in, without end: files of runs by an admin, traces by a key that only sends.

Bombs, and values and spans without end.
"""

import gzip
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from backports import zstd

from tests.prove.attacking.attack import API, SOURCE, Family, Field
from tests.prove.attacking.http import Answer, Connection, head

IMPORTS = Family("import")

IMPORT = "/flow-runs/import"
PIECE = 1 << 20
FILE_PIECES = 120
"""Of a megabyte each: below `import_limit_bytes`, and what took gigabytes once."""
HEADER = (
    b'{"format":"runglass-run","formatVersion":1,"runId":"01a216ae-3af3-75ae-86e9-000000000001","version":1,'
    b'"capture":"full","triggerType":"api","flow":{"id":"01a216ae-3af3-75ae-86e9-000000000002",'
    b'"slug":"imported","source":{"slug":"imported","steps":[{"id":"a","type":"passthrough"}]}}'
)
"""Of a run of a new flow, but for its last bracket."""
ENDLESS = {
    "members-without-end": (b'{"":', b'"",":'),
    "members-of-a-document": (HEADER, b',"x":1'),
    "one-long-string": (HEADER + b',"x":"', b"a"),
    "one-string-of-escapes": (HEADER + b',"x":"', b"\\n"),
    "one-long-name": (HEADER + b',"', b"n"),
    "one-long-event": (HEADER + b',"events":["', b"a"),
    "commas-for-events": (HEADER + b',"events":[1', b","),
    "brackets-in-the-trace": (HEADER + b',"trace":[', b"[]"),
    "deep-trace": (HEADER + b',"trace":', b"["),
    "a-repeated-member": (HEADER, b',"flow":{}'),
    "blank-lines": (HEADER + b"}\n", b"\n"),
    "one-long-line": (HEADER + b"}\n", b"a"),
}
LARGE = b'{"x":"' + b"y" * 5_000_000 + b'",' + HEADER[1:] + b"}"


def _pieces(before: bytes, unit: bytes) -> Iterator[bytes]:
    yield before
    piece = unit * (PIECE // len(unit))
    for _ in range(FILE_PIECES):
        yield piece


async def _send(field: Field, pieces: Iterator[bytes]) -> Answer:
    """The answer to a file that is sent in chunks, and no further once the server has refused it."""
    chunked = [*field.headers(), ("Transfer-Encoding", "chunked")]
    answer = Answer(0)
    with suppress(OSError, EOFError):
        async with await Connection.open(field.address, source=SOURCE) as connection:
            await connection.send(head("POST", f"{API}{IMPORT}", host=connection.host, headers=chunked))
            with suppress(ConnectionError):
                for piece in pieces:
                    await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await connection.send(b"0\r\n\r\n")
            answer = await connection.answer()
    field.tally[answer.status] += 1
    return answer


async def _sent(field: Field, endless: tuple[bytes, bytes]) -> None:
    while field.left_s > 0:
        answer = await _send(field, _pieces(*endless))
        if answer.status in (201, 500):
            field.complain(f"a file that is none was answered with {answer.status}")


IMPORTS.each("admin", _sent, ENDLESS)
IMPORTS.floods("admin", 12, 40, {"many-imports-at-once": lambda field, _: field.call("POST", IMPORT, LARGE)})


TRACES = Family("otlp")

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


async def _sent_traces(field: Field, sends: tuple[Callable[[], bytes], tuple[str, str]]) -> None:
    body, header = sends[0](), sends[1]
    await field.flood(
        lambda _: field.call("POST", "/v1/traces", body, headers=[header], below=""), beside=3, per_s=6
    )


TRACES.each("record", _sent_traces, BODIES)
