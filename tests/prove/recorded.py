"""The event stream of a run on a real server, in chunks, and a server that breaks it off as told.

Far faster than runs on a real server, and exact: it knows how many events each cut connection has brought
whole, so it sees a reader that asks for more, or for less, than it lacks. `cuts.py` judges what readers see.
"""

import asyncio
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import msgspec

from runglass.wire.sse import PING, RETRY, Decoder, frame
from tests.prove.clustering.network import Answering, reset
from tests.servers import served
from tests.unit.client.scripted import LAST_CHUNK, in_chunk

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
    """A run as a reader gets it who follows it, by events and pings, and as one who comes when it has ended.

    Its chunks are made here. Raises AssertionError where together they are not what the server sends.
    """
    with served(FLOW, ping_s=3600, log_level="error") as (_, http):
        body = {"message": MESSAGE, "trace": True}
        run = http.post("/seq/acme/demo/recorded/jobs", json=body).json()["executionId"]
        with http.stream("GET", f"/flow-runs/{run}/trace/stream") as answer:
            lines = [b"HTTP/1.1 200 OK", *(b"%b: %b" % pair for pair in answer.headers.raw), b"", b""]
            stream = b"".join(answer.iter_raw())
    rows = tuple(Row(int(each.id), each.event, each.data) for each in Decoder().feed(stream))
    events = [frame(*row) for row in rows]
    assert stream == RETRY + b"".join(events), f"the server does not send its events alone: {stream!r}"
    for text in ("日本語 🎉", "\u2028"):
        assert text.encode() in stream, f"no event holds {text!r}"
    live = [[chunk for event in events[after:] for chunk in (event, PING)] for after in range(len(rows))]
    replayed = [[b"".join(events[after:])] for after in range(len(rows))]
    head = b"\r\n".join(lines)
    return [
        Recording(name, tuple(Answer(head, (RETRY, *chunks)) for chunks in answers), rows)
        for name, answers in (("live", live), ("replayed", replayed))
    ]


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
        return answer.head + in_chunk(body) + LAST_CHUNK, cut


class Cutting(Answering):
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

    async def _break(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ends what the writer sends; returns when the other side has left what is half closed."""
        self.broken[way] += 1
        if way == "resets":
            reset(writer)
        elif way.startswith("half-closes"):
            writer.write_eof()
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

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
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
            await self._break(cut.way, reader, writer)
        return (cut is None or cut.way == "ends the body") and _CLOSES.search(head) is None
