"""The end of a run that has no task: it was left paused and cancelled, or cannot be gone on with.

The log is folded on from where it stops. The last event ends the attempts that still run, too: the trace then
tells the truth, and nothing is left running.

A run may keep outputs because it fails, though its capture mode keeps none: see `capture_failed`. They are
read from the checkpoints, which the append that ends the run deletes.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.journal.checkpoints import path_text
from runglass.engine.journal.recorder import Recorder
from runglass.engine.journal.resume import first_segment, last_time, stored_fold
from runglass.engine.payload import Payload
from runglass.engine.steps.call_recorder import charge_lost
from runglass.engine.steps.override_notes import run_input
from runglass.engine.steps.run_context import EngineContext
from runglass.errors import PermanentStoreError, RunUnreadable, StoreError
from runglass.log.events import MOST_KEPT, ContentKept, FlowCancelled, FlowFailed, KeptOutput, RunInput
from runglass.log.fold import DAMAGE, RunFold, StepChange
from runglass.log.trace import ModelReservation, RunSummary, RunTotals, StepStatus, StepTrace
from runglass.store.base import Store, decoding
from runglass.store.records import RunRecord
from runglass.support.lazy_json import encoded
from runglass.wire.run_api import CaptureMode

MOST_BYTES = 4 << 20
"""So much the outputs take in all."""
_STEPS_PAGE_BYTES = 256 * 1024

log = logging.getLogger(__name__)


class KeptOutputs(NamedTuple):
    """Outputs of attempts, and the states of these `before`, whose JSON has `replaced_bytes`."""

    outputs: list[KeptOutput]
    before: Sequence[StepChange]
    replaced_bytes: int

    def record(self, recorder: Recorder) -> None:
        """Adds the event, to travel with the one that follows."""
        for change in self.before:
            recorder.fold.reopen(change)
        # Their rows are written anew, and count once.
        recorder.log_bytes -= self.replaced_bytes
        completed = (recorder.fold.summary.totals or RunTotals()).completed
        if completed:
            recorder.record_with_next(
                ContentKept(
                    execution_id=recorder.run.id, outputs=self.outputs, left_out=completed - len(self.outputs)
                )
            )


async def read_outputs(engine: EngineContext, recorder: Recorder, capture: Capture) -> KeptOutputs | None:
    """The outputs of steps that ended well, as `capture` keeps them: the newest first, while there is room.

    None where one cannot be read: what the run failed of is to be told. Returns when all that was recorded is
    stored. Raises StoreError.
    """
    await recorder.commit()
    try:
        return await _outputs(engine, recorder, capture)
    except RunUnreadable as error:
        log.error("run %s keeps no outputs of its steps: %s", recorder.run.id, error)  # noqa: TRY400
        return None


async def _outputs(engine: EngineContext, recorder: Recorder, capture: Capture) -> KeptOutputs:
    store, run, ended = engine.store, recorder.run, list[tuple[int, StepChange]]()
    after = max(0, recorder.fold.last_position - MOST_KEPT)
    while rows := await store.trace_page(run.no, after=after, limit_bytes=_STEPS_PAGE_BYTES):
        after = rows[-1][0]
        for position, data in rows:
            with decoding(run.id):
                step = msgspec.json.decode(data, type=StepTrace)
            if step.status == "completed":
                ended.append((len(data), StepChange(position, step)))
    outputs: list[KeptOutput] = []
    before: list[StepChange] = []
    replaced_bytes, room = 0, MOST_BYTES
    for row_bytes, change in reversed(ended):
        step = change.step
        size = step.output_size_bytes or 0
        if min(size, capture.limit_bytes) > room:
            continue
        async with engine.memory.working(size):
            checkpoint = await store.checkpoint(run.no, step.step_id, path_text(step.loop_path))
            # A caller who went back made void what came after.
            if checkpoint is None:
                continue
            with decoding(run.id):
                output = Payload.encoded(checkpoint)
                await capture.prepare(output)
                snapshot = capture.snapshot(output)
        kept = bytes(snapshot.data or b"")
        if len(kept) > room:
            continue
        room -= len(kept)
        replaced_bytes += row_bytes
        before.append(change)
        outputs.append(
            KeptOutput(
                step_id=step.step_id,
                loop_index=step.loop_index,
                loop_path=step.loop_path,
                attempt=step.attempt,
                output=encoded(kept),
                truncated=snapshot.truncated,
            )
        )
    return KeptOutputs(outputs[::-1], before, replaced_bytes)


_EVENTS_PAGE_BYTES = 1 << 20


async def end_run(
    engine: EngineContext,
    run: RunRecord,
    *,
    error: dict[str, Any] | None = None,
    cancelled: str = "",
    keeping: CaptureMode | None = None,
) -> str | None:
    """Ends the run as failed with `error`, or as cancelled for the reason `cancelled`.

    A run that fails keeps its outputs in the mode `keeping`. Where its rows cannot be read, it ends as their
    columns have it. Returns the id of the step that it failed in, where there is one. Raises StoreError, and
    WrongExpectedVersion if the run goes on elsewhere.
    """
    store, capture = engine.store, engine.make_capture(run.capture)
    not_before = ""
    with suppress(RunUnreadable):
        not_before = await last_time(store, run)

    async def end(state: RunFold, keeping: CaptureMode | None) -> str | None:
        recorder = Recorder(store, engine.bus, run, state, engine.dependencies.clock, not_before=not_before)
        kept = await read_outputs(engine, recorder, engine.make_capture(keeping)) if keeping else None
        told = None
        is_kept = (
            capture.keeps_snapshots and run.status == "pending" if error is None else capture.keeps_failures
        )
        if is_kept and state.summary.input_preview is None:
            # A run ends also if its request cannot be read.
            with suppress(RunUnreadable):
                if (segment_spec := await first_segment(store, run)) is not None:
                    told = await run_input(run.id, segment_spec.spec, capture, failed=True)
        failed_in = None
        try:
            with decoding(run.id):
                if run.status == "pending":
                    recorder.begin()
                last: FlowCancelled | FlowFailed
                if error is None:
                    last = FlowCancelled(execution_id=run.id, run_id=run.id, reason=cancelled)
                else:
                    running = (
                        each.step.step_id for each in state.open_steps if each.step.status == "running"
                    )
                    failed_in = next(running, None)
                    captured = encoded(capture.error(error))
                    last = FlowFailed(execution_id=run.id, run_id=run.id, error=captured, step_id=failed_in)
                owed = b'"cancelled"' if error is None else msgspec.json.encode(error)
                record_end(recorder, last, owed=owed, kept=kept, told=told)
        except RunUnreadable:
            # What has been recorded so far is not to be sent off.
            recorder.fail(StoreError("the state of the run cannot be read"))
            raise
        await recorder.commit()
        return failed_in

    try:
        return await end(await stored_fold(store, run), keeping if error is not None else None)
    except (RunUnreadable, PermanentStoreError) as damage:
        log.error("run %s is ended as its columns have it: %s", run.id, damage)  # noqa: TRY400
        return await end(await _fold_of_columns(store, run), None)


def record_end(
    recorder: Recorder,
    last: FlowCancelled | FlowFailed,
    *,
    owed: bytes,
    kept: KeptOutputs | None = None,
    told: RunInput | None = None,
) -> None:
    """Records the end of a run that has not completed: what is kept of it, and what its caller is `owed`."""
    charge_lost(recorder, recorder.run.id)
    if kept is not None:
        kept.record(recorder)
    if told is not None:
        # Right before the last event, where readers of a trace look for it.
        recorder.record_with_next(told)
    recorder.set_outcome(error=owed)
    recorder.record(last)


class _StepMark(msgspec.Struct, frozen=True, rename="camel"):
    """What the log, or a step's row, says of a reservation, whatever else is in it."""

    event_type: str = ""
    step_id: str = ""
    loop_path: tuple[int, ...] | None = None
    reservation: ModelReservation | None = None


_mark = msgspec.json.Decoder(_StepMark)
_SETTLING = {
    *("step_model_reserved", "step_started", "step_model_call"),
    *("step_retrying", "step_error", "step_completed"),
}
"""The events after each of which a step has the reservation that the event tells, or none."""


async def _fold_of_columns(store: Store, run: RunRecord) -> RunFold:
    """The state of a run without what its rows keep as JSON, but for what is reserved of a budget."""
    rows, last_position = await store.open_steps(run.no)
    logged: dict[tuple[str, str], ModelReservation | None] = {}
    seq = 0
    while events := await store.events(run.no, after=seq, limit_bytes=_EVENTS_PAGE_BYTES):
        seq = events[-1][0]
        for _, data in events:
            with suppress(*DAMAGE):
                mark = _mark.decode(data)
                if mark.event_type in _SETTLING:
                    logged[mark.step_id, path_text(mark.loop_path)] = mark.reservation
        # A long log is no reason for a stall.
        await asyncio.sleep(0)
    changes = []
    for row in rows:
        reservation = logged.get((row.step_id, row.loop_path))
        with suppress(*DAMAGE):
            reservation = _mark.decode(row.data).reservation
        path = tuple(map(int, row.loop_path.split(","))) if row.loop_path else None
        step = StepTrace(
            step_id=row.step_id,
            attempt=row.attempt,
            loop_index=path[-1] if path else None,
            loop_path=path,
            status=msgspec.convert(row.status, StepStatus),
            reservation=reservation,
        )
        changes.append(StepChange(row.position, step))
    flow = await store.flow(run.flow_id)
    summary = RunSummary(
        id=run.id,
        flow_id=run.flow_id,
        status=run.status,
        trigger_type=run.trigger_type,
        flow_slug=None if flow is None else flow.slug,
        version=run.version,
        session_id=run.session_id,
        unreadable=True,
    )
    return RunFold(summary, open_steps=changes, last_position=last_position)
