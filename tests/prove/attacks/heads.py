"""Heads of requests that are huge, many, or no HTTP; and connections that are many, or slow.

Heads and bodies that do not end, answers that nobody takes; most need no key.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.prove.attacking.attack import API, COPY, SOURCE, Family, Field, loop
from tests.prove.attacking.http import ATTACKER, Connection, head

HEADS = Family("heads")

START = b"GET /health HTTP/1.1\r\nHost: x\r\n"
MB = 1_000_000


async def _poured(field: Field, start: bytes, part: bytes, *, most: int, connections: int = 1) -> int:
    """Sends `start`, then `part` until `most` bytes, the end, or a refusal; how much one connection took."""
    sent: Counter[Connection] = Counter()

    async def pour(connection: Connection) -> None:
        await connection.send(start)
        while sent[connection] < most and not connection.reader.at_eof() and field.left_s > 0.1:
            await connection.send(part)
            sent[connection] += len(part)
        if sent[connection] >= most:
            # Nothing ends it: what the server has read so far, it keeps.
            await field.until_over()

    await field.on_each(connections, pour)
    return max(sent.values(), default=0)


async def _endless(field: Field, sends: tuple[bytes, bytes, int]) -> None:
    start, part, most = sends
    sent = await _poured(field, start, part, most=most)
    if sent >= 100 * MB:
        field.complain(f"the server goes on reading a head that is far too large: {sent:,} bytes")


HEADERS = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(1000))
ENDLESS = {
    "headers-of-313-mb": (START, HEADERS, 313 * MB),
    "header-of-150-mb": (START + b"X-Long: ", b"v" * MB, 150 * MB),
    "address-of-100-mb": (b"GET /", b"a" * MB, 100 * MB),
}
HEADS.each("nobody", _endless, ENDLESS)


@HEADS.attack("nobody")
async def headers_on_many_connections(field: Field) -> None:
    await _poured(field, START, b"X: " + b"v" * 60_000 + b"\r\n", most=10 * MB, connections=30)


@HEADS.attack("nobody")
async def chunk_extensions(field: Field) -> None:
    """A body of one-byte chunks, each with an extension of 10 kB, and a megabyte of trailers."""
    start = b"POST /api/v1/flow-runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = (b"1;" + b"e" * 10_000 + b"\r\nx\r\n") * 100
    trailers = b"0\r\n" + b"".join(b"T-%d: v\r\n" % number for number in range(50_000))
    await asyncio.gather(
        _poured(field, start, chunks, most=30 * MB, connections=2),
        _poured(field, start + trailers, b"T: v\r\n" * 1000, most=5 * MB, connections=2),
    )


@HEADS.attack("nobody")
async def pipelining(field: Field) -> None:
    """10,000 requests in one go on each of four connections, whose answers nobody reads."""

    async def send(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send((START + b"\r\n") * 10_000)

    await field.on_each(4, send)
    await field.until_over()


async def _sent(field: Field, request: bytes) -> None:
    status = 0
    with suppress(OSError, EOFError, ValueError, TimeoutError):
        async with asyncio.timeout(3):
            status, _ = await field.raw(request)
    field.tally[status] += 1


TEN_THOUSAND = START + b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n"
REPEATED = (b"Authorization: Bearer nk_x\r\n", b"Content-Length: 0\r\n", b"Cookie: a=b\r\n")
OF_MANY_HEADERS = {
    "ten-thousand-headers": lambda field, _: _sent(field, TEN_THOUSAND),
    "duplicate-headers": lambda field, n: _sent(field, START + REPEATED[n % 3] * 20_000 + b"\r\n"),
}
HEADS.floods("nobody", 8, 40, OF_MANY_HEADERS)
HELLOS = (b"\x16\x03\x01\x02\x00" * 500, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 60_000, b"a" * 60_000)
METHODS = ("HEAD", "OPTIONS", "TRACE", "PROPFIND", "X" * 200)
PATHS = ("/health", "/api/v1/flow-runs", "/" + "%2f" * 400, "/api/v1/schemas/flow.json")
CLOSE = [("Connection", "close")]
STORMS = {
    "no-http-at-all": lambda field, n: _sent(field, HELLOS[n % 4]),
    "head-storm": lambda field, n: _sent(field, head(METHODS[n % 5], PATHS[n % 4], host="x", headers=CLOSE)),
}
HEADS.floods("nobody", 16, 200, STORMS)


SLOW = Family("slow")

MANY = 1001
"""Of a server with 1,024 files."""
EVERYWHERE = [f"127.0.7.{number}" for number in range(1, 101)]
DRIP_S = 0.25
TEN_MB = 9_900_000
BEGUN = b"GET /health HTTP/1.1\r\n"
ONE, OTHERS = (SOURCE,), EVERYWHERE


def _post(field: Field, length: int, *more: tuple[str, str]) -> bytes:
    headers = [*field.headers(), ("Content-Type", "application/json"), ("Content-Length", str(length)), *more]
    return head("POST", f"{API}/seq/{ATTACKER}/copy/execute", host="x", headers=headers)


async def _held(field: Field, held: tuple[Callable[[Field], bytes], int, Sequence[str]]) -> None:
    """So many connections that send their first bytes and stay, and come again when they are thrown out."""
    first, count, sources = held
    while field.left_s > 0.2:
        missing = count - sum(not each.reader.at_eof() for each in field.opened)
        for connection in await field.connect(missing, sources=sources):
            with suppress(OSError):
                await connection.send(first(field))
        await asyncio.sleep(0.2)


async def _dripped(field: Field, dripped: tuple[Callable[[Field], bytes], int]) -> None:
    """Connections that send their first bytes, and then one more four times a second."""
    first, count = dripped
    connections = await field.connect(count)
    for part in (first(field), *[b"a"] * 10_000):
        for connection in connections:
            with suppress(OSError):
                connection.writer.write(part)
        await asyncio.sleep(DRIP_S)


async def _half_sent(field: Field, _: None) -> None:
    """40 bodies, all but the last byte of each."""
    start, body = _post(field, TEN_MB), b'{"message":"' + b"a" * (TEN_MB - 1000)

    async def send(connection: Connection) -> None:
        await connection.send(start)
        await connection.send(body)

    await field.on_each(40, send)
    await field.until_over()


HELD: dict[str, tuple[Callable[[Field], bytes], int, Sequence[str]]] = {
    "half-open": (lambda _: BEGUN, MANY, ONE),
    "half-open-from-everywhere": (lambda _: BEGUN, MANY, OTHERS),
    "silent": (lambda _: b"", MANY, ONE),
    "expecting": (lambda field: _post(field, TEN_MB, ("Expect", "100-continue")), 500, ONE),
}
SLOW.each("nobody", _held, HELD)
# It has more requests under way at once than there may be: keeping each address to its share is the proxy's.
IDLE = {"idle": (lambda _: BEGUN + b"Host: x\r\n\r\n", MANY, ONE)}
SLOW.each("nobody", _held, IDLE, refused_share=0.05)
NEVER_COME = {"bodies-that-never-come": (lambda field: _post(field, TEN_MB), 600, ONE)}
SLOW.each("run", _held, NEVER_COME)
SLOW.each("nobody", _dripped, {"slow-heads": (lambda _: BEGUN + b"Host: x\r\nX: ", 500)})
SLOW.each("run", _dripped, {"slow-bodies": (lambda field: _post(field, 1_000_000) + b'{"message":"', 300)})
SLOW.each("nobody", _half_sent, {"bodies-without-a-key": None})
SLOW.each("run", _half_sent, {"bodies-that-do-not-end": None})


@SLOW.attack("nobody")
async def connect_and_leave(field: Field) -> None:
    async def one(_: int) -> None:
        with suppress(OSError):
            (await Connection.open(field.address, source=SOURCE)).abort()

    await field.flood(one, beside=16, per_s=400)


async def _talkative(field: Field) -> str:
    """A run of 300 iterations whose trace keeps 20 kB of each."""
    steps = loop(300, [{**COPY[0], "input": {"text": "x" * 20_000}}])
    return await field.job(await field.publish("talk", steps, capture="full"), role="run")


@SLOW.attack("read")
async def slow_readers_of_streams(field: Field) -> None:
    await field.unread([f"/flow-runs/{await _talkative(field)}/trace/stream"], 300)


@SLOW.attack("read")
async def slow_readers_of_a_trace(field: Field) -> None:
    run_id = await _talkative(field)
    await asyncio.sleep(0.5)
    await field.unread([f"/flow-runs/{run_id}/trace"], 200)


@SLOW.attack("read")
async def streams_opened_and_closed(field: Field) -> None:
    """Streams of a run that goes on, opened and left at once, 150 a second."""
    request = field.get(f"/flow-runs/{await field.job('hold', role='run')}/trace/stream")
    await field.flood(lambda _: _sent(field, request), beside=16, per_s=150)
