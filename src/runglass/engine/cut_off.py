"""The end of a run that nobody runs any more: its process died, its store failed, or it was left paused.

What the log says is folded on from where it stops: the attempts that were going on are recorded as failed,
then the run as ended. The trace then tells the truth, and nothing is left running.
"""

import logging
from typing import Any

import msgspec

from runglass.bus.base import Bus
from runglass.clock import Clock
from runglass.engine.plan import Plan
from runglass.engine.recorder import Recorder
from runglass.events import FlowCancelled, FlowFailed, RunStarted, StepError
from runglass.flow import find_step, step_count, step_index
from runglass.fold import RunFold, StepChange
from runglass.lazy import encoded
from runglass.store.base import RunRecord, Store
from runglass.trace import RunSummary, StepTrace

log = logging.getLogger(__name__)


async def end_cut_off(
    store: Store,
    bus: Bus,
    clock: Clock,
    run: RunRecord,
    plan: Plan | None,
    error: dict[str, Any],
    *,
    cancelled: str | None = None,
) -> None:
    """Ends the run as failed with `error`, or as cancelled for the reason `cancelled`.

    Without `plan`, where that cannot be read any more, names and positions of its steps are left out.
    Raises StoreError, HeadMismatch if the run goes on elsewhere.
    """
    rows, last_position = await store.open_steps(run.no)
    open_steps = [StepChange(row.position, msgspec.json.decode(row.data, type=StepTrace)) for row in rows]
    summary = msgspec.json.decode(run.summary, type=RunSummary)
    state = RunFold(summary, open_steps=open_steps, last_position=last_position)
    recorder = Recorder(store, bus, run, state, clock, not_before=await _last_time(store, run))
    recorded = msgspec.json.encode(error)
    if run.status == "pending":
        recorder.record(_started(run, summary, plan))
    for change in open_steps:
        step = change.step
        found = find_step(plan.flow, step.step_id) if plan else None
        recorder.record(
            StepError(
                execution_id=run.id,
                step_id=step.step_id,
                name=found.name if found else None,
                step_index=step_index(plan.flow, step.step_id) if plan and found else 0,
                attempt=step.attempt,
                loop_index=step.loop_index,
                loop_path=step.loop_path,
                error=encoded(recorded),
                tokens=step.tokens,
                cost_usd=step.cost_usd,
                model_used=step.model_used,
            )
        )
    if cancelled is not None:
        recorder.owe(error=b'"cancelled"')
        recorder.record(FlowCancelled(execution_id=run.id, run_id=run.id, reason=cancelled))
    else:
        recorder.owe(error=recorded)
        lost_step = open_steps[0].step.step_id if open_steps else None
        failed = FlowFailed(execution_id=run.id, run_id=run.id, error=encoded(recorded), step_id=lost_step)
        recorder.record(failed)
    await recorder.commit()
    log.warning("run %s was cut off and has been ended: %s", run.id, error["message"])


async def _last_time(store: Store, run: RunRecord) -> str:
    """When the last event of the log was recorded; no later one may be earlier."""
    last = await store.events(run.no, after=run.head - 1, limit_bytes=1) if run.head else []
    return str(msgspec.json.decode(last[0][1])["at"]) if last else ""


def _started(run: RunRecord, summary: RunSummary, plan: Plan | None) -> RunStarted:
    return RunStarted(
        execution_id=run.id,
        run_id=run.id,
        flow_id=run.flow_id,
        step_count=step_count(plan.flow) if plan else summary.step_count or 0,
        trigger_type=summary.trigger_type or "api",
        version=run.version,
    )
