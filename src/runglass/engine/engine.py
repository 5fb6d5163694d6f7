"""Starts runs, owns them while they go on, and sees to it that each of them ends.

A run belongs to the engine and not to its caller: a caller that hangs up does not end it. Between two
segments a paused run has no owner; it waits in the store until it is taken up again or cancelled. A run
whose engine is gone goes on with the engine that claims it.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Self

import msgspec

from runglass.bus.base import Bus
from runglass.engine.capture.capture import Capture
from runglass.engine.journal.checkpoints import segment_checkpoint
from runglass.engine.journal.resume import PausedRun, new_state, paused_state, time_of
from runglass.engine.journal.run_spec import RunSpec, Segment, SegmentSpec
from runglass.engine.models.budget import Budgets
from runglass.engine.run.active_runs import ActiveRuns, StartedRun
from runglass.engine.run.claims import RunClaims
from runglass.engine.run.idle_runs import IdleRuns, RunIds
from runglass.engine.steps.run_context import EngineContext, LiveOutputs, StepDependencies
from runglass.engine.steps.run_limits import DrainGate, StopRequest
from runglass.errors import APIError, CommitUncertain, StoreError, api_error
from runglass.limits.limits import Limits
from runglass.limits.offload import offload
from runglass.store.base import Store
from runglass.store.leases import UNTOLD, ProcessFacts
from runglass.store.records import FlowRecord, IdempotencyKey, NewRun, RunRecord
from runglass.wire.run_api import CaptureFailed, CaptureMode

log = logging.getLogger(__name__)


class Engine:
    """Runs flows. `make_capture` gives the capture for two modes; `dependencies` are shared by all runs.

    The engine's runs are its own for a lease at a time, which `claims` keeps. `limits` say how many go on and
    how many wait. A run that has no slot here at once goes to whichever process on the store claims it; one
    that does not execute runs has no slots. What others ask for is seen after `poll_s` where the bus has lost
    it.
    """

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        dependencies: StepDependencies,
        make_capture: Callable[[CaptureMode, CaptureFailed], Capture],
        limits: Limits,
        process: ProcessFacts = UNTOLD,
        poll_s: float = 1.0,
    ) -> None:
        self.limits = limits
        self.queue = limits.runs
        self._store = store
        self.gate = DrainGate()
        self.ids = RunIds(dependencies.clock)
        context = EngineContext(
            store=store,
            bus=bus,
            dependencies=dependencies,
            make_capture=make_capture,
            limits=limits,
            gate=self.gate,
            budgets=Budgets(store, dependencies.clock),
        )
        self.active = ActiveRuns(context, free_slot=self._free_slot, poll_s=poll_s)
        self.idle = IdleRuns(context, self.active, poll_s=poll_s)
        self.claims = RunClaims(context, self.active, self.idle, process=process, poll_s=poll_s)

    async def __aenter__(self) -> Self:
        await self.claims.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def stop(self, *, grace_s: float = 0.0) -> None:
        """Takes no more runs; lets steps that go on end for `grace_s` seconds, then leaves the runs.

        The process that claims them next, be it after a restart, goes on with them.
        """
        if self.gate.closed and not self.active.tasks:
            return
        if self.gate.inside and grace_s:
            log.info("stopping: %d steps have up to %g s to end", self.gate.inside, grace_s)
        await self.gate.close(grace_s)
        await self.claims.release()
        await self.claims.close()

    async def start(
        self,
        record: FlowRecord,
        spec: RunSpec,
        segment: Segment | None = None,
        *,
        run_id: str,
        session_id: str | None = None,
        call: IdempotencyKey | None = None,
        outputs: LiveOutputs | None = None,
        size_bytes: int = 0,
        key_id: int | None = None,
        started_by: str | None = None,
    ) -> StartedRun:
        """Creates the run and lets it go on, or wait for its turn. When this returns, the run can be read.

        `run_id` is the newest of `ids`. `outputs`, if given, gets the outputs and errors that the log may not
        keep, by seq. Raises StoreError, DuplicateIdempotencyKey where `call` has been made before, and
        UNAVAILABLE where too many wait.
        """
        self._refuse_when_stopping()
        project_id, segment = record.project_id, segment or Segment()

        async def create(segment: Segment, *, owner: str | None) -> tuple[RunRecord, SegmentSpec]:
            segment_spec = SegmentSpec(spec=spec, segment=segment)
            new = NewRun(
                id=run_id,
                project_id=project_id,
                flow_id=record.id,
                version=spec.version,
                trigger_type=spec.trigger_type,
                capture=spec.capture,
                session_id=session_id,
                request=await offload(partial(msgspec.json.encode, segment_spec), size_bytes=size_bytes),
                summary=msgspec.json.encode(spec.summary(run_id, record.id, session_id, started_by)),
                # In the queue it has no owner: the first process with a slot for it may claim it.
                owner=owner,
                call=call,
                key_id=key_id,
            )
            return await self.idle.create(new), segment_spec

        if self.queue.take(project_id):
            owner = self.active.owner
            try:
                run, segment_spec = await create(segment, owner=owner)
                state = new_state(run, segment_spec, request_bytes=size_bytes)
                return self.active.begin(run, state, owner=owner, outputs=outputs)
            finally:
                self._free_slot(project_id)
        async with self.idle.admission.of(project_id):
            run, _ = await create(with_stored_content(segment, outputs), owner=None)
        await self.idle.tell_queued(run)
        self.claims.fill()
        return self.active.queued(run)

    async def resume(
        self,
        paused: PausedRun,
        spec: RunSpec,
        segment: Segment,
        *,
        call: IdempotencyKey | None = None,
        outputs: LiveOutputs | None = None,
        size_bytes: int = 0,
    ) -> StartedRun:
        """Walks a further segment of a paused run; `spec` is its own, or that with overrides.

        The segment is stored first, and so the run goes on whatever becomes of the process. Raises
        RUN_NOT_PAUSED if another call has taken it up, DuplicateIdempotencyKey, UNAVAILABLE where too many
        wait, StoreError.
        """
        self._refuse_when_stopping()
        if spec.flow == paused.spec.flow:
            # Callers repeat the overrides that they began with; there is nothing new to tell of those.
            segment = msgspec.structs.replace(segment, block_overrides={})
        run_id, project_id = paused.run.id, paused.run.project_id
        if self.active.is_active(run_id):
            raise _taken_up(run_id)
        if not self.queue.take(project_id):
            segment_spec = SegmentSpec(spec=spec, segment=with_stored_content(segment, outputs))
            async with self.idle.admission.of(project_id):
                run = await self._next_stored(paused, segment_spec, call, size_bytes, owner=None)
            await self.idle.tell_queued(run)
            self.claims.fill()
            return self.active.queued(run)
        segment_spec = SegmentSpec(spec=spec, segment=segment)
        # Until the segment begins, the run is not let go, and no other call takes it up.
        self.active.resuming.add(run_id)
        try:
            owner = self.active.owner
            run = await self._next_stored(paused, segment_spec, call, size_bytes, owner=owner)
            # Where the store fails now, the run is let go with the next renewal of the lease.
            self.active.orphaned.setdefault(run_id, StopRequest())
            try:
                state = await paused_state(
                    self._store, paused.run, segment_spec, paused.pause, paused.outputs, paused.output_bytes
                )
                not_before = await time_of(self._store, run, run.head)
            except StoreError as error:
                message = (
                    "the store failed after the run was resumed: it continues, and its trace will show how"
                )
                raise api_error("INTERNAL_ERROR", message, execution_id=run_id) from error
            return self.active.begin(run, state, owner=owner, not_before=not_before, outputs=outputs)
        finally:
            self.active.resuming.discard(run_id)
            self._free_slot(project_id)

    async def _next_stored(
        self,
        paused: PausedRun,
        segment_spec: SegmentSpec,
        call: IdempotencyKey | None,
        size_bytes: int,
        *,
        owner: str | None,
    ) -> RunRecord:
        """The run once its next segment is in the store."""
        checkpoint = await offload(partial(segment_checkpoint, segment_spec), size_bytes=size_bytes)
        try:
            run = await self._store.resume_run(paused.run, checkpoint, owner=owner, call=call)
        except CommitUncertain as unknown:
            if owner is not None:
                self.active.orphaned.setdefault(paused.run.id, StopRequest())
            message = (
                "the store failed while the run was resumed: it is not known yet whether the run continues"
            )
            raise api_error("INTERNAL_ERROR", message, execution_id=paused.run.id) from unknown
        if run is None:
            raise _taken_up(paused.run.id)
        return run

    def _free_slot(self, project_id: int) -> None:
        self.queue.give_back(project_id)
        self.claims.fill()

    def _refuse_when_stopping(self) -> None:
        if self.gate.closed:
            raise api_error("UNAVAILABLE", "the server is being stopped; nothing was started")


def with_stored_content(segment: Segment, outputs: LiveOutputs | None) -> Segment:
    """The segment for any process: a caller who is owed content of its events gets that from the store."""
    return segment if outputs is None else msgspec.structs.replace(segment, answers_call=True)


def _taken_up(run_id: str) -> APIError:
    return api_error("RUN_NOT_PAUSED", f"run {run_id!r} has been taken up already", execution_id=run_id)
