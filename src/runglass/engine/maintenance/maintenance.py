"""Removes stale state: paused runs that no caller resumes, and calls and answers past their time.

Of several processes on one store one at a time does each of this. What it does is right also where two do
it, as after one stood still: they only do it twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from runglass.config.settings import Settings
from runglass.engine.engine import Engine
from runglass.engine.journal.resume import time_of
from runglass.errors import RunUnreadable
from runglass.store.base import Store
from runglass.support.clock import Clock, iso
from runglass.support.logs import FailureLog

log = logging.getLogger(__name__)

INTERVAL_S = (1.0, 600.0)
"""Paused runs are looked after a quarter of their limit apart, but within these bounds."""
CALLS_KEPT = timedelta(hours=24)
EXPIRY_INTERVAL_S = (1.0, 10.0)
"""Answers are looked after a quarter of their time apart, but within these bounds."""
EXPIRED_AT_ONCE = 250
BATCH_ROWS = 250
BATCH_BYTES = 1 << 20
BATCH_PAUSE_S = 0.01
"""After each batch others have the writer."""
SPARE_S = 30.0
"""So long after its turn another process waits before it does what one that is gone has done."""
LONGEST_S = 1.0
"""So long deleting goes on before what is gone is scrubbed, and what else is due gets its turn."""


class Maintenance:
    """Cancels runs that have been paused for longer than `pause_limit_h`, and drops calls older than a day.

    Content kept for callers goes `kept_for_callers_s` after it was due.
    """

    def __init__(self, *, store: Store, engine: Engine, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._pause_limit = timedelta(hours=settings.pause_limit_h)
        self._answer_ttl = timedelta(seconds=settings.kept_for_callers_s)

    async def run_forever(self) -> None:
        """Tidies up again and again until it is cancelled. A store that fails is tried again."""
        await self._forever("housekeeping", self.tidy, INTERVAL_S, self._pause_limit)

    async def expire_forever(self) -> None:
        """Drops answers, again and again until it is cancelled. A store that fails is tried again."""
        await self._forever("expiry", self.expire, EXPIRY_INTERVAL_S, self._answer_ttl)

    async def _forever(
        self, what: str, work: Callable[[], Awaitable[bool]], bounds: tuple[float, float], limit: timedelta
    ) -> None:
        shortest, longest = bounds
        interval_s = min(max(limit.total_seconds() / 4, shortest), longest)
        failures = FailureLog(log, f"removing stale runs, calls and answers ({what}) failed")
        while True:
            is_done = True
            with failures:
                if await self._store.claim_maintenance(what, for_s=interval_s + SPARE_S):
                    is_done = await work()
            await self._clock.sleep(interval_s if is_done else BATCH_PAUSE_S)

    async def tidy(self) -> bool:
        """Puts away what is stale now, all of it. Raises StoreError."""
        now = self._clock.now()
        await self._store.forget_calls(before=iso(now - CALLS_KEPT))
        for run in await self._store.paused_runs():
            if run.is_resuming:
                continue
            try:
                if run.cancel_reason is not None:
                    # It paused before its process read the request, and who made that has left.
                    await self._engine.idle.cancel(run, reason=run.cancel_reason)
                    continue
                since = datetime.fromisoformat(await time_of(self._store, run, run.head))
                if now - since > self._pause_limit:
                    hours = self._pause_limit.total_seconds() / 3600
                    reason = f"nobody took it up again for {hours:.3g} hours"
                    await self._engine.idle.cancel(run, reason=reason)
            except RunUnreadable as error:
                self._engine.active.put_aside(run.id, error, project_id=run.project_id)
            # One run after the other, and others' turn in between: a long list is no reason for a stall.
            await asyncio.sleep(0)
        return True

    async def expire(self) -> bool:
        """Drops the answers that are due now, and checkpoints of ended runs; False where some are left.

        Deleted content is scrubbed from the store. Raises StoreError.
        """
        before = iso(self._clock.now() - self._answer_ttl)
        expired = await self._in_batches(
            lambda: self._store.expire_answers(before=before, limit=EXPIRED_AT_ONCE)
        )
        dropped = await self._in_batches(
            lambda: self._store.drop_checkpoints(limit_rows=BATCH_ROWS, limit_bytes=BATCH_BYTES)
        )
        await self._store.scrub()
        return expired and dropped

    async def _in_batches(self, batch: Callable[[], Awaitable[int]]) -> bool:
        """Deletes until there is nothing left, or the time is over: then False."""
        until_s = self._clock.monotonic_s() + LONGEST_S
        while await batch():
            if self._clock.monotonic_s() > until_s:
                return False
            await self._clock.sleep(BATCH_PAUSE_S)
        return True
