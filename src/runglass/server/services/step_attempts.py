"""Which attempts of a step a request is about."""

from functools import partial

from runglass.engine.scheduling.offloading import offload_in_turn
from runglass.errors import api_error
from runglass.server.requests.attempt_selector import choose
from runglass.store.base import Store
from runglass.store.records import AttemptKey, RunRecord


async def chosen_attempts(
    store: Store, run: RunRecord, step_id: str, *, attempt: str, loop_index: str | None
) -> list[AttemptKey]:
    """The attempts that are meant, one at least; see `choose`. Raises STEP_NOT_FOUND."""
    attempt, loop_index = attempt.strip(), loop_index and loop_index.strip()
    keys = await store.attempt_keys(run.no, step_id)
    # A step in a loop may have so many attempts that sorting them would block the event loop.
    chosen = await offload_in_turn(partial(choose, keys, attempt=attempt, loop_index=loop_index))
    if not chosen:
        message = f"run {run.id!r} has no step {step_id!r}"
        if keys:
            which = "attempt" if attempt in ("latest", "all") else f"attempt {attempt}"
            iteration = f" in iteration {loop_index}" if loop_index else ""
            message = f"step {step_id!r} of run {run.id!r} has no {which}{iteration}"
        raise api_error("STEP_NOT_FOUND", message, execution_id=run.id, step_id=step_id)
    return chosen
