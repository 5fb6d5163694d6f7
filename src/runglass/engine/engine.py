"""Starts runs, owns them while they go on, and sees to it that each of them ends.

A run belongs to the engine and not to whoever asked for it: a caller that hangs up does not end it. Between
two stretches a paused run belongs to nobody; it waits in the store until it is taken up again or cancelled. A
run whose engine is gone goes on with the one that claims it.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, Self

import msgspec
from uuid_utils import uuid7

from runglass.bus.base import Bus
from runglass.clock import iso
from runglass.engine.capture.capture import Capture
from runglass.engine.drain import DrainGate, StopRequest
from runglass.engine.journal.checkpoints import CheckpointSet, size_of, stretch_checkpoint
from runglass.engine.journal.resume import (
    WORKER_LOST,
    PausedRun,
    ResumeState,
    begun_first,
    last_time,
    left_state,
    new_state,
    paused_state,
)
from runglass.engine.journal.run_spec import Pause, RunSpec, Segment, SegmentSpec
from runglass.engine.models.budget import Budgets
from runglass.engine.run_queue import RunQueue
from runglass.engine.run_task import EngineContext, LeaseLost, RunOutcome, RunReleased, RunTask
from runglass.engine.scheduling.memory_budget import MemoryBudget
from runglass.engine.scheduling.offloading import offload
from runglass.engine.scheduling.pacing import paced_write
from runglass.engine.scheduling.run_limits import RunLimits
from runglass.engine.scheduling.store_turns import ProjectTurns
from runglass.engine.steps.handlers import StepDependencies
from runglass.engine.terminate import end_run
from runglass.errors import (
    APIError,
    CommitUncertain,
    PermanentStoreError,
    RunUnreadable,
    StoreError,
    WrongExpectedVersion,
    api_error,
)
from runglass.flow import step_count
from runglass.run_api import CaptureMode
from runglass.store.base import Checkpoint, FlowRecord, IdempotencyKey, NewRun, RunRecord, Store, decoding
from runglass.trace import RunSummary

log = logging.getLogger(__name__)

CLAIMED_AT_ONCE = 100
CLAIM_WAIT_S = 1.0
"""So long a start waits for the runs that others have left to go on."""


class StartedRun(NamedTuple):
    """A run that goes on by itself; `outcome` waits for the end of its stretch.

    `head` is the seq that the stretch began after. `outcome` raises RunLeft if the run goes on without this
    engine, StoreError if it cannot be recorded.
    """

    id: str
    head: int
    outcome: Callable[[], Awaitable[RunOutcome]]


class Engine:
    """Runs flows. `make_capture` gives the capture for a mode; `parts` are shared by all runs.

    A step whose process died is tried again `crash_retries` times. The engine's runs are its own for
    `lease_s` seconds at a time: `keep_lease` must be called more often than that. At most
    `max_concurrent_runs` go on at once, of one project at most `max_concurrent_runs_per_project`; of the
    others up to `max_queued_runs`, or `max_queued_runs_per_project`, wait for their turn. `weights` are by
    project.
    """

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        parts: StepDependencies,
        make_capture: Callable[[CaptureMode], Capture],
        crash_retries: int,
        lease_s: float,
        max_concurrent_runs: int = 1000,
        max_queued_runs: int = 10_000,
        max_concurrent_runs_per_project: float = math.inf,
        max_queued_runs_per_project: float = math.inf,
        weights: Mapping[int, float] | None = None,
        memory: MemoryBudget | None = None,
        limits: RunLimits | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = parts.clock
        self._crash_retries = crash_retries
        self.memory = memory or MemoryBudget()
        self._gate = DrainGate()
        self._around = EngineContext(
            store=store,
            bus=bus,
            parts=parts,
            make_capture=make_capture,
            gate=self._gate,
            crash_retries=crash_retries,
            budgets=Budgets(store),
            memory=self.memory,
            limits=limits or RunLimits(),
            turns=ProjectTurns(),
        )
        self._lease = timedelta(seconds=lease_s)
        self._owner = str(uuid7())
        self._going: dict[str, RunTask] = {}
        self._tasks: dict[str, asyncio.Task[RunOutcome]] = {}
        self._resuming: set[str] = set()
        self._keeping = asyncio.Lock()
        self._stranded: dict[str, StopRequest] = {}
        self._set_aside: set[str] = set()
        self._places = RunQueue(
            places=max_concurrent_runs,
            most_waiting=max_queued_runs,
            most_each=max_concurrent_runs_per_project,
            most_waiting_each=max_queued_runs_per_project,
            weights=weights,
        )
        self._filling: asyncio.Task[None] | None = None
        self._fill_again = False

    async def __aenter__(self) -> Self:
        await self._hold_lease(renew=False)
        await self._find()
        self._fill_again = True
        self._filling = asyncio.create_task(self._fill(), name="the line of runs")
        # Runs that were left with much in them take long to read; whoever starts need not wait for that.
        await asyncio.wait({self._filling}, timeout=CLAIM_WAIT_S)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def stop(self, *, grace_s: float = 0.0) -> None:
        """Takes no more runs; lets steps that go on end for `grace_s` seconds, then leaves the runs.

        Whoever claims them next, be it after a restart, goes on with them.
        """
        if self._gate.closed and not self._tasks:
            return
        if self._gate.inside and grace_s:
            log.info("stopping: %d steps have up to %g s to end", self._gate.inside, grace_s)
        await self._gate.close(grace_s)
        # A claim that is on its way comes before the end of the lease, which lets go of what it got.
        async with self._keeping:
            await self._leave_all()
            try:
                await self._store.end_lease(self._owner)
            except StoreError as error:
                log.warning("the lease of a stopped process lasts until it runs out: %s", error)
        self._places.close(
            RunReleased("the process was stopped before there was a place for the run"), _stopping()
        )
        if self._filling is not None:
            await asyncio.wait({self._filling})

    async def start(
        self,
        record: FlowRecord,
        plan: RunSpec,
        stretch: Segment | None = None,
        *,
        session_id: str | None = None,
        call: IdempotencyKey | None = None,
        outputs: MutableMapping[int, bytes] | None = None,
        size_bytes: int = 0,
        key_id: int | None = None,
    ) -> StartedRun:
        """Creates the run and lets it go on, or wait for its turn. When this returns, the run can be read.

        `outputs`, if given, gets the outputs and errors that the log may not keep, by seq. Raises StoreError,
        CallRepeated where `call` has been made before, and UNAVAILABLE where too many wait.
        """
        self._refuse_when_stopping()
        begun = SegmentSpec(plan=plan, stretch=stretch or Segment())
        request = await offload(partial(msgspec.json.encode, begun), size_bytes=size_bytes)
        run_id, owner = str(uuid7()), self._owner
        places, project_id = self._places, record.project_id
        queued = None if places.take(project_id) else places.queue(run_id, project_id, outputs)
        summary = RunSummary(
            id=run_id,
            flow_id=record.id,
            status="pending",
            flow_slug=plan.flow.slug,
            version=plan.version,
            trigger_type=plan.trigger_type,
            session_id=session_id,
            step_count=step_count(plan.flow),
            trace_parent=None if plan.trace_context is None else plan.trace_context.parent,
            trace_state=None if plan.trace_context is None else plan.trace_context.state,
        )
        new = NewRun(
            id=run_id,
            project_id=record.project_id,
            flow_id=record.id,
            version=plan.version,
            trigger_type=plan.trigger_type,
            capture=plan.capture,
            session_id=session_id,
            request=request,
            summary=msgspec.json.encode(summary),
            # In the line it is nobody's: whoever has a place for it first may claim it.
            owner=owner if queued is None else None,
            call=call,
            key_id=key_id,
        )
        if queued is None:
            try:
                run = await self._create(new)
                state = new_state(run, begun, request_bytes=size_bytes)
                return self._begin(run, state, owner=owner, outputs=outputs)
            finally:
                self._free_place(project_id)
        try:
            run = await self._create(new)
        except BaseException:
            self._places.leave(run_id)
            raise
        self._places.stored(queued)
        if self._gate.closed:
            self._places.leave(run_id, RunReleased("the process was stopped before there was a place"))
        self._fill_places()
        return StartedRun(run.id, run.head, queued.outcome)

    async def _create(self, new: NewRun) -> RunRecord:
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
                self._stranded[new.id] = StopRequest()
                message = "the store failed while the run was created: whether it goes on is not known yet"
                raise api_error("INTERNAL_ERROR", message, execution_id=new.id) from unknown
            if run is None:
                raise
            log.warning("run %s was created, though the store failed: %s", new.id, refused)
            return run

    async def paused(self, run: RunRecord) -> PausedRun:
        """What a paused run waits for. Raises RUN_NOT_PAUSED, RunUnreadable."""
        await self._settled(run.id)
        rows = await self._store.checkpoints(run.no)
        begun = await begun_first(self._store, run)
        with decoding(run.id):
            later, pause, outputs = await offload(partial(_rest_of, rows), size_bytes=size_of(rows))
        if run.status != "paused" or self.is_active(run.id) or begun is None or pause is None:
            raise api_error(
                "RUN_NOT_PAUSED", f"run {run.id!r} is {run.status} and waits for no call", execution_id=run.id
            )
        return PausedRun(run, begun.plan, pause, outputs, (later or begun).stretch.step_inputs, size_of(rows))

    async def resume(
        self,
        paused: PausedRun,
        plan: RunSpec,
        stretch: Segment,
        *,
        outputs: MutableMapping[int, bytes] | None = None,
        size_bytes: int = 0,
    ) -> StartedRun:
        """Walks a further stretch of a paused run; `plan` is its own, or that with overrides.

        Raises RUN_NOT_PAUSED if somebody else has taken it up, UNAVAILABLE where too many wait, StoreError.
        """
        self._refuse_when_stopping()
        run_id = paused.run.id
        if plan.flow == paused.plan.flow:
            # Callers repeat the overrides that they began with; there is nothing new to tell of those.
            stretch = msgspec.structs.replace(stretch, block_overrides={})
        if self.is_active(run_id):
            raise _taken_up(run_id)
        # The store calls it paused until its first event is in, and would let a second call claim it.
        self._resuming.add(run_id)
        try:
            await self._places.resume(paused.run.project_id)
        except BaseException:
            self._resuming.discard(run_id)
            raise
        try:
            run = await self._store.claim_waiting(paused.run)
            if run is None:
                raise _taken_up(run_id)
            begun = SegmentSpec(plan=plan, stretch=stretch)
            kept = await offload(partial(stretch_checkpoint, begun), size_bytes=size_bytes)
            state = await paused_state(self._store, paused, begun, kept)
            not_before = await last_time(self._store, run)
            return self._begin(run, state, not_before=not_before, outputs=outputs)
        finally:
            self._resuming.discard(run_id)
            self._free_place(paused.run.project_id)

    async def cancel_paused(self, run: RunRecord, *, reason: str) -> bool:
        """Ends a run that is paused, queued or set aside as cancelled; False if it is none of these any more.

        Raises StoreError, and RunUnreadable where too little of it can be read for an end.
        """
        await self._settled(run.id)
        if run.id in self._set_aside and run.status in ("pending", "running"):
            await self._end(run, cancelled=reason)
            self._set_aside.discard(run.id)
            return True
        if run.status not in ("paused", "pending") or run.id in self._tasks:
            return False
        # A call that takes it up at the same moment writes with another fence, and so not behind the end.
        claimed = await self._store.claim_waiting(run)
        if claimed is None:
            return False
        try:
            await self._end(claimed, cancelled=reason)
        except WrongExpectedVersion:
            return False
        self._set_aside.discard(run.id)
        self._places.leave(run.id, LeaseLost(f"run {run.id!r} was ended before it began"))
        return True

    def cancel(self, run_id: str, *, reason: str) -> bool:
        """Ends a run of this engine as cancelled; False if it goes on in none of its tasks."""
        stranded = self._stranded.get(run_id)
        if stranded is not None:
            stranded.cancelled = stranded.cancelled or reason
            return True
        going = self._going.get(run_id)
        if going is None or going.ended or going.ending.left:
            return False
        if going.ending.cancelled is None:
            going.ending.cancelled = reason
            self._cut_off(run_id)
        return True

    @property
    def set_aside(self) -> int:
        """How many runs this engine has given up on since it began, as they cannot be read."""
        return len(self._set_aside)

    def put_aside(self, run_id: str, error: Exception) -> None:
        """Leaves a run as it is stored, until the next start, and says so once: it may not stop others."""
        if run_id not in self._set_aside:
            self._set_aside.add(run_id)
            log.error(
                "run %s is set aside until the next start; `runglass data export-raw %s FILE` saves it: %s",
                run_id,
                run_id,
                error,
                exc_info=None if isinstance(error, RunUnreadable) else error,
            )
        self._stranded.pop(run_id, None)
        self._places.leave(run_id, error)

    async def join(self, run_id: str) -> None:
        """Returns when no stretch of the run goes on in this engine."""
        task = self._tasks.get(run_id)
        if task is not None:
            await asyncio.wait({task})

    def is_active(self, run_id: str) -> bool:
        """Whether a stretch of the run goes on in this engine, or is about to."""
        return run_id in self._tasks or run_id in self._resuming

    async def run_forever(self) -> None:
        """Keeps the lease until it is cancelled. A store that fails is tried again."""
        while True:
            await self._clock.sleep(self._lease.total_seconds() / 3)
            try:
                await self.keep_lease()
            except StoreError as error:
                log.warning("the lease could not be renewed: %s", error)

    async def keep_lease(self) -> None:
        """Renews the lease, and goes on with runs that nobody has any more. Raises StoreError."""
        async with self._keeping:
            if not self._gate.closed:
                await self._keep_lease()

    async def _keep_lease(self) -> None:
        if not await self._hold_lease(renew=True):
            log.error("the lease ran out: other processes go on with the runs of this one")
            await self._leave_all()
            self._owner = str(uuid7())
            await self._hold_lease(renew=False)
        stranded = dict(self._stranded)
        for run_id in stranded:
            # One that has been taken up again meanwhile goes on here, and is not let go.
            if run_id in self._stranded:
                await self._store.release_run(run_id, self._owner)
        await self._find()
        claimed = await self._claim()
        if self._places.backlog:
            # What was let go may still wait for a place.
            return
        for run_id, ending in stranded.items():
            if run_id not in claimed and self._stranded.get(run_id) is ending:
                await self._drop(run_id, ending)

    async def _hold_lease(self, *, renew: bool) -> bool:
        until = iso(self._clock.now() + self._lease)
        return await self._store.hold_lease(self._owner, until=until, renew=renew)

    async def _find(self) -> None:
        """Sees what runs there are in the store that nobody has."""
        self._places.found(await self._store.free_runs(self._owner, now=iso(self._clock.now())))

    async def _claim(self) -> set[str]:
        """Goes on with the runs that nobody has, as far as there are places; returns their ids."""
        ids: set[str] = set()
        exhausted: set[int] = set()
        places = self._places
        # What is claimed when the engine stops is let go with its lease.
        while not self._gate.closed and (found := places.claimable(CLAIMED_AT_ONCE, but=exhausted)):
            project_id, limit = found
            now = iso(self._clock.now())
            places.takeovers = claim = places.takeovers + 1
            places.reserve(project_id, limit)
            claimed: list[RunRecord] = []
            try:
                claimed = await self._store.claim_runs(
                    self._owner, now=now, limit=limit, project_id=project_id
                )
            finally:
                if len(claimed) < limit:
                    places.give_back(project_id, unused=limit - len(claimed))
            places.claimed(project_id, limit, [run.id for run in claimed])
            for run in claimed:
                # Until it goes on: it can be cancelled, and what cannot be read yet is let go again.
                self._stranded.setdefault(run.id, StopRequest())
            for run in claimed:
                if self._gate.closed:
                    places.give_back(project_id)
                    continue
                ids.add(run.id)
                try:
                    await self._go_on(run)
                except StoreError as error:
                    log.warning("run %s cannot be gone on with yet: %s", run.id, error)
                except Exception as error:
                    # It is still this engine's, so it is not claimed again before the next start.
                    self.put_aside(run.id, error)
                finally:
                    places.give_back(project_id)
            if len(claimed) < limit:
                exhausted.add(project_id)
                for run_id in places.missing(project_id, claim):
                    if run_id not in self._stranded:
                        places.leave(run_id, LeaseLost(f"run {run_id!r} was taken by another process"))
        return ids

    def _fill_places(self) -> None:
        """Lets those begin that are next in the line, if there is anybody."""
        if not self._places.waiting or self._gate.closed:
            return
        self._fill_again = True
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill(), name="the line of runs")

    async def _fill(self) -> None:
        while self._fill_again:
            self._fill_again = False
            try:
                async with self._keeping:
                    if not self._gate.closed:
                        await self._claim()
            except StoreError as error:
                log.warning("runs that wait for a place are not begun yet: %s", error)
            except Exception:
                log.exception("runs that wait for a place are not begun yet")

    def _free_place(self, project_id: int) -> None:
        self._places.give_back(project_id)
        self._fill_places()

    async def _go_on(self, run: RunRecord) -> None:
        """Goes on with a run that was left off, or ends it where that cannot be done."""
        await self.join(run.id)
        state = await left_state(self._store, run)
        if state is not None and run.claims <= self._crash_retries + 1:
            not_before = await last_time(self._store, run)
            if run.claims:
                log.warning("run %s was left off after event %d and goes on", run.id, run.head)
            self._begin(run, state, not_before=not_before)
            return
        why = "nothing says what it was to do" if state is None else "whatever goes on with it does not live"
        error = {
            "code": WORKER_LOST,
            "message": f"the process that ran this ended before the run did, and {why}",
        }
        log.error("run %s was cut off and is ended: %s", run.id, error["message"])
        ending = self._stranded.pop(run.id, None) or StopRequest()
        try:
            if ending.cancelled is not None:
                await self._end(run, cancelled=ending.cancelled)
            else:
                await self._end(run, error=error)
        except StoreError:
            self._stranded.setdefault(run.id, ending)
            raise
        self._places.leave(run.id, LeaseLost(f"run {run.id!r} was ended before it began"))

    async def _end(self, run: RunRecord, *, error: dict[str, Any] | None = None, cancelled: str = "") -> None:
        capture = self._around.make_capture(run.capture)
        await end_run(self._store, self._bus, self._clock, run, capture, error=error, cancelled=cancelled)

    async def _drop(self, run_id: str, ending: StopRequest) -> None:
        """Forgets a run that was let go and cannot be claimed: it waits, has ended, or is elsewhere."""
        run = await self._store.run(run_id)
        if run is not None and ending.cancelled is not None:
            try:
                await self.cancel_paused(run, reason=ending.cancelled)
            except RunUnreadable as error:
                self.put_aside(run_id, error)
        if self._stranded.get(run_id) is ending:
            del self._stranded[run_id]

    def _begin(
        self,
        run: RunRecord,
        state: ResumeState,
        *,
        owner: str | None = None,
        not_before: str = "",
        outputs: MutableMapping[int, bytes] | None = None,
    ) -> StartedRun:
        if run.id in self._tasks:
            # The lease ran out while it was created, and it has been claimed under the next one.
            return self._started(run)
        owner = owner or self._owner
        queued = self._places.leave(run.id)
        going = RunTask(
            self._around,
            run,
            state,
            owner=owner,
            ending=StopRequest(),
            not_before=not_before,
            outputs=outputs if queued is None else queued.outputs,
        )
        # A run that was accepted at the very moment of a stop waits for the next start, and one that was
        # created under a lease that has run out since for whoever claims it.
        going.ending.left = self._gate.closed or owner != self._owner
        stranded = self._stranded.pop(run.id, None)
        going.ending.cancelled = None if stranded is None else stranded.cancelled
        task = asyncio.create_task(going.walk(), name=f"run {run.id}")
        self._going[run.id], self._tasks[run.id] = going, task
        self._places.hold(run.project_id)
        if queued is not None and not queued.begun.done():
            queued.begun.set_result(task)
        task.add_done_callback(lambda _: self._forget(run.id))
        return self._started(run)

    def _started(self, run: RunRecord) -> StartedRun:
        task = self._tasks[run.id]
        return StartedRun(run.id, run.head, lambda: asyncio.shield(task))

    def _refuse_when_stopping(self) -> None:
        if self._gate.closed:
            raise _stopping()

    async def _leave_all(self) -> None:
        # Again for those that a call has begun meanwhile: nobody may wait for their own end.
        while self._tasks:
            for run_id, going in self._going.items():
                # One that has ended is only being stored: who waits for it must be told the end.
                if not going.ending.requested and not going.ended:
                    going.ending.left = True
                    self._cut_off(run_id)
            await asyncio.wait(list(self._tasks.values()))

    def _cut_off(self, run_id: str) -> None:
        # A task that is cancelled before it begins never runs, and so would never record its end.
        if self._going[run_id].begun:
            self._tasks[run_id].cancel()

    async def _settled(self, run_id: str) -> None:
        """Returns when a stretch that has ended is over: its last event is seen a moment before."""
        going = self._going.get(run_id)
        if going is not None and going.ended:
            await asyncio.wait({self._tasks[run_id]})

    def _forget(self, run_id: str) -> None:
        task, going = self._tasks.pop(run_id), self._going.pop(run_id)
        # Asked for, so that a failure nobody waits for is logged here and not by the garbage collector.
        error = task.exception() if not task.cancelled() else None
        if isinstance(error, StoreError):
            log.error("run %s could not be recorded and is left until it can be: %s", run_id, error)
            self._stranded[run_id] = going.ending
        elif isinstance(error, RunReleased):
            log.info("run %s: %s", run_id, error)
        elif isinstance(error, Exception):
            self.put_aside(run_id, error)
        self._free_place(going.run.project_id)


def _rest_of(rows: Sequence[Checkpoint]) -> tuple[SegmentSpec | None, Pause | None, dict[str, Any]]:
    kept = CheckpointSet(rows)
    return kept.begun, kept.pause, kept.outputs()


def _stopping() -> APIError:
    return api_error("UNAVAILABLE", "the server is being stopped; nothing was started")


def _taken_up(run_id: str) -> APIError:
    return api_error("RUN_NOT_PAUSED", f"run {run_id!r} has been taken up already", execution_id=run_id)
