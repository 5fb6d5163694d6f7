"""A server that answers with recorded bytes and breaks each connection where it is told to.

Far faster than runs on a real server, and exact: it knows how many events each cut connection has brought
whole, so it sees a reader that asks for more, or for less, than it lacks.
"""

import asyncio
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Literal, Self, get_args

import msgspec

from tests.prove.recorded import LAST_CHUNK, Recording, in_chunk

Way = Literal["closes", "resets", "half-closes", "ends the body"]
"""FIN; RST; FIN while the other direction stays open; a good end of the chunked body in mid-frame."""

WAYS: tuple[Way, ...] = get_args(Way)
LINGER_S = 5.0

_REQUEST = re.compile(rb"GET \S*/flow-runs/([^/]+)/trace/stream HTTP/1\.1\r\n")
_CLOSES = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_RESUME = re.compile(rb"\r\nlast-event-id: *(\d+)\r\n", re.IGNORECASE)


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


class Replay:
    """The server, on an event loop in a thread of its own, while the block lasts."""

    def __init__(self) -> None:
        self.broken: Counter[Way] = Counter()
        self.half_closed: set[asyncio.Future[None]] = set()
        self._readings: dict[bytes, Reading] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="replay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/api/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def expect(self, run_id: str, reading: Reading) -> None:
        """Whoever asks for that run is this reader."""
        self._readings[run_id.encode()] = reading

    def forget(self, run_id: str) -> None:
        """That reader has finished."""
        del self._readings[run_id.encode()]

    def reading(self, head: bytes) -> Reading:
        """Whose request it is."""
        found = _REQUEST.match(head)
        assert found is not None, f"the request is odd: {head[:200]!r}"
        return self._readings[found[1]]

    def require_all_left(self) -> None:
        """Raises AssertionError for readers that keep a half-closed connection."""
        asyncio.run_coroutine_threadsafe(self._all_left(), self._loop).result(2 * LINGER_S)

    async def _all_left(self) -> None:
        if self.half_closed:
            await asyncio.wait(self.half_closed, timeout=LINGER_S)
        kept = [each for each in self.half_closed if not each.done()]
        assert not kept, f"{len(kept)} half-closed connections are still kept open"

    async def _start(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=512)

    async def _stop(self) -> None:
        self._server.close()


class _Connection(asyncio.Protocol):
    """Stays open after a good end, as real servers keep it, unless the reader has said that it will not."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._head = b""
        self._sending: asyncio.Task[None] | None = None
        self._left = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        resume = _RESUME.search(self._head)
        reading = self._replay.reading(self._head)
        sent, cut = reading.next(0 if resume is None else int(resume[1]))
        if cut is not None and cut.pauses:
            self._sending = asyncio.create_task(self._drip(sent, cut))
            return
        self._transport.write(sent)
        self._end(cut)

    def eof_received(self) -> None:
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._left.set_result(None)
        if self._sending is not None:
            self._sending.cancel()

    async def _drip(self, sent: bytes, cut: Cut) -> None:
        ends = sorted({pause % (len(sent) + 1) for pause in cut.pauses})
        for begin, end in zip([0, *ends], [*ends, len(sent)], strict=True):
            self._transport.write(sent[begin:end])
            if end < len(sent):
                await asyncio.sleep(0.001)
        self._sending = None
        self._end(cut)

    def _end(self, cut: Cut | None) -> None:
        closes = _CLOSES.search(self._head) is not None
        self._head = b""
        if cut is not None:
            self._replay.broken[cut.way] += 1
        match cut and cut.way:
            case None | "ends the body" if not closes:
                pass
            case "half-closes":
                self._replay.half_closed.add(self._left)
                self._left.add_done_callback(self._replay.half_closed.discard)
                self._transport.write_eof()
            case "resets":
                raw: socket.socket = self._transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()
            case _:
                self._transport.close()
