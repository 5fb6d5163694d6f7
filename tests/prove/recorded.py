"""Event streams as a real server has sent them, chunk by chunk, and a server that breaks them off as told.

Far faster than runs on a real server, and exact: it knows how many events each cut connection has brought
whole, so it sees a reader that asks for more, or for less, than it lacks. `cuts.py` judges what readers see.
"""

import asyncio
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import httpx2
import msgspec

from runglass.testing import running_server
from runglass.wire.sse import PING, RETRY, Decoder
from tests.prove.clustering.network import Between, reset

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
    """Follows one run live, and once more when it has ended."""
    with running_server(ping_s=PING_S, log_level="error") as server:
        server.push(FLOW)
        headers = {"Authorization": f"Bearer {server.key}"}
        with httpx2.Client(base_url=server.base_url, headers=headers) as http:
            body = {"message": MESSAGE, "trace": True}
            run = http.post("/seq/acme/demo/recorded/jobs", json=body).json()["executionId"]
            answers = {name: _answer(http, run) for name in ("live", "replayed")}
    rows = rows_of(answers["live"])
    recordings = [
        Recording(name, tuple(_resumed(answer, row.seq - 1) for row in rows), rows)
        for name, answer in answers.items()
    ]
    for recording in recordings:
        _require_worth(recording)
    return recordings


def _answer(http: httpx2.Client, run: str) -> Answer:
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as answer:
        lines = [b"HTTP/1.1 200 OK", *(b"%b: %b" % pair for pair in answer.headers.raw), b"", b""]
        return Answer(b"\r\n".join(lines), tuple(answer.iter_raw()))


def _resumed(answer: Answer, after: int) -> Answer:
    """The stream for a reader that has had events up to `after`: chunks and pings stay as they were."""
    chunks, had = [RETRY], 0
    for chunk in answer.chunks[1:]:
        blocks = [block + b"\n\n" for block in chunk.split(b"\n\n")[:-1]]
        events = sum(block != PING for block in blocks)
        if had >= after:
            chunks.append(chunk)
        elif had + events > after:
            chunks.append(b"".join(blocks[after - had :]))
        had += events
    return Answer(answer.head, tuple(chunks))


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


Way = Literal["closes", "resets", "half-closes", "ends the body"]
"""FIN; RST; FIN while the other direction stays open; a good end of the chunked body in mid-frame."""

WAYS: tuple[Way, ...] = get_args(Way)
LINGER_S = 5.0

_REQUEST = re.compile(rb"GET \S*/flow-runs/([^/]+)/trace/stream HTTP/1\.1\r\n")
_CLOSES = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_RESUME = re.compile(rb"\r\nlast-event-id: *(\d+)\r\n", re.IGNORECASE)


def resumed_after(head: bytes) -> int:
    resume = _RESUME.search(head)
    return 0 if resume is None else int(resume[1])


class Cut(msgspec.Struct, frozen=True):
    """Where an answer breaks off: an offset on the wire, taken around where the answer is shorter.

    `pauses` are offsets after which the sender lets go of the bytes so far, and waits a moment.
    """

    offset: int
    way: Way
    pauses: tuple[int, ...] = ()


class Reading:
    """One reader's way through a recording, over one connection per cut and a last one that is left whole."""

    def __init__(self, recording: Recording, cuts: Iterable[Cut]) -> None:
        self.recording = recording
        self.cuts = tuple(cuts)
        self.connections = 0
        self.lies: list[str] = []
        self._at_least = self._at_most = 0

    def next(self, after: int) -> tuple[bytes, Cut | None]:
        """What the next connection is to send, and how it breaks; None where it ends well."""
        if not self._at_least <= after <= self._at_most:
            had = f"{self._at_least} to {self._at_most}"
            self.lies.append(f"connection {self.connections} resumed after {after}, where {had} had come")
        answer = self.recording.answers[after]
        self.connections += 1
        if self.connections > len(self.cuts):
            return answer.raw, None
        cut = self.cuts[self.connections - 1]
        offset = cut.offset % (len(answer.raw) + 1)
        came = after + answer.whole_until(offset)
        # What a reset finds unread in the kernel may be thrown away.
        self._at_least, self._at_most = (after if cut.way == "resets" else came), came
        if cut.way != "ends the body":
            return answer.raw[:offset], cut
        body = answer.body_until(offset)
        return answer.head + (in_chunk(body) if body else b"") + LAST_CHUNK, cut


class Cutting(Between):
    """Breaks connections; `broken` counts them by way."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: Counter[str] = Counter()
        self._ending: set[asyncio.Task[None]] = set()
        self._kept = 0

    async def require_all_left(self) -> None:
        """Raises AssertionError where somebody has kept a half-closed connection."""
        if self._ending:
            await asyncio.wait(self._ending)
        assert not self._kept, f"{self._kept} half-closed connections are kept {LINGER_S:g} s later"

    async def _until_left(self, reader: asyncio.StreamReader) -> None:
        """Returns when the other side has left a connection that is half closed."""
        task = asyncio.current_task()
        assert task is not None
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        try:
            async with asyncio.timeout(LINGER_S):
                await reader.read()
        except TimeoutError:
            self._kept += 1


class Replay(Cutting):
    """Stays open after a good end, as real servers do, unless the reader has said that it will not."""

    def __init__(self) -> None:
        super().__init__()
        self._readings: dict[bytes, Reading] = {}

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def expect(self, run_id: str, reading: Reading) -> None:
        self._readings[run_id.encode()] = reading

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                continue
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        found = _REQUEST.match(head)
        assert found is not None, f"the request is odd: {head[:200]!r}"
        sent, cut = self._readings[found[1]].next(resumed_after(head))
        pauses = () if cut is None else cut.pauses
        ends = sorted({pause % (len(sent) + 1) for pause in pauses})
        for begin, end in zip([0, *ends], [*ends, len(sent)], strict=True):
            writer.write(sent[begin:end])
            if end < len(sent):
                await asyncio.sleep(0.001)
        if cut is not None:
            self.broken[cut.way] += 1
        match cut and cut.way:
            case "half-closes":
                writer.write_eof()
                await self._until_left(reader)
            case "resets":
                reset(writer)
            case None | "ends the body":
                return _CLOSES.search(head) is None
        return False
