"""What goes stale is put away: runs that nobody takes up again, calls that nobody repeats any more."""

import asyncio
import logging
from datetime import datetime, timedelta

from runglass.clock import Clock, iso
from runglass.engine.engine import Engine
from runglass.engine.taking_up import last_time
from runglass.errors import RunUnreadable, StoreError
from runglass.store.base import Store

log = logging.getLogger(__name__)

INTERVAL_S = 600.0
CALLS_KEPT = timedelta(hours=24)


class Housekeeping:
    """Cancels runs that have been paused for longer than `pause_limit`, and drops calls older than a day."""

    def __init__(self, *, store: Store, engine: Engine, clock: Clock, pause_limit: timedelta) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._pause_limit = pause_limit

    async def keep_on(self) -> None:
        """Tidies up now and every ten minutes, until it is cancelled. A store that fails is tried again."""
        while True:
            try:
                await self.tidy()
            except StoreError as error:
                log.warning("stale runs and calls could not be put away: %s", error)
            await self._clock.sleep(INTERVAL_S)

    async def tidy(self) -> None:
        """Puts away what is stale now. Raises StoreError."""
        now = self._clock.now()
        await self._store.forget_calls(before=iso(now - CALLS_KEPT))
        for run in await self._store.paused_runs():
            try:
                since = datetime.fromisoformat(await last_time(self._store, run))
                if now - since > self._pause_limit:
                    hours = round(self._pause_limit.total_seconds() / 3600, 1)
                    reason = f"nobody took it up again for {hours:g} hours"
                    await self._engine.cancel_paused(run, reason=reason)
            except RunUnreadable as error:
                self._engine.put_aside(run.id, error)
            # One run after the other, and others' turn in between: a long list is no reason for a stall.
            await asyncio.sleep(0)
