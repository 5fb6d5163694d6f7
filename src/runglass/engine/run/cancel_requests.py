"""Cancels the runs of this process that another process has been asked to cancel.

The request stands in the store. A wake-up tells of it at once, a poll soon; a claim reads it with the run.
"""

import logging

from runglass.bus.base import WORK, Bus, requests_to
from runglass.engine.run.active_runs import ActiveRuns
from runglass.engine.run.idle_runs import IdleRuns
from runglass.errors import StoreError
from runglass.store.base import Store
from runglass.support.logs import FailureLog

log = logging.getLogger(__name__)

POLL_S = 1.0
"""So long a request may stand whose wake-up was lost."""


class CancelRequests:
    """Requests to cancel runs, made to other processes and looked for in this one."""

    def __init__(self, store: Store, bus: Bus, active: ActiveRuns, idle: IdleRuns) -> None:
        self._store = store
        self._bus = bus
        self._active = active
        self._idle = idle
        self._failures = FailureLog(log, "asking whether runs are to be cancelled failed")

    async def make(self, run_id: str, *, reason: str) -> bool:
        """Asks whoever has the run, or claims it next; False if it has ended. Raises StoreError."""
        owner = await self._store.request_cancel(run_id, reason=reason)
        if owner is None:
            return False
        await self._bus.wake(requests_to(owner) if owner else WORK)
        return True

    async def watch_forever(self) -> None:
        """Cancels what is asked for until it is cancelled itself. A store that fails is tried again."""
        while True:
            owner = self._active.owner
            async with self._bus.listen(requests_to(owner)) as listener:
                # After a lost lease the process has another name.
                while owner == self._active.owner:
                    try:
                        await self.look()
                        self._failures.worked()
                    except StoreError as error:
                        self._failures.failed(error)
                    await listener.wait(POLL_S)

    async def look(self) -> None:
        """Cancels the runs of this process that are to be cancelled now. Raises StoreError."""
        for run_id, reason in (await self._store.cancel_requests(self._active.owner)).items():
            if not self._active.cancel(run_id, reason=reason) and run_id in self._active.set_aside:
                run = await self._store.run(run_id)
                if run is not None:
                    await self._idle.cancel(run, reason=reason)
