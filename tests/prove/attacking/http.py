"""What the processes of the harness share: names of what is seeded, how they start, and HTTP/1.1 by hand.

A client library would refuse to send half of what hostile bytes need, and an honest caller that measures
needs no more.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[3]

NEIGHBOUR = "acme/quiet"
ATTACKER = "evil/room"
SPENDER = "evil/spender"
"""A second project of the attacker's, with a budget and models that cost."""
BANK = "evil/bank"
"""A third one, with much money and models of a provider that means harm."""
PROVIDER_KEY = "pk-5f0c2b7e91d84a63"
"""What the server shows a provider; no caller may ever see it."""


@asynccontextmanager
async def started(module: str, *arguments: str, nice: int = 0) -> AsyncIterator[asyncio.StreamReader]:
    """A module of the harness as a process of its own, which is killed in the end; what it writes."""
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", str(nice), sys.executable, "-m", f"tests.prove.attacking.{module}", *arguments),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


HEAD_LIMIT = 1 << 20
BODY_LIMIT = 64 << 20
"""Of an answer: more is not read."""


class Answer(NamedTuple):
    """`status` is 0 where the connection broke before there was an answer; `fault` tells how."""

    status: int
    body: bytes = b""
    fault: str = ""

    def json(self) -> Any:
        """The body's value, an empty object where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


def head(method: str, target: str, *, host: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


class Connection:
    """One connection, for any number of requests one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        self.host = host

    @classmethod
    async def open(cls, address: tuple[str, int], *, source: str | None = None) -> Self:
        """From the address `source` of this machine, where one is named. Raises OSError."""
        local = None if source is None else (source, 0)
        reader, writer = await asyncio.open_connection(*address, local_addr=local, limit=HEAD_LIMIT)
        return cls(reader, writer, f"{address[0]}:{address[1]}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.abort()

    def abort(self) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Returns when the data is on its way. Raises OSError."""
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self, method: str, target: str, body: bytes | None = None, *, headers: Sequence[tuple[str, str]] = ()
    ) -> Answer:
        """One request and its answer. Raises OSError and EOFError where the connection breaks."""
        if body is not None:
            headers = [*headers, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        self.writer.write(head(method, target, host=self.host, headers=headers))
        if body:
            # A refusal may come, and the connection go, while a large body is still being sent.
            with suppress(ConnectionError):
                await self.send(body)
        return await self.answer()

    async def answer(self) -> Answer:
        """The next answer. Raises OSError and EOFError."""
        status, headers = await self.answer_head()
        if headers.get("transfer-encoding") == "chunked":
            parts: list[bytes] = []
            while part := await self.chunk():
                parts.append(part)
            return Answer(status, b"".join(parts))
        length = min(int(headers.get("content-length", 0)), BODY_LIMIT)
        return Answer(status, await self.reader.readexactly(length))

    async def answer_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers, their names in lower case. Raises OSError and EOFError."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise EOFError("the answer's head does not end") from error
        first, *lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def read_all(self) -> None:
        """Returns when the connection has ended, with whatever came over it until then."""
        with suppress(OSError):
            while await self.reader.read(1 << 16):
                continue

    async def chunk(self) -> bytes:
        """The next chunk of an answer that comes in chunks, empty at its end. Raises OSError and EOFError."""
        size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
        part = await self.reader.readexactly(size + 2)
        return part[:-2]


async def call(
    address: tuple[str, int],
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    headers: Sequence[tuple[str, str]] = (),
    source: str | None = None,
    timeout_s: float = 10.0,
) -> Answer:
    """One request on a connection of its own; whatever breaks is an answer with status 0."""
    try:
        async with asyncio.timeout(timeout_s), await Connection.open(address, source=source) as connection:
            return await connection.ask(method, target, body, headers=[*headers, ("Connection", "close")])
    except TimeoutError:
        return Answer(0, fault=f"no answer within {timeout_s:g} s")
    except (OSError, EOFError) as error:
        return Answer(0, fault=f"{type(error).__name__}: {error}")
