"""The lease that an engine holds on its runs, and the runs of the store that it claims under it.

Which runs are next, of those that wait and of those whose process has no lease any more, is up to the store.
"""

import asyncio
import logging
from datetime import timedelta

from uuid_utils import uuid7

from runglass.bus.base import WORK, progress_of
from runglass.engine.journal.resume import WORKER_LOST, left_state, time_of
from runglass.engine.run.active_runs import ActiveRuns
from runglass.engine.run.idle_runs import IdleRuns
from runglass.engine.run.store_check import StoreCheck
from runglass.engine.run.terminate import end_run
from runglass.engine.steps.run_context import EngineContext
from runglass.engine.steps.run_limits import StopRequest
from runglass.errors import StoreError
from runglass.limits.pace import set_project
from runglass.log.measurements import measured
from runglass.store.leases import UNTOLD, ProcessFacts
from runglass.store.records import RunRecord
from runglass.support import logs
from runglass.support.clock import iso
from runglass.support.logs import FailureLog
from runglass.wire.query import created_ms

log = logging.getLogger(__name__)

CLAIMED_AT_ONCE = 100
BEGUN_AT_ONCE = 10
"""So many claimed runs are read at the same time, as a store has connections."""
RETRY_S = 0.5
"""A lease that could not be renewed is tried again so soon."""
CLAIM_WAIT_S = 1.0
"""So long a start waits for the runs that another process has left unfinished."""


class RunClaims:
    """Keeps the lease and fills free slots.

    `process` is what its lease says of this process. A run whose wake-up was lost waits for `poll_s`.
    """

    def __init__(
        self,
        engine: EngineContext,
        active: ActiveRuns,
        idle: IdleRuns,
        *,
        process: ProcessFacts = UNTOLD,
        poll_s: float,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._clock = engine.dependencies.clock
        self._gate = engine.gate
        self._active = active
        self._idle = idle
        self._queue = engine.limits.runs
        self._process = process
        self._holds_lease = False
        """Whether the store said so the last time that it answered."""
        self._keeping = asyncio.Lock()
        self._filling: asyncio.Task[None] | None = None
        self._fill_again = False
        self._bus = engine.bus
        self._settings = engine.limits.settings
        self._executes = self._settings.executes_runs
        self._poll_s = poll_s
        self._check = StoreCheck(engine.store, active)
        self._failures = FailureLog(log, "beginning the runs that wait for a slot failed")

    async def open(self) -> None:
        """Takes the first lease, and begins to claim; waits for that a moment, and not for large runs."""
        await self.hold_lease(renew=False)
        if not self._executes:
            return
        self.fill()
        # A run that was left with much in it takes long to read; the start need not wait for that.
        if self._filling is not None:
            await asyncio.wait({self._filling}, timeout=CLAIM_WAIT_S)

    async def release(self) -> None:
        """Leaves all runs and ends the lease."""
        # A claim that is on its way comes before the end of the lease, which lets go of the runs that it got.
        async with self._keeping:
            await self._active.release_all()
            try:
                await self._store.end_lease(self._active.owner)
            except StoreError as error:
                log.warning("the lease of a stopped process lasts until it runs out: %s", error)

    async def close(self) -> None:
        """Returns when no claim goes on any more."""
        if self._filling is not None:
            await asyncio.wait({self._filling})

    async def run_forever(self) -> None:
        """Keeps the lease until it is cancelled. A store that fails is tried again."""
        pause_s = interval_s = self._settings.lease_s / 3
        failures = FailureLog(log, "renewing the lease failed")
        while True:
            await self._clock.sleep(pause_s)
            # After a failure before others take the runs over, once the store is back.
            pause_s = min(interval_s, RETRY_S)
            with failures:
                await self.keep_lease()
                pause_s = interval_s

    async def hold_lease(self, *, renew: bool) -> bool:
        """Takes the lease, or renews it; False where others have taken it away. Raises StoreError."""
        until = iso(self._clock.now() + timedelta(seconds=self._settings.lease_s))
        self._holds_lease = await self._store.hold_lease(
            self._active.owner, until=until, renew=renew, process=self._process
        )
        return self._holds_lease

    async def keep_lease(self) -> None:
        """Renews the lease, and claims runs that no process has any more. Raises StoreError."""
        # While a claim goes on, and while a stop lets steps end: the lease must not run out meanwhile.
        is_held = await self.hold_lease(renew=True)
        async with self._keeping:
            if self._gate.closed:
                return
            active = self._active
            if not is_held:
                measured.lost_leases += 1
                log.error("the lease expired: other processes resume the runs of this one")
                await active.release_all()
                active.owner = str(uuid7())
                await self.hold_lease(renew=False)
            await self._check.compare()
            orphaned = dict(active.orphaned)
            for run_id in orphaned:
                # A run that has been taken up again, or is just now, goes on here and is not let go.
                if run_id in active.orphaned and run_id not in active.resuming:
                    await self._store.release_run(run_id, active.owner)
            self._queue.may_wait = True
            claimed = await self._claim()
            self.fill()
            for run_id, stop in orphaned.items():
                if run_id in claimed or run_id in active.resuming:
                    continue
                if active.orphaned.get(run_id) is stop:
                    await self._drop(run_id, stop)

    async def watch_work(self) -> None:
        """Claims what others have put into the store, until it is cancelled: at each wake-up, or soon."""
        async with self._bus.listen(WORK) as listener:
            while True:
                self.look()
                await listener.wait(self._poll_s)

    def look(self) -> None:
        """Lets runs begin that may have come into the store."""
        self._queue.may_wait = True
        self.fill()

    def fill(self) -> None:
        """Lets the runs begin that are next in the queue, if there are any."""
        if not self._executes or self._gate.closed or self._next() is None:
            return
        self._fill_again = True
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill(), name="the queue of runs")

    def _next(self) -> tuple[int | None, int] | None:
        """Of which project, or of any, how many runs can be claimed now."""
        # Runs of an owner without a lease are anybody's.
        return self._queue.claimable(CLAIMED_AT_ONCE) if self._holds_lease else None

    async def _claim(self) -> set[str]:
        """One claim of as many runs as there are slots for, which are taken up; returns their ids."""
        found = self._next()
        if found is None or not self._executes:
            return set()
        project_id, limit = found
        with self._queue.claiming(project_id, limit) as projects:
            claimed = await self._store.claim_runs(
                self._active.owner,
                now=iso(self._clock.now()),
                limit=limit,
                project_id=project_id,
                most_each=self._settings.max_concurrent_runs_per_project,
                most_of_flows=self._settings.max_concurrent_runs_per_flow,
            )
            projects += [run.project_id for run in claimed]
        ids: set[str] = set()
        measured.claimed_runs += len(claimed)
        for run in claimed:
            # Until the run goes on, it can be cancelled; one that cannot be read yet is let go again.
            self._active.orphaned.setdefault(run.id, StopRequest())
        for first in range(0, len(claimed), BEGUN_AT_ONCE):
            some = claimed[first : first + BEGUN_AT_ONCE]
            tried = await asyncio.gather(*map(self._take_up_if_open, some))
            ids.update(run.id for run, is_tried in zip(some, tried, strict=True) if is_tried)
        return ids

    async def _take_up_if_open(self, run: RunRecord) -> bool:
        """Takes up a run for which there is a slot; False while the engine stops. Has its own task."""
        logs.run_id.set(run.id)
        set_project(run.project_id)
        try:
            if self._gate.closed:
                return False
            await self._take_up(run)
        except StoreError as error:
            log.warning("cannot resume run %s yet: %s", run.id, error)
        except Exception as error:
            # The run is still this engine's, so it is not claimed again before the next start.
            self._active.put_aside(run.id, error, project_id=run.project_id)
            await self._bus.wake(progress_of(run.id))
        finally:
            self._queue.give_back(run.project_id)
        return True

    async def _fill(self) -> None:
        while self._fill_again:
            self._fill_again = False
            try:
                # Between two claims the lease is kept.
                async with self._keeping:
                    if self._gate.closed:
                        return
                    with self._failures:
                        await self._claim()
                        self._fill_again |= self._next() is not None
            except Exception:
                log.exception("beginning the runs that wait for a slot failed")

    async def _take_up(self, run: RunRecord) -> None:
        """Starts the task of a claimed run, or ends the run where that cannot be done."""
        active = self._active
        # Others have had the run meanwhile, of which this engine may not have heard.
        await active.release_before(run)
        state = await left_state(self._store, run)
        if state is not None and run.claims <= self._settings.crash_retries + 1:
            not_before = await time_of(self._store, run, run.head)
            if run.claims:
                measured.taken_over_runs += 1
                log.warning("resuming run %s after event %d", run.id, run.head)
            elif run.status == "pending":
                measured.queued_s.add(max(0.0, self._clock.now().timestamp() - created_ms(run.id) / 1000))
            active.begin(run, state, not_before=not_before)
            await self._bus.wake(progress_of(run.id))
            return
        times = f"it was taken over {run.claims - 1} times, which brought it no further"
        why = "nothing says what it was to do" if state is None else times
        error = {
            "code": WORKER_LOST,
            "message": f"the process that ran this ended before the run did, and {why}",
        }
        log.error("run %s was interrupted and is ended: %s", run.id, error["message"])
        stop = active.orphaned.pop(run.id, None) or StopRequest()
        try:
            if cancelled := stop.cancelled or run.cancel_reason:
                await end_run(self._engine, run, cancelled=cancelled, left=state)
            else:
                capture_failed = state.segment_spec.spec.capture_failed if state is not None else "off"
                await end_run(self._engine, run, error=error, capture_failed=capture_failed, left=state)
        except StoreError:
            active.orphaned.setdefault(run.id, stop)
            raise

    async def _drop(self, run_id: str, stop: StopRequest) -> None:
        """Forgets a run that was let go and cannot be claimed: it waits, has ended, or is elsewhere."""
        run = await self._store.run(run_id)
        if run is not None and stop.cancelled is not None:
            is_ended = await self._idle.cancel(run, reason=stop.cancelled)
            if not is_ended:
                await self._store.request_cancel(run_id, reason=stop.cancelled)
        if self._active.orphaned.get(run_id) is stop:
            del self._active.orphaned[run_id]
