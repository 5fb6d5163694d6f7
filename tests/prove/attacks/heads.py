"""Heads of requests that are huge, many, or no HTTP; none of them needs a key."""

import asyncio
from contextlib import suppress

from tests.prove.attacking.attack import Family, until_over
from tests.prove.attacking.field import SOURCE, Field
from tests.prove.attacking.http import Connection, head

FAMILY = Family("heads")

START = b"GET /health HTTP/1.1\r\nHost: x\r\n"
MB = 1_000_000


async def _poured(field: Field, start: bytes, part: bytes, *, most: int, connections: int = 1) -> list[int]:
    """Sends `start` and then `part` until `most` bytes, the end, or the server's refusal; the bytes sent."""

    async def one(_: int) -> int:
        sent = 0
        with suppress(OSError, EOFError):
            connection = await Connection.open(field.address, source=SOURCE)
            field.opened.append(connection)
            await connection.send(start)
            while sent < most and not connection.reader.at_eof() and field.left_s > 0.1:
                await connection.send(part)
                sent += len(part)
            if sent >= most:
                # Nothing ends it: what the server has read so far, it keeps.
                await until_over(field)
        return sent

    return await field.together(connections, one)


async def _endless(field: Field, sends: tuple[bytes, bytes, int]) -> None:
    start, part, most = sends
    sent = await _poured(field, start, part, most=most)
    if max(sent) >= 100 * MB:
        field.complain(f"the server goes on reading a head that is far too large: {max(sent):,} bytes")


HEADERS = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(1000))
ENDLESS = {
    "headers-of-313-mb": (START, HEADERS, 313 * MB),
    "header-of-150-mb": (START + b"X-Long: ", b"v" * MB, 150 * MB),
    "address-of-100-mb": (b"GET /", b"a" * MB, 100 * MB),
}
FAMILY.each("nobody", _endless, ENDLESS)


@FAMILY.attack("nobody")
async def headers_on_many_connections(field: Field) -> None:
    await _poured(field, START, b"X: " + b"v" * 60_000 + b"\r\n", most=10 * MB, connections=30)


@FAMILY.attack("nobody")
async def chunk_extensions(field: Field) -> None:
    """A body of one-byte chunks, each with an extension of 10 kB, and a megabyte of trailers."""
    start = b"POST /api/v1/flow-runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = (b"1;" + b"e" * 10_000 + b"\r\nx\r\n") * 100
    trailers = b"0\r\n" + b"".join(b"T-%d: v\r\n" % number for number in range(50_000))
    await asyncio.gather(
        _poured(field, start, chunks, most=30 * MB, connections=2),
        _poured(field, start + trailers, b"T: v\r\n" * 1000, most=5 * MB, connections=2),
    )


@FAMILY.attack("nobody")
async def pipelining(field: Field) -> None:
    """10,000 requests in one go on each of four connections, whose answers nobody reads."""

    async def one(_: int) -> None:
        with suppress(OSError):
            connection = await Connection.open(field.address, source=SOURCE)
            field.opened.append(connection)
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await connection.send((START + b"\r\n") * 10_000)
            await until_over(field)

    await field.together(4, one)


async def _sent(field: Field, request: bytes) -> None:
    status = 0
    with suppress(OSError, EOFError, ValueError, TimeoutError):
        async with asyncio.timeout(3), await Connection.open(field.address, source=SOURCE) as connection:
            with suppress(ConnectionError):
                await connection.send(request)
            status, _ = await connection.answer_head()
    field.tally[status] += 1


TEN_THOUSAND = START + b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n"
REPEATED = (b"Authorization: Bearer nk_x\r\n", b"Content-Length: 0\r\n", b"Cookie: a=b\r\n")
MANY = {
    "ten-thousand-headers": lambda field, _: _sent(field, TEN_THOUSAND),
    "duplicate-headers": lambda field, n: _sent(field, START + REPEATED[n % 3] * 20_000 + b"\r\n"),
}
FAMILY.floods("nobody", 8, 40, MANY)
HELLOS = (b"\x16\x03\x01\x02\x00" * 500, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 60_000, b"a" * 60_000)
METHODS = ("HEAD", "OPTIONS", "TRACE", "PROPFIND", "X" * 200)
PATHS = ("/health", "/api/v1/flow-runs", "/" + "%2f" * 400, "/api/v1/schemas/flow.json")
CLOSE = [("Connection", "close")]
STORMS = {
    "no-http-at-all": lambda field, n: _sent(field, HELLOS[n % 4]),
    "head-storm": lambda field, n: _sent(field, head(METHODS[n % 5], PATHS[n % 4], host="x", headers=CLOSE)),
}
FAMILY.floods("nobody", 16, 200, STORMS)
