"""A server that answers with recorded bytes and breaks each connection where it is told to.

Far faster than runs on a real server, and exact: it knows how many events each cut connection has brought
whole, so it sees a reader that asks for more, or for less, than it lacks.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal, get_args

import msgspec

from tests.prove.clustering.network import Between, reset
from tests.prove.recorded import LAST_CHUNK, Recording, in_chunk

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
