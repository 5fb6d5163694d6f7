"""Which attempts of a step a request is about."""

from functools import partial

from runglass.engine.scheduling.offloading import offload
from runglass.engine.scheduling.pacing import paced_read
from runglass.errors import api_error
from runglass.server.requests.attempt_selector import choose
from runglass.store.base import Store
from runglass.store.records import AttemptKey, RunRecord

KEY_BYTES = 256
"""About what a key takes, with what is needed to sort it."""


async def chosen_attempts(
    store: Store, run: RunRecord, step_id: str, *, attempt: str, loop_index: str | None, position: int | None
) -> list[AttemptKey]:
    """The attempts that are meant, one at least. Raises STEP_NOT_FOUND.

    `position` is that of the step in one iteration, as outlines have it: then no other is looked at.
    `loop_index` is `I`, or `I,J` from the outer loop in. With fewer indices than loops it selects by the
    innermost loops: `2` for a step in two loops selects every iteration whose `loopIndex` is 2. For `attempt`
    see `choose`.
    """
    attempt, loop_index = attempt.strip(), loop_index and loop_index.strip()
    at = position
    if at is None and attempt != "all":
        # All others are passed over where they are stored: a step in a loop may have a million attempts.
        newest = partial(store.newest_position, run.no, step_id, loop_index=loop_index)
        at = await paced_read(run.project_id, newest, size_bytes=run.log_bytes)
    keys = []
    if at is not None or attempt == "all":
        read = partial(store.attempt_keys, run.no, step_id, position=at, loop_index=loop_index)
        keys = await paced_read(run.project_id, read, size_bytes=run.log_bytes)
    chosen = await offload(partial(choose, keys, attempt=attempt), size_bytes=len(keys) * KEY_BYTES)
    if not chosen:
        message = f"run {run.id!r} has no step {step_id!r}"
        if keys or await store.newest_position(run.no, step_id) is not None:
            which = "attempt" if attempt in ("latest", "all") else f"attempt {attempt}"
            iteration = f" in iteration {loop_index}" if loop_index else ""
            place = f" at position {position}" if position else ""
            message = f"step {step_id!r} of run {run.id!r} has no {which}{iteration}{place}"
        raise api_error("STEP_NOT_FOUND", message, execution_id=run.id, step_id=step_id)
    return chosen
