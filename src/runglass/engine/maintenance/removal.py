"""Removes ended runs when their retention is over, or on request; their content may go before them.

Imports that nobody goes on with are removed as well.

Small runs go many together, large ones bit by bit. Each such bite is a transaction of its own, so a process
that dies leaves nothing half done: the next one goes on. Other writers have the store for themselves in
between.
"""

import asyncio
import logging
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import TypeVar

from runglass.config.settings import Settings
from runglass.engine.engine import Engine
from runglass.errors import StoreError
from runglass.store.base import Store
from runglass.store.records import NO_RETENTION, Retention, RunRecord
from runglass.support.clock import Clock, iso, iso_ms
from runglass.support.logs import FailureLog
from runglass.wire.admin_api import Actor
from runglass.wire.query import created_ms

T = TypeVar("T")

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
CLAIM_S = 3 * INTERVAL_S
"""So long other processes leave the removal to this one, from each time that it says so."""
BATCH_BYTES = 256 * 1024
COMPACTED_BYTES = BATCH_BYTES // 2
"""To give a page back takes longer than to delete its rows: many free ones are gone through to find it."""
BATCH_ROWS = 1000
STRIPPED_ROWS = 250
"""Each is read and written anew in Python."""
AT_ONCE = 500
"""Most runs that are looked up in one go."""
PURGED_AT_ONCE = 250
LISTED_AT_ONCE = 5000
MOST_CLEARED = 1_000_000
"""Most purged runs whose rows go in one turn: their numbers are held."""
LEAST_PAUSE_S = 0.001
SCRUBS = 5
SCRUB_PAUSE_S = 0.2


class RunRemoval:
    """Purges runs and takes out content. The settings hold where neither flow nor project says anything.

    `run_forever` leaves the rows of a purged run there for a moment: who follows it, in any process, hears of
    its end.
    """

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        clock: Clock,
        settings: Settings,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._default = Retention(settings.retention_days, settings.content_retention_days)
        self._plain_days = settings.plain_retention_days
        # A reader whose wake-up is lost looks once in `tail_poll_s`.
        self._grace_s = 2 * settings.tail_poll_s + 1
        self._batch_rows = batch_rows
        self.woken = asyncio.Event()
        """Set from a purge on until what it left is removed."""
        self._claimed_s = clock.monotonic_s()

    async def purge(self, run: RunRecord, *, by: Actor) -> bool:
        """Deletes a run that has ended, for `by`: no request finds it any more. False if it is not there.

        Its space on disk is given back in the background. Raises StoreError.
        """
        purged = await self._store.purge_runs([run.no], by=by)
        self.wake()
        return purged > 0

    def wake(self) -> None:
        """Lets what has become due meanwhile be removed within a moment."""
        self.woken.set()

    async def finish(self) -> None:
        """Deletes and overwrites at once what is left of purged runs, for a process that has the store alone.

        A failure is only logged: no request finds these runs any more, and the next server does the rest.
        """
        reason: object = "another process is reading it"
        try:
            await self._clear(0.0)
            for _ in range(SCRUBS):
                if await self._store.scrub():
                    return
                await self._clock.sleep(SCRUB_PAUSE_S)
        except StoreError as error:
            reason = error
        told = "the runs are deleted, but the store cannot be overwritten yet: %s; the next server does it"
        log.warning(told, reason)

    async def run_forever(self) -> None:
        """Removes what is due now, every minute, and after each purge, until it is cancelled.

        A store that fails is tried again.
        """
        failures = FailureLog(log, "removing runs that are due failed")
        while True:
            self.woken.clear()
            with failures:
                if await self._store.claim_maintenance("removal", for_s=CLAIM_S):
                    self._claimed_s = self._clock.monotonic_s()
                    await self.tidy(grace_s=self._grace_s)
                # Last: one of these that cannot be ended keeps no other run from going.
                await self.tidy_set_aside()
            await self._idle()

    async def tidy_set_aside(self) -> None:
        """Deletes the runs that this process has set aside, and so never end, once their retention is over.

        It forgets those that have ended elsewhere. Raises StoreError.
        """
        if not (set_aside := self._engine.active.set_aside):
            return
        retentions = await self._store.retentions()
        for run_id in list(set_aside):
            run = await self._store.run(run_id)
            if run is None or run.ended:
                set_aside.discard(run_id)
                continue
            if (days := retentions.get(run.flow_id, NO_RETENTION).days) is None:
                days = self._default.days
            # How long it has been unreadable nobody knows.
            if days is not None and iso_ms(created_ms(run_id)) < self._before(days):
                told = "run %s cannot be read, and is deleted as its retention is over"
                log.warning(told, run_id, extra={"project_id": run.project_id})
                if await self._engine.idle.cancel(run, reason="its retention is over"):
                    await self._purge([run.no])

    async def tidy(self, *, grace_s: float = 0.0) -> None:
        """Removes what is due now, to the end, but no row within `grace_s`. Raises StoreError."""
        retentions = await self._store.retentions()
        async for due in self._due(retentions, attrgetter("days")):
            await self._purge(due)
        before = self._before(self._plain_days)
        for project in await self._store.projects():
            while due := await self._store.ended_plain_runs(project.id, before=before, limit=AT_ONCE):
                await self._purge(due)
        # What a process was importing when it died becomes due here, and goes in the same turn.
        await self._store.abandon_imports()
        await self._clear(grace_s)
        async for due in self._due(retentions, attrgetter("content_days"), with_content=True):
            await self._strip(due)
        while await self._batch(self._store.compact(limit_bytes=COMPACTED_BYTES)):
            pass

    async def _due(
        self,
        retentions: Mapping[str, Retention],
        days_of: Callable[[Retention], float | None],
        *,
        with_content: bool = False,
    ) -> AsyncIterator[list[int]]:
        """The numbers of runs that ended longer ago than their flow's days, oldest first, many at once.

        Whoever goes on has seen to them, so that they are due no more.
        """
        due: list[int] = []
        for flow_id, retention in retentions.items():
            if (days := days_of(retention)) is None and (days := days_of(self._default)) is None:
                continue
            is_last = False
            while not is_last:
                found = await self._store.ended_runs(
                    flow_id, before=self._before(days), with_content=with_content, limit=AT_ONCE
                )
                due += found
                is_last = len(found) < AT_ONCE
                if not is_last or len(due) >= AT_ONCE:
                    yield due
                    due = []
        if due:
            yield due

    async def _purge(self, runs: Sequence[int]) -> None:
        for first in range(0, len(runs), PURGED_AT_ONCE):
            await self._batch(self._store.purge_runs(runs[first : first + PURGED_AT_ONCE]))

    async def _clear(self, grace_s: float) -> None:
        """Deletes what is left of the runs that are purged by now, once `grace_s` is over."""
        purged = array("q")
        while found := await self._store.purged_runs(after=purged[-1] if purged else 0, limit=LISTED_AT_ONCE):
            purged.extend(found)
            if len(purged) >= MOST_CLEARED:
                # The others have the next turn, at once.
                self.wake()
                break
        if purged:
            # What is purged from here on has its turn after these, and so its own time to be read.
            await self._clock.sleep(grace_s)
        through = 0
        while through < len(purged):
            some = purged[through : through + AT_ONCE].tolist()
            through += await self._batch(
                self._store.purge_rows(some, limit_rows=self._batch_rows, limit_bytes=BATCH_BYTES)
            )

    async def _strip(self, runs: Sequence[int]) -> None:
        through, place = 0, None
        while through < len(runs):
            some = runs[through : through + AT_ONCE]
            strip = self._store.strip_content(some, place, limit_rows=STRIPPED_ROWS, limit_bytes=BATCH_BYTES)
            done, place = await self._batch(strip)
            through += done

    def _before(self, days: float) -> str:
        try:
            return iso(self._clock.now() - timedelta(days=days))
        except OverflowError:
            # Longer ago than there are dates: nothing is due.
            return ""

    async def _batch(self, work: Awaitable[T]) -> T:
        started_s = self._clock.monotonic_s()
        if started_s - self._claimed_s > INTERVAL_S:
            # Much to remove takes longer than a turn; where another process has begun, both go on.
            await self._store.claim_maintenance("removal", for_s=CLAIM_S)
            self._claimed_s = started_s
        result = await work
        # As long as it took: others have the writer for half of the time at least.
        await self._clock.sleep(max(self._clock.monotonic_s() - started_s, LEAST_PAUSE_S))
        return result

    async def _idle(self) -> None:
        """Returns after a minute, or after a purge."""
        waits = {
            asyncio.create_task(self._clock.sleep(INTERVAL_S)),
            asyncio.create_task(self.woken.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
