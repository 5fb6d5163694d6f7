"""The end of a run that has no task: it was left paused and cancelled, or cannot be gone on with.

The log is folded on from where it stops. The last event ends the attempts that still run, too: the trace then
tells the truth, and nothing is left running.
"""

from contextlib import suppress
from typing import Any

import msgspec

from runglass.bus.base import Bus
from runglass.clock import Clock
from runglass.engine.capture.capture import Capture
from runglass.engine.journal.recorder import Recorder
from runglass.engine.journal.resume import begun_first, last_time, stored_fold
from runglass.engine.kept_outputs import read_outputs
from runglass.engine.scheduling.memory_budget import MemoryBudget
from runglass.engine.steps.orphaned_calls import charge_lost
from runglass.engine.steps.override_notes import run_input
from runglass.errors import RunUnreadable
from runglass.events import FlowCancelled, FlowFailed
from runglass.lazy_json import encoded
from runglass.store.base import Store
from runglass.store.records import RunRecord


async def end_run(
    store: Store,
    bus: Bus,
    clock: Clock,
    memory: MemoryBudget,
    run: RunRecord,
    capture: Capture,
    *,
    error: dict[str, Any] | None = None,
    cancelled: str = "",
    keeping: Capture | None = None,
) -> str | None:
    """Ends the run as failed with `error`, or as cancelled for the reason `cancelled`.

    A run that fails keeps its outputs as `keeping` does. Returns the id of the step that it failed in, where
    there is one. Raises StoreError, RunUnreadable, and WrongExpectedVersion if the run goes on elsewhere.
    """
    state = await stored_fold(store, run)
    failed_in = None
    recorder = Recorder(store, bus, run, state, clock, not_before=await last_time(store, run))
    kept = await read_outputs(store, recorder, keeping, memory) if error is not None and keeping else None
    told = None
    is_kept = capture.keeps_snapshots and run.status == "pending" if error is None else capture.keeps_failures
    if is_kept and state.summary.input_preview is None:
        # A run ends also if its request cannot be read.
        with suppress(RunUnreadable):
            if (begun := await begun_first(store, run)) is not None:
                told = await run_input(run.id, begun.plan, capture, failed=True)
    if run.status == "pending":
        recorder.begin()
    charge_lost(recorder, run.id)
    if kept is not None:
        kept.record(recorder)
    if told is not None:
        # Right before the last event, where readers of a trace look for it.
        recorder.record_with_next(told)
    if error is None:
        recorder.set_outcome(error=b'"cancelled"')
        recorder.record(FlowCancelled(execution_id=run.id, run_id=run.id, reason=cancelled))
    else:
        running = [change.step.step_id for change in state.open_steps if change.step.status == "running"]
        failed_in = running[0] if running else None
        recorder.set_outcome(error=msgspec.json.encode(error))
        recorder.record(
            FlowFailed(
                execution_id=run.id,
                run_id=run.id,
                error=encoded(capture.error(error)),
                step_id=failed_in,
            )
        )
    await recorder.commit()
    return failed_in
