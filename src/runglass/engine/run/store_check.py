"""What an engine knows of its runs, compared with what the store has.

The two differ where the store has gone back: PostgreSQL was replaced by a standby that lacks the newest
commits, or has lost them in a crash. Then a run may have fewer events than its process was told are stored,
or other ones, where another process has claimed it since; one that had ended may go on, and belong to a
process that has forgotten it. Each is let go, and whoever claims it resumes from what the store has.
"""

import asyncio
import logging

from runglass.engine.journal.resume import time_of
from runglass.engine.run.active_runs import ActiveRuns
from runglass.engine.steps.run_limits import StopRequest
from runglass.errors import RunUnreadable
from runglass.store.base import Store
from runglass.store.records import RunRecord, StoredLog

log = logging.getLogger(__name__)

AT_ONCE = 10
"""So many ended runs are compared at the same time, as a store has connections."""
MISSED_S = 600.0
"""A run that is gone and that this process left longer ago is taken for one that was removed, not lost."""


class StoreCheck:
    """Looks for runs of which the store has less than it said."""

    def __init__(self, store: Store, active: ActiveRuns) -> None:
        self._store = store
        self._active = active
        self._unknown: set[str] = set()
        self._generation = store.generation

    async def compare(self) -> None:
        """Lets go of runs that the store has gone back with. Raises StoreError."""
        active, generation = self._active, self._store.generation
        if self._generation != generation:
            await self._compare_latest()
            self._generation = generation
        # Their segments may have been about to end as the others were compared.
        while active.refused:
            await self._note_loss(active.refused[0])
            active.refused.popleft()
        # First: what is stored from now on is in the answer or not, and neither is a loss.
        stored = active.stored_logs()
        owned = await self._store.owned_runs(active.owner)
        for run_id, known in stored.items():
            # One that is nobody's has just ended or paused, or its claim was lost, if not the run itself.
            if owned.get(run_id, -1) < known.head and run_id in active.stored_logs():
                await self._note_loss(known)
                active.hand_over(run_id)
        unknown = {run_id for run_id in owned if not active.knows(run_id)}
        # One that was created or claimed a moment ago has no task yet.
        for run_id in unknown & self._unknown:
            log.error(
                "run %s continues after event %d, which this process has passed: resuming it there",
                *(run_id, owned[run_id]),
            )
            active.orphaned.setdefault(run_id, StopRequest())
        self._unknown = unknown - active.orphaned.keys()

    async def _compare_latest(self) -> None:
        """Notes what the store lacks of the runs that ended here last: some at a time, as the lease waits."""
        latest = list(self._active.latest)
        for first in range(0, len(latest), AT_ONCE):
            some = latest[first : first + AT_ONCE]
            done = await asyncio.gather(*map(self._note_loss, some), return_exceptions=True)
            for failure in filter(None, done):
                raise failure

    async def _note_loss(self, known: StoredLog) -> None:
        """Records it if the store does not have of the run what it said to have."""
        run = await self._store.run(known.run_id)
        if run is None:
            left_at_s = known.left_at_s
            if left_at_s is not None and asyncio.get_running_loop().time() - left_at_s > MISSED_S:
                return
        elif run.head >= known.head and await self._has_last(run, known):
            return
        await self._store.note_setback(known.run_id, known.project_id, had=known.head)

    async def _has_last(self, run: RunRecord, known: StoredLog) -> bool:
        """Whether the store has the last event that it said to have, and not another one with its number."""
        if not known.last_at:
            return True
        try:
            # Not the whole event: its content may have been removed since.
            return known.last_at == await time_of(self._store, run, known.head)
        except RunUnreadable:
            # No loss of the newest commits, and the business of whoever goes on with the run.
            return True
