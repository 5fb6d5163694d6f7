"""Bare sockets that follow one run: when did each event arrive, and how late was that?

The first message says what to follow; the answer comes once all are connected and have the run's first
event. The second says when each further event is due; the answer comes when all have arrived. Or it says
nothing, and a third one says when each was committed. With `more` in the first message its tails are beside
those that there are.

The system notes when bytes arrive at a socket, so what is measured is not how fast this process reads them.
With `rest_s` it rests so long before it reads what has come.
"""

import select
import socket
import struct
import time
from statistics import quantiles

from bench.answering import Message, answer
from bench.raw import place, request

MARK = b"\ndata: "
PATIENCE_S = 60
RECEIVE_BYTES = 1 << 14
SO_TIMESTAMPNS = 35
"""Asks Linux for the time of arrival, by the clock of the day; Python has no name for it."""
ARRIVAL = struct.Struct("@qq")
"""Seconds and nanoseconds."""
NOTE_BYTES = socket.CMSG_SPACE(ARRIVAL.size)


class Tail:
    """One connection; `arrivals` are the times at which so many events had come in all.

    Of events that are read together the time is that of the last: they are never taken for earlier.
    """

    def __init__(self, address: str, wire: bytes) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self.seen = 0
        self._rest = b""
        self.connection = socket.create_connection(place(address))
        self.connection.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.connection.sendall(wire)

    def read(self, day_began_s: float) -> None:
        """Takes what has come; `day_began_s` is the zero of the clock of the day on the monotonic one."""
        data, notes, _, _ = self.connection.recvmsg(RECEIVE_BYTES, NOTE_BYTES)
        if not data:
            raise ConnectionError(f"a tail ended after {self.seen} events: {self._rest!r}")
        # The system begins to note a moment after the first socket asks: before, the time of reading counts.
        seconds, nanoseconds = ARRIVAL.unpack(notes[0][2]) if notes else divmod(time.time_ns(), 10**9)
        data = self._rest + data
        # Shorter than the mark: what may be its beginning, and never a whole one twice.
        self._rest = data[1 - len(MARK) :]
        self.seen += data.count(MARK)
        self.arrivals.append((day_began_s + seconds + nanoseconds / 1e9, self.seen))


class Tails:
    """All tails on one run."""

    def __init__(self) -> None:
        self._tails: dict[int, Tail] = {}
        self._poll = select.epoll()
        self._expected = 0

    def work(self, message: Message) -> Message:
        if "address" in message:
            if not message.get("more"):
                self._leave()
            self._connect(message)
            return {"connected": len(self._tails)}
        if "committed_s" in message:
            return self._lateness(message["committed_s"])
        self._read_until(self._expected, rest_s=message.get("rest_s", 0))
        if "rate" not in message:
            return {}
        start_s, rate = message["start_s"], message["rate"]
        return self._lateness([start_s + number / rate for number in range(self._expected - 1)])

    def _connect(self, message: Message) -> None:
        wire = request(message["target"], message["key"])
        self._expected = message["events"] + 1
        for _ in range(message["tails"]):
            tail = Tail(message["address"], wire)
            self._tails[tail.connection.fileno()] = tail
            self._poll.register(tail.connection, select.EPOLLIN)
        self._read_until(1, rest_s=0)

    def _leave(self) -> None:
        for tail in self._tails.values():
            tail.connection.close()
        self._tails.clear()

    def _read_until(self, events: int, *, rest_s: float) -> None:
        """Reads until every tail has so many events in all."""
        missing = {number for number, tail in self._tails.items() if tail.seen < events}
        latest_s = time.monotonic() + PATIENCE_S
        while missing:
            ready = self._poll.poll(max(0.0, latest_s - time.monotonic()), len(self._tails))
            if not ready:
                raise TimeoutError(f"{len(missing)} tails lack events after {PATIENCE_S} s")
            if rest_s:
                time.sleep(rest_s)
                ready = self._poll.poll(0, len(self._tails))
            day_began_s = time.monotonic() - time.time()
            for number, _ in ready:
                tail = self._tails[number]
                tail.read(day_began_s)
                if tail.seen >= events:
                    missing.discard(number)

    def _lateness(self, due_s: list[float]) -> Message:
        late_ms = []
        for tail in self._tails.values():
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
    answer(Tails().work)
