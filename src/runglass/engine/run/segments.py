"""Paused runs that are resumed: here at once, or by whichever process has a slot for the next segment.

The segment is stored first, and so the run goes on whatever becomes of the process.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from runglass.engine.journal.checkpoints import segment_checkpoint
from runglass.engine.journal.resume import PausedRun, paused_state, time_of
from runglass.engine.journal.run_spec import RunSpec, Segment, SegmentSpec
from runglass.engine.run.active_runs import ActiveRuns, StartedRun
from runglass.engine.run.idle_runs import IdleRuns
from runglass.engine.steps.run_context import EngineContext, LiveOutputs
from runglass.engine.steps.run_limits import StopRequest
from runglass.errors import APIError, CommitUncertain, StoreError, api_error
from runglass.limits.offload import offload
from runglass.store.records import Checkpoint, RunRecord


class NextSegments:
    """Resumes paused runs. `free_slot` gives back a slot that was reserved."""

    def __init__(
        self,
        context: EngineContext,
        active: ActiveRuns,
        idle: IdleRuns,
        *,
        free_slot: Callable[[int], None],
    ) -> None:
        self._store = context.store
        self._active = active
        self._idle = idle
        self._queue = context.limits.runs
        self._free_slot = free_slot

    async def resume(
        self,
        paused: PausedRun,
        spec: RunSpec,
        segment: Segment,
        *,
        outputs: LiveOutputs | None,
        size_bytes: int,
    ) -> StartedRun:
        """Resumes the run as `Engine.resume` does. Raises RUN_NOT_PAUSED, UNAVAILABLE, StoreError."""
        if spec.flow == paused.spec.flow:
            # Callers repeat the overrides that they began with; there is nothing new to tell of those.
            segment = msgspec.structs.replace(segment, block_overrides={})
        if self._active.is_active(paused.run.id):
            raise _taken_up(paused.run.id)
        project_id = paused.run.project_id
        if self._queue.take(project_id):
            try:
                segment_spec = SegmentSpec(spec=spec, segment=segment)
                return await self._resume_here(paused, segment_spec, outputs, size_bytes)
            finally:
                self._free_slot(project_id)
        segment_spec = SegmentSpec(spec=spec, segment=with_stored_content(segment, outputs))
        async with self._idle.admission.of(project_id):
            run = await self._stored(paused, segment_spec, size_bytes, owner=None)
        await self._idle.tell_queued(run)
        return self._active.queued(run)

    async def _resume_here(
        self, paused: PausedRun, segment_spec: SegmentSpec, outputs: LiveOutputs | None, size_bytes: int
    ) -> StartedRun:
        run_id, owner = paused.run.id, self._active.owner
        # Until the segment begins, the run is not let go, and no other call takes it up.
        self._active.resuming.add(run_id)
        try:
            run = await self._stored(paused, segment_spec, size_bytes, owner=owner)
            # Where the store fails now, the run is let go with the next renewal of the lease.
            self._active.orphaned.setdefault(run_id, StopRequest())
            try:
                state = await paused_state(self._store, paused, segment_spec)
                not_before = await time_of(self._store, run, run.head)
            except StoreError as error:
                message = (
                    "the store failed after the run was resumed: it continues, and its trace will show how"
                )
                raise api_error("INTERNAL_ERROR", message, execution_id=run_id) from error
            return self._active.begin(run, state, owner=owner, not_before=not_before, outputs=outputs)
        finally:
            self._active.resuming.discard(run_id)

    async def _stored(
        self, paused: PausedRun, segment_spec: SegmentSpec, size_bytes: int, *, owner: str | None
    ) -> RunRecord:
        """The run once its next segment is in the store."""
        checkpoint = await _checkpoint(segment_spec, size_bytes)
        try:
            run = await self._store.resume_run(paused.run, checkpoint, owner=owner)
        except CommitUncertain as unknown:
            if owner is not None:
                self._active.orphaned.setdefault(paused.run.id, StopRequest())
            message = (
                "the store failed while the run was resumed: it is not known yet whether the run continues"
            )
            raise api_error("INTERNAL_ERROR", message, execution_id=paused.run.id) from unknown
        if run is None:
            raise _taken_up(paused.run.id)
        return run


def with_stored_content(segment: Segment, outputs: LiveOutputs | None) -> Segment:
    """The segment for any process: a caller who is owed content of its events gets that from the store."""
    return segment if outputs is None else msgspec.structs.replace(segment, answers_call=True)


async def _checkpoint(segment_spec: SegmentSpec, size_bytes: int) -> Checkpoint:
    return await offload(partial(segment_checkpoint, segment_spec), size_bytes=size_bytes)


def _taken_up(run_id: str) -> APIError:
    return api_error("RUN_NOT_PAUSED", f"run {run_id!r} has been taken up already", execution_id=run_id)
