"""Bare sockets that follow one run: when did each event arrive, and how late was that?

The first message says what to follow; the answer comes once all are connected and have the run's first
event. The second says when each further event is due; the answer comes when all have arrived. Or it says
nothing, and a third one says when each was committed. With `more` in the first message its tails are beside
those that there are.
"""

import asyncio
import time
from statistics import quantiles
from typing import cast

import uvloop

from bench.answering import Message, answer
from bench.raw import place, request

MARK = b"\ndata: "
PATIENCE_S = 60


class Tail(asyncio.Protocol):
    """One connection; `arrivals` are the times at which so many events had come in all."""

    def __init__(self, wire: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.arrivals: list[tuple[float, int]] = []
        self.first: asyncio.Future[None] = loop.create_future()
        self.last: asyncio.Future[None] = loop.create_future()
        self.expected = 0
        self._wire = wire
        self._seen = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._wire)

    def data_received(self, data: bytes) -> None:
        at_s = time.monotonic()
        data = self._rest + data
        # Shorter than the mark: what may be its beginning, and never a whole one twice.
        self._rest = data[1 - len(MARK) :]
        self._seen += data.count(MARK)
        self.arrivals.append((at_s, self._seen))
        if self._seen and not self.first.done():
            self.first.set_result(None)
        if self._seen == self.expected and not self.last.done():
            self.last.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.first, self.last):
            if not future.done():
                future.set_exception(
                    ConnectionError(f"a tail ended after {self._seen} events: {self._rest!r}")
                )


class Tails:
    """All tails on one run."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._tails: list[Tail] = []

    def work(self, message: Message) -> Message:
        if "address" in message:
            if not message.get("more"):
                self._tails = []
            self._runner.run(self._connect(message))
            return {"connected": len(self._tails)}
        if "committed_s" in message:
            return self._lateness(message["committed_s"])
        self._runner.run(self._until_the_last())
        if "rate" not in message:
            return {}
        start_s, rate = message["start_s"], message["rate"]
        return self._lateness([start_s + number / rate for number in range(self._tails[0].expected - 1)])

    async def _connect(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        wire = request(message["target"], message["key"])
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(message["tails"]):
                _, tail = await loop.create_connection(lambda: Tail(wire), *place(message["address"]))
                tail.expected = message["events"] + 1
                self._tails.append(tail)
            await asyncio.gather(*[tail.first for tail in self._tails])

    async def _until_the_last(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*[tail.last for tail in self._tails])

    def _lateness(self, due_s: list[float]) -> Message:
        late_ms = []
        for tail in self._tails:
            before = 0
            for at_s, seen in tail.arrivals:
                # The run's first event is there before the clock starts; the others are due one by one, and
                # that which ends it is none of them.
                seqs = range(max(before, 1), min(seen, len(due_s) + 1))
                late_ms += [(at_s - due_s[seq - 1]) * 1000 for seq in seqs]
                before = seen
        cuts = quantiles(late_ms, n=100)
        return {"p50": cuts[49], "p99": cuts[98], "most": max(late_ms), "arrivals": len(late_ms)}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        answer(Tails(loop_runner).work)
