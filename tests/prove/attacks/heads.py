"""Heads of requests that are huge, many, or no HTTP; none of them needs a key."""

import asyncio
from contextlib import suppress

from tests.prove.attacking.attack import Family, until_over
from tests.prove.attacking.field import SOURCE, Field
from tests.prove.attacking.http import Connection, head

FAMILY = Family("heads")

START = b"GET /health HTTP/1.1\r\nHost: x\r\n"
LARGE = 100_000_000
ENDLESS = "the server goes on reading a head that is far too large"


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


@FAMILY.attack("nobody", finding=3)
async def headers_of_313_mb(field: Field) -> None:
    """313 MB of headers on one connection."""
    part = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(1000))
    sent = await _poured(field, START, part, most=313_000_000)
    if max(sent) >= LARGE:
        field.complain(f"{ENDLESS}: {max(sent):,} bytes of headers")


@FAMILY.attack("nobody", finding=3)
async def header_of_150_mb(field: Field) -> None:
    """One header with a value of 150 MB."""
    sent = await _poured(field, START + b"X-Long: ", b"v" * 1_000_000, most=150_000_000)
    if max(sent) >= LARGE:
        field.complain(f"{ENDLESS}: {max(sent):,} bytes of a value")


@FAMILY.attack("nobody")
async def address_of_100_mb(field: Field) -> None:
    """A request line of 100 MB."""
    sent = await _poured(field, b"GET /", b"a" * 1_000_000, most=100_000_000)
    if max(sent) >= LARGE:
        field.complain(f"{ENDLESS}: {max(sent):,} bytes of an address")


@FAMILY.attack("nobody")
async def headers_on_many_connections(field: Field) -> None:
    """30 connections with 10 MB of headers each, none of which ends its head."""
    part = b"X: " + b"v" * 60_000 + b"\r\n"
    await _poured(field, START, part, most=10_000_000, connections=30)


@FAMILY.attack("nobody")
async def ten_thousand_headers(field: Field) -> None:
    """Requests with 10,000 small headers, ended in order."""
    request = START + b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n"
    await field.flood(lambda _: _sent(field, request), beside=8, per_s=40)


@FAMILY.attack("nobody")
async def duplicate_headers(field: Field) -> None:
    """The same header 20,000 times, among them Authorization and Content-Length."""
    names = (b"Authorization: Bearer nk_x\r\n", b"Content-Length: 0\r\n", b"Cookie: a=b\r\n")
    await field.flood(lambda n: _sent(field, START + names[n % 3] * 20_000 + b"\r\n"), beside=8, per_s=40)


@FAMILY.attack("nobody", finding=8)
async def host_missing_or_double(field: Field) -> None:
    """Requests without Host, and with two: each must be refused with 400."""
    for name, request in {
        "no Host": b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
        "two Hosts": b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
    }.items():
        status = await _sent(field, request)
        if status != 400:
            field.complain(f"a request with {name} gave {status}")


@FAMILY.attack("run")
async def two_lengths(field: Field) -> None:
    """Bodies with two lengths, or a length and chunks: no request may hide in another one's body."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    for framing in (
        b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(hidden),
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % (len(hidden) + 5),
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
    ):
        request = b"POST /health HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n0\r\n\r\n" + hidden
        status = await _sent(field, request)
        if 200 <= status < 300:
            field.complain(f"a request with {framing!r} gave {status}")


@FAMILY.attack("nobody")
async def no_http_at_all(field: Field) -> None:
    """Bytes that are a TLS hello, a PRI of HTTP/2, zeros, or one endless line."""
    hellos = (
        b"\x16\x03\x01\x02\x00" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 60_000,
        b"a" * 60_000,
    )
    await field.flood(lambda n: _sent(field, hellos[n % 4]), beside=16, per_s=150)


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


@FAMILY.attack("nobody")
async def head_storm(field: Field) -> None:
    """HEAD, OPTIONS, TRACE and made-up methods at paths that there are and are not, 200 a second."""
    methods = ("HEAD", "OPTIONS", "TRACE", "PROPFIND", "X" * 200)
    paths = ("/health", "/api/v1/flow-runs", "/" + "%2f" * 400, "/api/v1/schemas/flow.json")
    await field.flood(
        lambda n: _sent(
            field, head(methods[n % 5], paths[n % 4], host="x", headers=[("Connection", "close")])
        ),
        beside=16,
        per_s=200,
    )


@FAMILY.attack("nobody")
async def chunk_extensions(field: Field) -> None:
    """A body of one-byte chunks, each with an extension of 10 kB, and a megabyte of trailers."""
    start = b"POST /api/v1/flow-runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = (b"1;" + b"e" * 10_000 + b"\r\nx\r\n") * 100
    trailers = b"0\r\n" + b"".join(b"T-%d: v\r\n" % number for number in range(50_000))
    await asyncio.gather(
        _poured(field, start, chunks, most=30_000_000, connections=2),
        _poured(field, start + trailers, b"T: v\r\n" * 1000, most=5_000_000, connections=2),
    )


async def _sent(field: Field, request: bytes) -> int:
    """The status that these bytes are answered with, 0 where there is no answer."""
    status = 0
    with suppress(OSError, EOFError, ValueError, TimeoutError):
        async with asyncio.timeout(3), await Connection.open(field.address, source=SOURCE) as connection:
            with suppress(ConnectionError):
                await connection.send(request)
            status, _ = await connection.answer_head()
    field.tally[status] += 1
    return status
