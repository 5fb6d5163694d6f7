"""Compares the runs of this process with those that the store counts as its own.

They differ where the store has gone back: PostgreSQL was replaced by a standby that lacks the newest commits,
or has lost them in a crash. Then a run may have fewer events than its process was told are stored, one that
had ended may go on, and belong to a process that has forgotten it. Each is let go, and whoever claims it goes
on from what the store has.
"""

import logging

from runglass.engine.active_runs import ActiveRuns
from runglass.engine.drain import StopRequest
from runglass.store.base import Store

log = logging.getLogger(__name__)


class StoreCheck:
    """Looks for runs of which the store has less than it said."""

    def __init__(self, store: Store, active: ActiveRuns) -> None:
        self._store = store
        self._active = active
        self._unknown: set[str] = set()
        self._generation = store.generation
        self.gone_back = 0
        """How many runs have been found of which the store has less than it said."""

    async def compare(self) -> None:
        """Lets go of runs that the store has gone back with. Raises StoreError."""
        active = self._active
        if self._generation != self._store.generation:
            self._generation = self._store.generation
            await self._tell_of_latest()
        # First: what is stored from now on is in the answer or not, and neither is a loss.
        stored = active.stored_heads()
        owned = await self._store.owned_runs(active.owner)
        for run_id, head in stored.items():
            # One that is nobody's has just ended or paused, or its claim was lost, if not the run itself.
            if owned.get(run_id, -1) < head and run_id in active.stored_heads():
                await self._tell_loss(run_id, head)
                active.leave_behind(run_id)
        unknown = {run_id for run_id in owned if not active.knows(run_id)}
        # One that was created or claimed a moment ago has no task yet.
        for run_id in unknown & self._unknown:
            self._tell(
                run_id, f"is to go on after event {owned[run_id]}, and this process has ended or left it"
            )
            active.orphaned.setdefault(run_id, StopRequest())
        self._unknown = unknown - active.orphaned.keys()

    async def _tell_of_latest(self) -> None:
        """Tells which of the runs that this process has ended or left last the store has less of."""
        for run_id, head in dict(self._active.latest).items():
            await self._tell_loss(run_id, head)

    async def _tell_loss(self, run_id: str, head: int) -> None:
        run = await self._store.run(run_id)
        if run is None:
            self.gone_back += 1
            log.error("the store has gone back, and run %s is lost: %d events were stored", run_id, head)
        elif run.head < head:
            self._tell(run_id, f"has {run.head} events, and {head} were stored")

    def _tell(self, run_id: str, what: str) -> None:
        self.gone_back += 1
        log.error("the store has gone back, and run %s %s: it goes on from what the store has", run_id, what)
