"""Event streams as a real server has sent them, byte for byte: chunks, pings, multi-byte text and all.

Knows nothing of cuts; `replay.py` serves these bytes and `cuts.py` judges what readers make of them.
"""

import asyncio
import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import httpx2
import msgspec

from runglass.testing import RunningServer, running_server
from runglass.wire.sse import PING, RETRY, Decoder
from tests.prove.attacking.http import Connection, head

LAST_CHUNK = b"0\r\n\r\n"
PING_S = 0.03

FLOW = """
slug: recorded
steps:
  - {id: first, type: passthrough, input: {text: "{{ message }}"}}
  - {id: pause, type: wait, ms: 100}
  - id: each
    type: loop
    over: "[1, 2]"
    steps: [{id: copy, type: passthrough, input: {text: "{{ initial.message }}"}}]
  - {id: last, type: wait, ms: 50}
"""
MESSAGE = "“Grüße” 日本語 🎉 one\u2028line, \u2029still one\u0085 \r\n\t\\ end\x1f"


class Row(NamedTuple):
    """An event as it stands in a frame."""

    seq: int
    event: str
    data: bytes


class Answer(msgspec.Struct, frozen=True, dict=True):
    """One whole HTTP answer: its head and the chunks of its body."""

    head: bytes
    chunks: tuple[bytes, ...]

    @cached_property
    def raw(self) -> bytes:
        return self.head + b"".join(map(in_chunk, self.chunks)) + LAST_CHUNK

    def body_until(self, offset: int) -> bytes:
        """What of the body lies before that offset on the wire."""
        begin, found = len(self.head), b""
        for chunk in self.chunks:
            begin += len(b"%x\r\n" % len(chunk))
            found += chunk[: max(0, offset - begin)]
            begin += len(chunk) + 2
        return found

    def whole_until(self, offset: int) -> int:
        """How many events lie whole before that offset on the wire."""
        return bisect_right(self._ends, offset)

    @cached_property
    def _ends(self) -> list[int]:
        ends, begin = [], len(self.head)
        for chunk in self.chunks:
            begin += len(b"%x\r\n" % len(chunk))
            ends += [begin + found.end() for found in re.finditer(rb"data: [^\n]*\n\n", chunk)]
            begin += len(chunk) + 2
        return ends


class Recording(msgspec.Struct, frozen=True):
    """The stream of one run. `answers[n]` is what the server sends to `Last-Event-ID: n`."""

    name: str
    answers: tuple[Answer, ...]
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        return len(self.answers[0].raw)


def record() -> list[Recording]:
    """Follows one run live, and replays it after every one of its events."""
    with running_server(ping_s=PING_S, log_level="error") as server:
        server.push(FLOW)
        return asyncio.run(_record(server))


async def _record(server: RunningServer) -> list[Recording]:
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx2.AsyncClient(base_url=server.base_url, headers=headers) as http:
        body = {"message": MESSAGE, "trace": True}
        run = (await http.post("/seq/acme/demo/recorded/jobs", json=body)).json()["executionId"]
    live = await _answer(server, run, after=0)
    rows = rows_of(live)
    replayed = [await _answer(server, run, after=row.seq - 1) for row in rows]
    recordings = [
        Recording("live", tuple(_resumed(live, row.seq - 1) for row in rows), rows),
        Recording("replayed", tuple(replayed), rows),
    ]
    for recording in recordings:
        _require_worth(recording)
    return recordings


async def _answer(server: RunningServer, run: str, *, after: int) -> Answer:
    host, port = server.address.removeprefix("http://").split(":")
    headers = [("Authorization", f"Bearer {server.key}"), ("Last-Event-ID", str(after))]
    async with await Connection.open((host, int(port))) as connection:
        await connection.send(
            head("GET", f"/api/v1/flow-runs/{run}/trace/stream", host=host, headers=headers)
        )
        answered = await connection.reader.readuntil(b"\r\n\r\n")
        chunks = []
        while chunk := await connection.chunk():
            chunks.append(chunk)
    return Answer(answered, tuple(chunks))


def _resumed(live: Answer, after: int) -> Answer:
    """The live stream for a reader that has had events up to `after`: chunks and pings stay as they were."""
    chunks, had = [RETRY], 0
    for chunk in live.chunks[1:]:
        blocks = [block + b"\n\n" for block in chunk.split(b"\n\n")[:-1]]
        events = sum(block != PING for block in blocks)
        if had >= after:
            chunks.append(chunk)
        elif had + events > after:
            chunks.append(b"".join(blocks[after - had :]))
        had += events
    return Answer(live.head, tuple(chunks))


def rows_of(answer: Answer) -> tuple[Row, ...]:
    frames = Decoder().feed(b"".join(answer.chunks))
    return tuple(Row(int(frame.id), frame.event, frame.data) for frame in frames)


def in_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _require_worth(recording: Recording) -> None:
    whole = recording.answers[0]
    wanted: Sequence[bytes] = [RETRY, "日本語 🎉".encode(), "\u2028".encode()]
    wanted = [*wanted, PING] if recording.name == "live" else wanted
    missing = [each for each in wanted if each not in whole.raw]
    assert not missing, f"recording {recording.name!r} does not hold {missing}"
    for after, answer in enumerate(recording.answers):
        assert rows_of(answer) == recording.rows[after:], f"answer after {after} of {recording.name!r} is odd"
