"""Connections that are many, or slow: heads and bodies that do not end, answers that nobody takes."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.prove.attacking.attack import COPY, Family, loop, until_over
from tests.prove.attacking.field import API, SOURCE, Field
from tests.prove.attacking.http import Connection, head
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("slow")

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
    connections = await field.connect(40)

    async def one(number: int) -> None:
        with suppress(OSError):
            await connections[number].send(start)
            await connections[number].send(body)

    await field.together(len(connections), one)
    await until_over(field)


HELD: dict[str, tuple[Callable[[Field], bytes], int, Sequence[str]]] = {
    "half-open": (lambda _: BEGUN, MANY, ONE),
    "half-open-from-everywhere": (lambda _: BEGUN, MANY, OTHERS),
    "silent": (lambda _: b"", MANY, ONE),
    "expecting": (lambda field: _post(field, TEN_MB, ("Expect", "100-continue")), 500, ONE),
}
FAMILY.each("nobody", _held, HELD)
# It has more requests under way at once than there may be: keeping each address to its share is the proxy's.
IDLE = {"idle": (lambda _: BEGUN + b"Host: x\r\n\r\n", MANY, ONE)}
FAMILY.each("nobody", _held, IDLE, refused_share=0.05)
NEVER_COME = {"bodies-that-never-come": (lambda field: _post(field, TEN_MB), 600, ONE)}
FAMILY.each("run", _held, NEVER_COME)
FAMILY.each("nobody", _dripped, {"slow-heads": (lambda _: BEGUN + b"Host: x\r\nX: ", 500)})
FAMILY.each("run", _dripped, {"slow-bodies": (lambda field: _post(field, 1_000_000) + b'{"message":"', 300)})
FAMILY.each("nobody", _half_sent, {"bodies-without-a-key": None})
FAMILY.each("run", _half_sent, {"bodies-that-do-not-end": None})


@FAMILY.attack("nobody")
async def connect_and_leave(field: Field) -> None:
    async def one(_: int) -> None:
        with suppress(OSError):
            (await Connection.open(field.address, source=SOURCE)).abort()

    await field.flood(one, beside=16, per_s=400)


async def _talkative(field: Field) -> str:
    """A run of 300 iterations whose trace keeps 20 kB of each."""
    steps = loop(300, [{**COPY[0], "input": {"text": "x" * 20_000}}])
    return await field.job(await field.publish("talk", steps, capture="full"), role="run")


@FAMILY.attack("read")
async def slow_readers_of_streams(field: Field) -> None:
    await field.unread([f"/flow-runs/{await _talkative(field)}/trace/stream"], 300)


@FAMILY.attack("read")
async def slow_readers_of_a_trace(field: Field) -> None:
    run_id = await _talkative(field)
    await asyncio.sleep(0.5)
    await field.unread([f"/flow-runs/{run_id}/trace"], 200)


@FAMILY.attack("read")
async def streams_opened_and_closed(field: Field) -> None:
    """Streams of a run that goes on, opened and left at once, 150 a second."""
    request = field.get(f"/flow-runs/{await field.job('hold', role='run')}/trace/stream")

    async def one(_: int) -> None:
        with suppress(OSError, EOFError):
            async with await Connection.open(field.address, source=SOURCE) as connection:
                await connection.send(request)
                await connection.answer_head()

    await field.flood(one, beside=16, per_s=150)
