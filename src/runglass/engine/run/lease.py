"""The lease under which an engine owns its runs: taken, and renewed in time."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from runglass.engine.run.active_runs import ActiveRuns
from runglass.errors import StoreError
from runglass.store.base import Store
from runglass.store.process_records import ProcessFacts
from runglass.support.clock import Clock, iso
from runglass.support.logs import FailureLog

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""A lease that could not be renewed is tried again so soon."""


class Lease:
    """The lease of the owner of these runs, `lease_s` seconds from each renewal; `process` is who that is.

    `is_held` is whether the store said so the last time that it answered.
    """

    def __init__(
        self, store: Store, clock: Clock, active: ActiveRuns, *, lease_s: float, process: ProcessFacts
    ) -> None:
        self._store = store
        self._clock = clock
        self._active = active
        self._lasts = timedelta(seconds=lease_s)
        self._process = process
        self.is_held = False

    async def hold(self, *, renew: bool) -> bool:
        """Takes the lease, or renews it; False where others have taken it away. Raises StoreError."""
        until = iso(self._clock.now() + self._lasts)
        self.is_held = await self._store.hold_lease(
            self._active.owner, until=until, renew=renew, process=self._process
        )
        return self.is_held

    async def keep_forever(self, keep: Callable[[], Awaitable[None]]) -> None:
        """Calls `keep` three times in a lease, and sooner after a failure, until it is cancelled."""
        pause_s = interval_s = self._lasts.total_seconds() / 3
        failures = FailureLog(log, "renewing the lease failed")
        while True:
            await self._clock.sleep(pause_s)
            try:
                await keep()
                pause_s = interval_s
                failures.worked()
            except StoreError as error:
                failures.failed(error)
                # Before others take the runs over, once the store is back.
                pause_s = min(interval_s, RETRY_S)
