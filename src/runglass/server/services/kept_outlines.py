"""Keeps the outlines of large runs once these have ended, so that whoever opens one does not wait for it."""

import logging

from runglass.errors import RunPurged, RunUnreadable
from runglass.limits.pace import current_project
from runglass.server.services.outlines import Outlines
from runglass.store.base import Store
from runglass.support.clock import Clock
from runglass.support.logs import FailureLog

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""So often it is looked whether an outline is due; after one that took longer, as long as that took."""
CLAIM_S = 30.0
"""So long other servers on the store leave it to this one, from each time that it looks."""


class OutlineKeeper:
    """Of one server: makes outlines that are due, one after the other, each at the pace of its project."""

    def __init__(self, store: Store, outlines: Outlines, clock: Clock) -> None:
        self._store = store
        self._outlines = outlines
        self._clock = clock
        self._failures = FailureLog(log, "keeping the outlines of runs that have ended failed")

    async def run_forever(self) -> None:
        """Keeps what becomes due until it is cancelled. A store that fails is tried again."""
        while True:
            since_s = self._clock.monotonic_s()
            with self._failures:
                if await self._store.claim_maintenance("outlines", for_s=CLAIM_S):
                    await self.keep_next()
            # Others have half of the time at least, also those of the same project.
            await self._clock.sleep(max(INTERVAL_S, self._clock.monotonic_s() - since_s))

    async def keep_next(self) -> None:
        """Keeps the outline that is due first, if one is. Raises StoreError."""
        run = await self._store.due_outline()
        if run is None:
            return
        current_project.set(run.project_id)
        try:
            await self._outlines.keep(run)
        except RunPurged:
            log.debug("run %r was deleted while its outline was made", run.id)
        except RunUnreadable as error:
            log.warning("no outline is kept: %s", error)
            await self._store.pass_over_outline(run.no)
