"""Room in a queue that lies in the store, where other processes put runs as well.

What waits is counted in the store, and a run is created after that: without more, all calls that come at once
would be let in by one count. So those that this process has let in and not stored yet count, too. Which run
may wait is decided elsewhere.
"""

import asyncio
from collections import Counter

from runglass.engine.run.queue import RunQueue
from runglass.errors import APIError
from runglass.store.base import Store
from runglass.store.process_records import QueuedRuns


class QueueAdmission:
    """Lets runs into the queue as far as there is room, in this process one by one.

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
