"""Runs that have no task in this process: making one, reading a pause, ending a run as it stands.

Ids are UUIDv7, which begin with a time, so that the order of runs is that of their ids. The time is that of
the store: lists have the runs of all processes in one order, and "since" means the same to each of them.

A request to cancel a run of another process stands in the store. A wake-up tells of it at once, a poll soon;
a claim reads it with the run.
"""

import logging
import secrets
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from runglass.bus.base import WORK, requests_to, runs_of
from runglass.engine.journal.checkpoints import CheckpointSet, size_of
from runglass.engine.journal.resume import PausedRun, first_segment
from runglass.engine.run.active_runs import ActiveRuns
from runglass.engine.run.terminate import end_run
from runglass.engine.steps.run_context import EngineContext
from runglass.engine.steps.run_limits import StopRequest
from runglass.errors import (
    CommitUncertain,
    PermanentStoreError,
    StoreError,
    WrongExpectedVersion,
    api_error,
)
from runglass.limits.offload import offload
from runglass.limits.pace import paced_write
from runglass.limits.slots import QueueAdmission
from runglass.store.base import decoding
from runglass.store.records import NewRun, RunRecord
from runglass.support.clock import Clock
from runglass.support.logs import FailureLog

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class RunIds:
    """The ids that one process gives, by its `clock`: each is higher than the one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def next(self) -> str:
        """A new id, with the time that it is now, or that of the last one where the clock was set back."""
        number = (self._clock.now() - _EPOCH) // _MS << 74 | secrets.randbits(74)
        if number <= self._last:
            number = self._last + 1 + secrets.randbits(32)
        self._last = number
        ms, high, low = number >> 74, number >> 62 & 0xFFF, number & (1 << 62) - 1
        return str(UUID(int=ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


class IdleRuns:
    """Makes runs, reads and ends those without a task, and looks for requests to cancel runs of this process.

    A request whose wake-up was lost stands for `poll_s`.
    """

    def __init__(self, engine: EngineContext, active: ActiveRuns, *, poll_s: float) -> None:
        self.admission = QueueAdmission(engine.limits.runs, engine.store)
        self._engine = engine
        self._store = engine.store
        self._active = active
        self._poll_s = poll_s
        self._failures = FailureLog(log, "asking whether runs are to be cancelled failed")

    async def create(self, new: NewRun) -> RunRecord:
        """The run in the store. Raises StoreError only where it is sure not to be there."""
        try:
            async with paced_write(new.project_id, len(new.request)):
                return await self._store.create_run(new)
        except PermanentStoreError:
            raise
        except StoreError as refused:
            # A commit that fails may have been made. Tried again, its call then looks like one made before.
            try:
                run = await self._store.run(new.id)
            except StoreError as unknown:
                if not isinstance(refused, CommitUncertain):
                    raise refused from None
                self._active.orphaned[new.id] = StopRequest()
                message = (
                    "the store failed while the run was created: it is not known yet whether the run exists"
                )
                raise api_error("INTERNAL_ERROR", message, execution_id=new.id) from unknown
            if run is None:
                raise
            log.warning("run %s was created, though the store failed: %s", new.id, refused)
            return run

    async def tell_queued(self, run: RunRecord) -> None:
        """Wakes processes that have a slot for a run, and those who follow the list: it has no event yet."""
        try:
            await self._engine.bus.wake(WORK)
            await self._engine.bus.wake(runs_of(run.project_id))
        except Exception:
            # The run is stored, and readers look by themselves after a while.
            log.exception("readers of the list could not be woken for run %s", run.id)

    async def paused(self, run: RunRecord) -> PausedRun:
        """The pause of a run, with the state to resume from. Raises RUN_NOT_PAUSED, RunUnreadable."""
        await self._active.settled(run.id)
        rows = await self._store.checkpoints(run.no)
        segment_spec = await first_segment(self._store, run)
        with decoding(run.id):
            checkpoints = await offload(partial(CheckpointSet, rows), size_bytes=size_of(rows))
            later, pause, outputs = await offload(checkpoints.decoded, size_bytes=size_of(rows))
        waits = run.status == "paused" and not run.is_resuming and not self._active.is_active(run.id)
        if not waits or segment_spec is None or pause is None:
            raise api_error(
                "RUN_NOT_PAUSED", f"run {run.id!r} is {run.status} and waits for no call", execution_id=run.id
            )
        return PausedRun(
            run, segment_spec.spec, pause, outputs, (later or segment_spec).segment.step_inputs, size_of(rows)
        )

    async def cancel(self, run: RunRecord, *, reason: str) -> bool:
        """Ends a run that is paused, queued or set aside as cancelled; False if it is none of these any more.

        What is stored of it need not be readable. Raises StoreError.
        """
        active = self._active
        await active.settled(run.id)
        if run.id in active.set_aside and run.status in ("pending", "running"):
            await end_run(self._engine, run, cancelled=reason)
            active.set_aside.discard(run.id)
            return True
        if run.status not in ("paused", "pending") or run.id in active.tasks:
            return False
        # A call that takes the run up at the same moment has another fence: it cannot write behind the end.
        claimed = await self._store.claim_waiting(run)
        if claimed is None:
            return False
        try:
            await end_run(self._engine, claimed, cancelled=reason)
        except WrongExpectedVersion:
            return False
        active.set_aside.discard(run.id)
        return True

    async def request_cancel(self, run_id: str, *, reason: str) -> bool:
        """Asks whoever has the run, or claims it next; False if it has ended. Raises StoreError."""
        owner = await self._store.request_cancel(run_id, reason=reason)
        if owner is None:
            return False
        await self._engine.bus.wake(requests_to(owner) if owner else WORK)
        return True

    async def watch_cancel_requests(self) -> None:
        """Cancels what is asked for until it is cancelled itself. A store that fails is tried again."""
        while True:
            owner = self._active.owner
            async with self._engine.bus.listen(requests_to(owner)) as listener:
                # After a lost lease the process has another name.
                while owner == self._active.owner:
                    with self._failures:
                        await self._cancel_requested()
                    await listener.wait(self._poll_s)

    async def _cancel_requested(self) -> None:
        """Cancels the runs of this process that are to be cancelled now. Raises StoreError."""
        for run_id, reason in (await self._store.cancel_requests(self._active.owner)).items():
            if not self._active.cancel(run_id, reason=reason) and run_id in self._active.set_aside:
                run = await self._store.run(run_id)
                if run is not None:
                    await self.cancel(run, reason=reason)
