"""The end of a run that has no task: it was left paused and cancelled, or cannot be gone on with.

The log is folded on from where it stops. The last event ends the attempts that still run, too: the trace then
tells the truth, and nothing is left running.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import msgspec

from runglass.engine.journal.checkpoints import path_text
from runglass.engine.journal.resume import ResumeState, first_segment, stored_fold, time_of
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.run.content import KeptOutputs, lacks_input, read_outputs, run_input
from runglass.engine.steps.call_recorder import lost_call
from runglass.engine.steps.run_context import EngineContext
from runglass.errors import PermanentStoreError, RunUnreadable, StoreError
from runglass.flows.flow import find_step
from runglass.log.events import FlowCancelled, FlowFailed, RunInput, StepModelCall
from runglass.log.fold import DAMAGE, Address, RunFold, StepChange
from runglass.log.trace import ModelReservation, RunSummary, StepStatus, StepTrace
from runglass.store.base import Store, decoding
from runglass.store.records import RunRecord
from runglass.support.lazy_json import encoded
from runglass.wire.run_api import CaptureFailed

log = logging.getLogger(__name__)


_EVENTS_PAGE_BYTES = 1 << 20


async def end_run(
    engine: EngineContext,
    run: RunRecord,
    *,
    error: dict[str, Any] | None = None,
    cancelled: str = "",
    capture_failed: CaptureFailed = "off",
    left: ResumeState | None = None,
) -> str | None:
    """Ends the run as failed with `error`, or as cancelled for the reason `cancelled`.

    `left` is the state in which a process left it, where that is known. A run that fails keeps its outputs
    as `capture_failed` has it. Where its rows cannot be read, it ends as their columns have it. Returns the
    id of the step that it failed in, where there is one. Raises StoreError, and WrongExpectedVersion if the
    run goes on elsewhere.
    """
    store, capture = engine.store, engine.make_capture(run.capture, capture_failed)
    not_before = ""
    with suppress(RunUnreadable):
        not_before = await time_of(store, run, run.head)

    async def end(state: RunFold, *, is_readable: bool) -> str | None:
        writer = RunWriter(store, engine.bus, run, state, engine.dependencies.clock, not_before=not_before)
        has_failed = error is not None
        kept = await read_outputs(engine, writer, capture) if has_failed and is_readable else None
        told = None
        if (has_failed or run.status == "pending") and lacks_input(writer, capture, failed=has_failed):
            # A run ends also if its request cannot be read.
            with suppress(RunUnreadable):
                if (segment_spec := await first_segment(store, run)) is not None:
                    told = await run_input(writer, segment_spec.spec, capture, failed=has_failed)
        failed_in = None
        try:
            with decoding(run.id):
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
                record_end(writer, last, owed=owed, kept=kept, told=told, left=left)
        except RunUnreadable:
            # What has been recorded so far is not to be sent off.
            writer.fail(StoreError("the state of the run cannot be read"))
            raise
        await writer.commit()
        return failed_in

    try:
        return await end(await stored_fold(store, run), is_readable=True)
    except (RunUnreadable, PermanentStoreError) as damage:
        log.error("run %s is ended as its columns have it: %s", run.id, damage)  # noqa: TRY400
        return await end(await _fold_of_columns(store, run), is_readable=False)


def record_end(
    writer: RunWriter,
    last: FlowCancelled | FlowFailed,
    *,
    owed: bytes,
    kept: KeptOutputs | None = None,
    told: RunInput | None = None,
    left: ResumeState | None = None,
) -> None:
    """Records the end of a run that has not completed: what is kept of it, and what its caller is `owed`."""
    if not writer.head:
        writer.begin()
    record_lost_calls(writer, left)
    if kept is not None:
        kept.record(writer)
    if told is not None:
        # Right before the last event, where readers of a trace look for it.
        writer.record_with_next(told)
    writer.set_outcome(error=owed)
    writer.record(last)


def record_lost_calls(writer: RunWriter, left: ResumeState | None) -> None:
    """Records the calls whose end no process has recorded, before the run's end frees their reservations.

    Only the state in which a process has `left` the run tells of calls that were not reserved.
    """
    for _, step in writer.fold.open_steps:
        call = lost_call(None, step)
        if left is not None and step.status == "running":
            before = left.interrupted.get(Address(step.step_id, step.loop_path))
            if before is not None and before.change.step.attempt == step.attempt:
                flow_step = find_step(left.segment_spec.spec.flow, step.step_id)
                # Columns do not tell of calls.
                told = max(step, before.change.step, key=lambda each: len(each.model_calls))
                call = lost_call(flow_step, told, left.tool_loop)
        if call is not None:
            writer.record(
                StepModelCall(
                    execution_id=writer.run.id,
                    step_id=step.step_id,
                    attempt=step.attempt,
                    loop_index=step.loop_index,
                    loop_path=step.loop_path,
                    model_call=call,
                )
            )


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
