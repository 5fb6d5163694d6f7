"""Limits the connections of a server: how many there may be, and how long each may take.

A connection is busy from the end of a request's head to the end of the response; before and after it is idle.
The limits count busy connections. A few more may be open, so that a new connection can always be read. When
these are used up too, the connection that has been idle for longest is closed; the idle time of a connection
without any request so far counts tenfold. No caller can therefore hold a place without a request, and a flood
of half-open connections displaces itself.

Time is counted in rounds of `watch`, not by a timer per request: a round costs as much as there are
unfinished heads and bodies, and a request that comes in one piece costs nothing. Knows nothing of HTTP.
"""

import asyncio
import logging
import socket
import time
from collections import Counter, OrderedDict

from runglass.config.settings import Settings
from runglass.errors import APIError
from runglass.server.http.connections import RESERVE, AddressConnections, Connection, ConnectionLimits
from runglass.server.http.error_responses import busy_address, busy_server

log = logging.getLogger(__name__)

PARTIAL_HEADS_BYTES = 64 << 20
"""The most bytes that all incomplete heads hold together."""

LINGER_S = 2.0
"""How long a connection stays open after a refusal. Closing it at once may lose the response."""

REPORT_S = 10.0
"""The shortest time between two reports of refusals in the log."""


class ConnectionLimiter:
    """All connections of a server. Owned by the task that runs `watch`."""

    def __init__(self, settings: Settings, limits: ConnectionLimits) -> None:
        self.settings = settings
        self.limits = limits
        self.now = 0.0
        """The limiter's clock in seconds. It stops while the event loop is blocked."""
        self._all = AddressConnections("")
        self._groups: dict[str, AddressConnections] = {}
        self._heads: OrderedDict[Connection, int] = OrderedDict()
        self._heads_bytes = 0
        self._bodies: dict[Connection, None] = {}
        self._open: set[Connection] = set()
        self._stalled: dict[Connection, tuple[float, int]] = {}
        self._writes_seen = 0.0
        self._leaving: OrderedDict[Connection, float] = OrderedDict()
        self._refused: Counter[str] = Counter()
        self._reported = 0.0

    @property
    def open(self) -> int:
        """How many connections there are."""
        return self._all.open

    def group_of(self, host: str) -> AddressConnections:
        """The connections that share a limit with this address; of IPv6 those of its network of 64 bits."""
        address = _network_of(host)
        return self._groups.get(address) or AddressConnections(address)

    def add(self, connection: Connection) -> None:
        """Adds a connection, which is idle. May cut off the connection that has been idle for longest."""
        group = connection.group
        # The dictionary keeps a group as long as it has a connection.
        self._groups[group.address] = group
        self._open.add(connection)
        now = time.monotonic()
        for each in (group, self._all):
            each.open += 1
            each.new[connection] = now
        self._begin_head(connection)
        if group.open > self.limits.per_address + RESERVE:
            self._make_room(group, now)
        if self._all.open > self.limits.in_all + RESERVE:
            self._make_room(self._all, now)

    def begin(self, connection: Connection, *, always: bool) -> None:
        """Makes the connection busy, as the head of a request is complete.

        Raises RATE_LIMITED or UNAVAILABLE where there is no place. A request that is admitted `always` needs
        none.
        """
        if connection in self._heads:
            self._end_head(connection)
        group, every, limits = connection.group, self._all, self.limits
        if not always:
            # The `busy` property is written out here, as this runs for every request.
            if every.open - len(every.idle) - len(every.new) >= limits.in_all:
                raise busy_server(limits.in_all)
            if group.open - len(group.idle) - len(group.new) >= limits.per_address:
                raise busy_address(limits.per_address)
        if group.new.pop(connection, None) is None:
            del group.idle[connection], every.idle[connection]
        else:
            del every.new[connection]

    def begin_next(self, connection: Connection) -> None:
        """Checks the limits for a request that follows one that was admitted `always`.

        Raises as `begin` does, where the connection is beyond the limits.
        """
        if self._all.busy > self.limits.in_all:
            raise busy_server(self.limits.in_all)
        if connection.group.busy > self.limits.per_address:
            raise busy_address(self.limits.per_address)

    def end_request(self, connection: Connection) -> None:
        """Makes the connection idle again, as the response has been sent. It is the last to be cut off."""
        if connection in self._open:
            if connection not in self._heads and connection not in self._bodies:
                connection.since = self.now
            now = time.monotonic()
            for each in (connection.group, self._all):
                each.new.pop(connection, None)
                each.idle[connection] = now

    def remove(self, connection: Connection) -> None:
        """Removes a connection that is gone. Further calls do nothing."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        group = connection.group
        for each in (group, self._all):
            each.open -= 1
            each.new.pop(connection, None)
            each.idle.pop(connection, None)
        if not group.open:
            del self._groups[group.address]
        self._end_head(connection)
        self._bodies.pop(connection, None)
        self._stalled.pop(connection, None)
        self._leaving.pop(connection, None)

    def head_goes_on(self, connection: Connection, size_bytes: int) -> None:
        """Counts a head that is not complete yet, of which so many bytes have come."""
        held = self._heads.get(connection)
        if held is None:
            self._begin_head(connection)
        self._heads_bytes += size_bytes - (held or 0)
        self._heads[connection] = size_bytes
        if self._heads_bytes > PARTIAL_HEADS_BYTES:
            self._cut_off(next(iter(self._heads)))

    def body_goes_on(self, connection: Connection) -> None:
        """Starts the time of a body that is not complete yet."""
        if connection not in self._bodies:
            connection.since = self.now
            self._bodies[connection] = None

    def body_ends(self, connection: Connection) -> None:
        """Stops the time of a body that is complete, or that no request waits for any more."""
        if connection in self._bodies:
            del self._bodies[connection]
            connection.since = self.now

    def linger(self, connection: Connection) -> None:
        """Leaves the connection a moment to take its last response."""
        self._end_head(connection)
        self._bodies.pop(connection, None)
        self.end_request(connection)
        self._leaving.setdefault(connection, self.now)

    def refused(self, error: APIError) -> None:
        """Counts a refusal for the report in the log."""
        self._refused[f"{error.status} {error.message}"] += 1
        if len(self._refused) > 100:
            self._report()

    async def watch(self) -> None:
        """Cuts off connections that take too long, until it is cancelled."""
        settings = self.settings
        shortest = min(
            settings.head_time_limit_s,
            settings.body_time_limit_s,
            settings.stalled_write_limit_s,
            settings.keep_alive_s,
            8.0,
        )
        tick_s = max(shortest / 8, 0.02)
        clock = asyncio.get_running_loop().time
        before = clock()
        try:
            while True:
                await asyncio.sleep(tick_s)
                passed_s, before = clock() - before, clock()
                self.check_time(min(passed_s, 2 * tick_s))
        finally:
            self._report()

    def check_time(self, passed_s: float) -> None:
        """Checks all limits of time, `passed_s` after the check before."""
        self.now += passed_s
        now, settings = self.now, self.settings
        while self._heads:
            connection = next(iter(self._heads))
            if now - connection.since <= settings.head_time_limit_s:
                break
            self._end_head(connection)
            connection.end_late_head()
        for connection in list(self._bodies):
            if connection.reading_is_paused():
                # The server has paused reading, so the caller is not the slow one.
                connection.since += passed_s
            allowed_s = settings.body_time_limit_s + connection.body_bytes / settings.min_body_bytes_per_s
            if now - connection.since > allowed_s:
                del self._bodies[connection]
                connection.end_late_body()
        if now - self._writes_seen > settings.stalled_write_limit_s / 8:
            self._writes_seen = now
            self._check_writes()
        while self._leaving:
            connection, since = next(iter(self._leaving.items()))
            if now - since <= LINGER_S:
                break
            self._cut_off(connection)
        self._check_idle()
        if self._refused and now - self._reported >= REPORT_S:
            self._report()

    def _check_idle(self) -> None:
        for connection in list(self._all.idle):
            if connection in self._heads or connection in self._bodies or connection in self._leaving:
                # Connections with an unfinished head or body, or a last response, have limits of their own.
                continue
            if self.now - connection.since <= self.settings.keep_alive_s:
                return
            connection.end_idle()

    def _check_writes(self) -> None:
        limit_s = self.settings.stalled_write_limit_s
        if self._all.busy >= self.limits.in_all:
            # Other callers wait for a place. A caller that takes its response is not affected.
            limit_s /= 8
        for connection in list(self._open):
            if not connection.unsent_bytes():
                self._stalled.pop(connection, None)
                continue
            taken = connection.taken_bytes()
            since, before = self._stalled.setdefault(connection, (self.now, taken))
            if taken != before:
                self._stalled[connection] = (self.now, taken)
            elif self.now - since > limit_s:
                self._refused["a caller took nothing of its answer for stalled_write_limit_s"] += 1
                self._cut_off(connection)

    def _report(self) -> None:
        self._reported = self.now
        for reason, times in self._refused.items():
            log.warning("refused %d times: %s", times, reason)
        self._refused.clear()

    def _begin_head(self, connection: Connection) -> None:
        connection.since = self.now
        self._heads[connection] = 0

    def _end_head(self, connection: Connection) -> None:
        self._heads_bytes -= self._heads.pop(connection, 0)

    def _make_room(self, group: AddressConnections, now: float) -> None:
        self._refused["the connection that had no request for longest made room for another"] += 1
        self._cut_off(group.least_needed(now))

    def _cut_off(self, connection: Connection) -> None:
        self.remove(connection)
        connection.abort()


def _network_of(host: str) -> str:
    if ":" not in host or host.startswith("::ffff:"):
        return host
    try:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8].hex(":", 2) + "::/64"
    except OSError:
        return host
