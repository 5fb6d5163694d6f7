"""Requests to models that were reserved, and whose end no process has recorded."""

from runglass.engine.journal.recorder import Recorder
from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.steps.call_recorder import lost_call
from runglass.log.events import StepModelCall


def charge_lost(recorder: Recorder, run_id: str) -> None:
    """Records them, each with its reservation as its cost. Called before a run ends, which frees the rest."""
    if not recorder.fold.reserved_usd:
        return
    for _, step in recorder.fold.open_steps:
        if (reservation := step.reservation) is not None:
            call = lost_call(
                reservation.model, reservation.number, error_code=WORKER_LOST, reservation=reservation
            )
            recorder.record(
                StepModelCall(
                    execution_id=run_id,
                    step_id=step.step_id,
                    attempt=step.attempt,
                    loop_index=step.loop_index,
                    loop_path=step.loop_path,
                    model_call=call,
                )
            )
