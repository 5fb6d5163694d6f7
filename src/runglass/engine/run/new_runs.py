"""New runs: the id of each, and the room for it in a queue that lies in the store.

Ids are UUIDv7, which begin with a time, so that the order of runs is that of their ids. The time is that of
the store: lists have the runs of all processes in one order, and "since" means the same
to each of them.
"""

import asyncio
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from runglass.engine.run.queue import RunQueue
from runglass.errors import APIError
from runglass.store.base import Store
from runglass.store.process_records import QueuedRuns
from runglass.support.clock import Clock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class RunIds:
    """The ids that one process gives, by its `clock`: each is higher than the one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> str:
        """A new id, with the time that it is now, or that of the last one where the clock was set back."""
        number = (self._clock.now() - _EPOCH) // _MS << 74 | secrets.randbits(74)
        if number <= self._last:
            number = self._last + 1 + secrets.randbits(32)
        self._last = number
        ms, high, low = number >> 74, number >> 62 & 0xFFF, number & (1 << 62) - 1
        return str(UUID(int=ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


class QueueAdmission:
    """Lets runs into a queue that lies in the store as far as there is room, in this process one by one.

    What waits is counted in the store, and a run is created after that: without more, all calls that come at
    once would be let in by one count. So those that this process has let in and not stored yet count, too.
    What other processes let in at the same instant is not known here.
    """

    def __init__(self, store: Store, queue: RunQueue) -> None:
        self._store = store
        self._queue = queue
        self._coming: Counter[int] = Counter()
        """Runs of each project that have been let in and may not be stored yet."""
        self._settled: Counter[int] = Counter()
        """Those of each project that were, since the beginning."""
        self._changed = asyncio.Event()

    async def enter(self, project_id: int) -> None:
        """Lets a run in, until `settle`. Raises UNAVAILABLE where too many wait, StoreError."""
        while True:
            # What is stored from here on is in the count or not: it counts twice at most.
            settled, own_settled = self._settled.total(), self._settled[project_id]
            queued = await self._store.queued_runs(project_id, most=self._queue.most_counted)
            beside = self._coming.total() + self._settled.total() - settled
            own = self._coming[project_id] + self._settled[project_id] - own_settled
            projects = queued.projects + (own > 0 and not queued.own)
            counted = QueuedRuns(queued.waiting + beside, queued.own + own, projects)
            try:
                self._queue.require_room(project_id, counted)
            except APIError:
                if not beside:
                    raise
                if self._coming.total():
                    await self._changed.wait()
            else:
                self._coming[project_id] += 1
                return

    def settle(self, project_id: int) -> None:
        """A run that was let in is stored, or will not be."""
        self._coming[project_id] -= 1
        self._settled[project_id] += 1
        self._changed.set()
        self._changed = asyncio.Event()
