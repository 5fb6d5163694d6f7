"""Notices that the PostgreSQL behind an address was started anew, or is another one.

Then it may lack the newest commits: a standby has taken over that did not have them, or a crash has lost what
`synchronous_commit = off` does not wait for. Each new connection looks, before anything else is done on it.
Behind a pooler, which changes servers without a word, each renewal of a lease looks as well. The same
question asks what time it is there: all processes go by that, and another server has another clock.
"""

import logging
from datetime import datetime
from typing import Any

from runglass.support.clock import SharedClock

log = logging.getLogger(__name__)

_NOTE = "SELECT note_start(), clock_timestamp()"


class ServerWatch:
    """The starts of one server, as the connections of this process see them. `clock` is told its time."""

    def __init__(self, name: str, clock: SharedClock) -> None:
        self._name = name
        self._clock = clock
        self._is_watching = False
        self._started_at: datetime | None = None
        self.generation = 0
        """How often the server was started anew or replaced since this process began."""

    async def begin(self, db: Any) -> None:
        """Notes the start of the server of this moment, and from now on looks with each new connection."""
        await self.look(db)
        self._is_watching = True

    async def initialize(self, connection: Any) -> None:
        """Looks on a new connection, once the database has its schema."""
        if self._is_watching:
            await self.look(connection)

    async def look(self, db: Any) -> None:
        """Compares the start of the server with the one that is known, and tells the clock its time."""
        asked_s = self._clock.monotonic_s()
        [(started_at, moment)] = await db.fetch(_NOTE)
        self._clock.tell(moment, asked_s=asked_s)
        before, self._started_at = self._started_at, started_at
        if before is not None and started_at != before:
            self.generation += 1
            log.warning(
                "the database %r was started at %s, and the one before at %s: where a standby has taken over,"
                " the last commits may be missing; runs that have gone back are told one by one",
                *(self._name, started_at.isoformat(), before.isoformat()),
            )
