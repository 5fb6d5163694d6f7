"""The runs that go on in this process: one task for each, from its begin to its end.

A run without a task is `idle_runs.py`'s; which run gets a task next is decided in `claims.py`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from uuid_utils import uuid7

from runglass.bus.base import progress_of
from runglass.engine.journal.resume import ResumeState
from runglass.engine.run.task import AppendRefused, LeaseLost, RunOutcome, RunReleased, RunTask
from runglass.engine.steps.run_context import EngineContext, LiveOutputs
from runglass.engine.steps.run_limits import StopRequest
from runglass.errors import RunUnreadable, StoreError
from runglass.store.records import RunRecord, StoredLog

log = logging.getLogger(__name__)

LATEST = 1000
"""So many segments that have ended are compared with a store that may have gone back."""


class StartedRun(NamedTuple):
    """A run that goes on by itself; `outcome` waits for the end of its segment.

    `head` is the seq that the segment began after. `outcome` raises RunReleased if the run goes on without
    this engine, StoreError if it cannot be recorded. A run that was `queued`, as it says, waits in the store,
    and any process on it may execute it: where another one does, `outcome` raises LeaseLost at the end of the
    segment or before, and the store tells the end. Where this one cannot read it, RunUnreadable is raised.
    """

    id: str
    head: int
    outcome: Callable[[], Awaitable[RunOutcome]]
    queued: RunRecord | None = None


class ActiveRuns:
    """The tasks of an engine's runs. `free_slot` gives back the slot of a run whose task has ended.

    `owner` is the name that the engine has in the store, a new one after each lease that was lost. `resuming`
    are paused runs whose next segment is about to begin. `orphaned` are runs that the store counts as the
    owner's though they have no task: just claimed, or left because the store failed. Their stop requests are
    kept. `latest` are the runs of the segments that ended last, as the store has said to have them; `refused`
    those that ended as the store refused an append, until somebody has looked why.
    """

    def __init__(self, context: EngineContext, *, free_slot: Callable[[int], None], poll_s: float) -> None:
        self.owner = str(uuid7())
        self.tasks: dict[str, asyncio.Task[RunOutcome]] = {}
        self.resuming: set[str] = set()
        self.orphaned: dict[str, StopRequest] = {}
        self.set_aside: set[str] = set()
        self.latest: deque[StoredLog] = deque(maxlen=LATEST)
        self.refused: deque[StoredLog] = deque(maxlen=LATEST)
        self._context = context
        self._gate = context.gate
        self._queue = context.limits.runs
        self._free_slot = free_slot
        self._poll_s = poll_s
        self._running: dict[str, RunTask] = {}

    def is_active(self, run_id: str) -> bool:
        """Whether a segment of the run goes on in this engine, or is about to."""
        return run_id in self.tasks or run_id in self.resuming

    def begin(
        self,
        run: RunRecord,
        state: ResumeState,
        *,
        owner: str | None = None,
        not_before: str = "",
        outputs: LiveOutputs | None = None,
    ) -> StartedRun:
        """Gives the run a task, on behalf of `owner`; by default that is the owner of this moment."""
        if run.id in self.tasks:
            # The lease ran out while the run was created, and the run has been claimed under the next one.
            return self._started(run)
        owner = owner or self.owner
        # The fold has all that it says, as long as the run goes on.
        run = msgspec.structs.replace(run, summary=b"")
        running = RunTask(
            self._context,
            run,
            state,
            owner=owner,
            not_before=not_before,
            outputs=outputs,
        )
        # A run that was accepted at the very moment of a stop waits for the next start. One that was created
        # under a lease that has run out since waits for the process that claims it.
        running.stop.left = self._gate.closed or owner != self.owner
        orphaned = self.orphaned.pop(run.id, None)
        running.stop.cancelled = (orphaned and orphaned.cancelled) or run.cancel_reason
        task = asyncio.create_task(running.walk(), name=f"run {run.id}")
        self._running[run.id], self.tasks[run.id] = running, task
        self._queue.hold(run.project_id)
        task.add_done_callback(lambda _: self._forget(run.id))
        return self._started(run)

    def queued(self, run: RunRecord) -> StartedRun:
        """A run that waits in the store for whichever process has a slot for it."""

        async def outcome() -> RunOutcome:
            lost = LeaseLost(f"run {run.id!r} is executed by whichever process claims it")
            async with self._context.bus.listen(progress_of(run.id)) as listener:
                while True:
                    running = self._running.get(run.id)
                    # A later segment is not this one.
                    if running is not None and running.run.head == run.head:
                        return await asyncio.shield(self.tasks[run.id])
                    if run.id in self.set_aside:
                        raise RunUnreadable(run.id, "it is quarantined, and the server's log says why")
                    try:
                        now = await self._context.store.run(run.id)
                    except StoreError:
                        raise lost from None
                    if now is None or now.ended or (now.status == "paused" and not now.is_resuming):
                        raise lost
                    await listener.wait(self._poll_s)

        return StartedRun(run.id, run.head, outcome, queued=run)

    def cancel(self, run_id: str, *, reason: str) -> bool:
        """Ends a run of this engine as cancelled; False if it goes on in none of its tasks."""
        orphaned = self.orphaned.get(run_id)
        if orphaned is not None:
            orphaned.cancelled = orphaned.cancelled or reason
            return True
        running = self._running.get(run_id)
        if running is None or running.ended or running.stop.left:
            return False
        if running.stop.cancelled is None:
            running.stop.cancelled = reason
            self._interrupt(run_id)
        return True

    def knows(self, run_id: str) -> bool:
        """Whether a run that the store counts as this engine's is in any of its lists."""
        return self.is_active(run_id) or run_id in self.orphaned or run_id in self.set_aside

    def stored_logs(self) -> dict[str, StoredLog]:
        """By run id, what the store has said to have of each run with a segment that goes on."""
        return {run_id: task.stored_log for run_id, task in self._running.items() if not task.ended}

    def hand_over(self, run_id: str) -> None:
        """Cuts off the segment of a run of which the store has less than it said; the run is let go soon."""
        running = self._running.get(run_id)
        if running is not None and not running.ended and not running.stop.requested:
            running.stop.left = running.stop.is_behind = True
            self._interrupt(run_id)

    def put_aside(self, run_id: str, error: Exception, *, project_id: int = 0) -> None:
        """Leaves a run as it is stored, until the next start, and logs that once: it may not stop others."""
        if run_id not in self.set_aside:
            self.set_aside.add(run_id)
            log.error(
                "run %s is quarantined until the next start; `runglass data export-raw %s FILE` saves it: %s",
                run_id,
                run_id,
                error,
                exc_info=None if isinstance(error, RunUnreadable) else error,
                extra={"project_id": project_id},
            )
        self.orphaned.pop(run_id, None)

    async def join(self, run_id: str) -> None:
        """Returns when no segment of the run goes on in this engine."""
        task = self.tasks.get(run_id)
        if task is not None:
            await asyncio.wait({task})

    async def settled(self, run_id: str) -> None:
        """Returns when a segment that has ended is over: its last event is seen a moment before."""
        running = self._running.get(run_id)
        if running is not None and running.ended:
            await asyncio.wait({self.tasks[run_id]})

    async def release_all(self) -> None:
        """Cuts off every segment, which leaves its run to another process; returns when all have ended."""
        # Again for runs that a call has begun meanwhile: none may be left waiting for its own end.
        while self.tasks:
            for run_id in self._running:
                self._release(run_id)
            await asyncio.wait(list(self.tasks.values()))

    async def release_before(self, run: RunRecord) -> None:
        """Cuts off a segment of the run that began under an earlier fence; returns when none goes on."""
        running = self._running.get(run.id)
        if running is not None and running.run.fence != run.fence:
            self._release(run.id)
        await self.join(run.id)

    def _release(self, run_id: str) -> None:
        running = self._running[run_id]
        # A segment that has ended is only being stored: its caller must be told the end.
        if not running.stop.requested and not running.ended:
            running.stop.left = True
            self._interrupt(run_id)

    def _started(self, run: RunRecord) -> StartedRun:
        task = self.tasks[run.id]
        return StartedRun(run.id, run.head, lambda: asyncio.shield(task))

    def _interrupt(self, run_id: str) -> None:
        # A task that is cancelled before it begins never runs, and so would never record its end.
        if self._running[run_id].has_begun:
            self.tasks[run_id].cancel()

    def _forget(self, run_id: str) -> None:
        task, running = self.tasks.pop(run_id), self._running.pop(run_id)
        stored = running.stored_log._replace(left_at_s=task.get_loop().time())
        self.latest.append(stored)
        # The exception is fetched, so that a failure without a waiting caller is logged here and not by the
        # garbage collector.
        error = task.exception() if not task.cancelled() else None
        about = {"project_id": running.run.project_id}
        if isinstance(error, StoreError):
            told = "run %s could not be recorded and is left until it can be: %s"
            log.error(told, run_id, error, extra=about)
            self.orphaned[run_id] = running.stop
        elif isinstance(error, RunReleased):
            log.info("%s", error, extra=about)
            if isinstance(error, AppendRefused):
                self.refused.append(stored)
            if isinstance(error, AppendRefused) or running.stop.is_behind:
                # Where the store has gone back the run is still this process's, and it alone can free it.
                self.orphaned[run_id] = running.stop
        elif isinstance(error, Exception):
            self.put_aside(run_id, error, **about)
        self._free_slot(running.run.project_id)
