"""Connections that are many, or slow: heads and bodies that do not end, answers that nobody takes."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tests.prove.attacking.attack import Family, until_over
from tests.prove.attacking.field import API, SOURCE, Field
from tests.prove.attacking.http import Connection, head
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("slow")

MANY = 1001
ADDRESSES = [f"127.0.7.{number}" for number in range(1, 101)]
DRIP_S = 0.25


async def _held(field: Field, first: bytes, *, count: int = MANY, sources: Sequence[str] = (SOURCE,)) -> None:
    """So many connections that send `first` and then stay, and come again when they are thrown out."""
    while field.left_s > 0.2:
        missing = count - sum(not each.reader.at_eof() for each in field.opened)
        for connection in await field.connect(missing, sources=sources):
            with suppress(OSError):
                await connection.send(first)
        await asyncio.sleep(0.2)


async def _dripped(field: Field, first: bytes, drop: bytes, *, count: int) -> None:
    """Connections that send `first`, and then a `drop` four times a second."""
    connections = await field.connect(count)
    for part in (first, *[drop] * 10_000):
        for connection in connections:
            with suppress(OSError):
                connection.writer.write(part)
        await asyncio.sleep(DRIP_S)


@FAMILY.attack("nobody", finding=3)
async def half_open(field: Field) -> None:
    """1,001 connections that begin a head and do not end it, of a server with 1,024 files."""
    await _held(field, b"GET /health HTTP/1.1\r\n")


@FAMILY.attack("nobody")
async def half_open_from_everywhere(field: Field) -> None:
    """The same from a hundred addresses, ten connections each."""
    await _held(field, b"GET /health HTTP/1.1\r\n", sources=ADDRESSES)


@FAMILY.attack("nobody")
async def silent(field: Field) -> None:
    """1,001 connections that send nothing at all."""
    await _held(field, b"")


@FAMILY.attack("nobody")
async def idle(field: Field) -> None:
    """1,001 connections that have had one answer and are kept."""
    await _held(field, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")


@FAMILY.attack("nobody")
async def slow_heads(field: Field) -> None:
    """500 heads that come a byte at a time."""
    await _dripped(field, b"GET /health HTTP/1.1\r\nHost: x\r\nX: ", b"a", count=500)


@FAMILY.attack("run")
async def slow_bodies(field: Field) -> None:
    """300 bodies with a good key that come a byte at a time."""
    await _dripped(field, _post(field, 1_000_000) + b'{"message":"', b"a", count=300)


@FAMILY.attack("run")
async def bodies_that_never_come(field: Field) -> None:
    """600 requests with a good key that promise 9.9 MB and send nothing."""
    await _held(field, _post(field, 9_900_000), count=600)


@FAMILY.attack("nobody")
async def bodies_without_a_key(field: Field) -> None:
    """40 bodies of 9.9 MB without a key, all but the last byte of each."""
    start = head("POST", f"{API}/flow-runs", host="x", headers=[("Content-Length", "9900000")])
    await _half_sent(field, start)


@FAMILY.attack("run")
async def bodies_that_do_not_end(field: Field) -> None:
    """40 bodies of 9.9 MB with a good key, all but the last byte of each."""
    await _half_sent(field, _post(field, 9_900_000))


async def _half_sent(field: Field, start: bytes) -> None:
    body = b'{"message":"' + b"a" * 9_899_000
    connections = await field.connect(40)

    async def one(number: int) -> None:
        with suppress(OSError):
            await connections[number].send(start)
            await connections[number].send(body)

    await field.together(len(connections), one)
    await until_over(field)


@FAMILY.attack("nobody")
async def expecting(field: Field) -> None:
    """500 connections that wait to be told to go on with their body."""
    first = head(
        "POST",
        f"{API}/flow-runs",
        host="x",
        headers=[("Expect", "100-continue"), ("Content-Length", "9000000")],
    )
    await _held(field, first, count=500)


@FAMILY.attack("nobody")
async def connect_and_leave(field: Field) -> None:
    """Connections that are closed at once, 400 a second."""

    async def one(_: int) -> None:
        with suppress(OSError):
            (await Connection.open(field.address, source=SOURCE)).abort()

    await field.flood(one, beside=16, per_s=400)


@FAMILY.attack("read")
async def slow_readers_of_streams(field: Field) -> None:
    """300 readers of a run that says much, who read nothing."""
    run_id = await _talkative(field)
    await _unread(field, f"{API}/flow-runs/{run_id}/trace/stream", count=300)


@FAMILY.attack("read")
async def slow_readers_of_a_trace(field: Field) -> None:
    """200 readers of a trace of some megabytes, who read nothing."""
    run_id = await _talkative(field)
    await asyncio.sleep(0.5)
    await _unread(field, f"{API}/flow-runs/{run_id}/trace", count=200)


async def _talkative(field: Field) -> str:
    """A run of 300 iterations whose trace keeps 20 kB of each."""
    loop = {
        "id": "each",
        "type": "loop",
        "over": "list(range(300))",
        "steps": [{"id": "copy", "type": "passthrough", "input": {"text": "x" * 20_000}}],
    }
    slug = await field.publish("talk", [loop], capture="full")
    started = await field.execute(slug, way="jobs", role="run")
    return str(started.json().get("executionId"))


async def _unread(field: Field, target: str, *, count: int) -> None:
    connections = await field.connect(count)
    for connection in connections:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(OSError):
            await connection.send(head("GET", target, host="x", headers=field.headers()))
    await until_over(field)


@FAMILY.attack("read")
async def streams_opened_and_closed(field: Field) -> None:
    """Streams of a run that goes on, opened and left at once, 150 a second."""
    started = await field.execute("hold", way="jobs", role="run")
    run_id = started.json().get("executionId")
    request = head("GET", f"{API}/flow-runs/{run_id}/trace/stream", host="x", headers=field.headers())

    async def one(_: int) -> None:
        with suppress(OSError, EOFError):
            async with await Connection.open(field.address, source=SOURCE) as connection:
                await connection.send(request)
                await connection.answer_head()

    await field.flood(one, beside=16, per_s=150)


def _post(field: Field, length: int) -> bytes:
    headers = [*field.headers(), ("Content-Type", "application/json"), ("Content-Length", str(length))]
    return head("POST", f"{API}/seq/{ATTACKER}/copy/execute", host="x", headers=headers)
