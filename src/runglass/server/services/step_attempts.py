"""Which attempts of a step a request is about, and an attempt without what of it is large."""

import heapq
from collections.abc import Sequence
from functools import partial

import msgspec

from runglass.errors import api_error
from runglass.limits.offload import offload
from runglass.limits.pace import paced_read
from runglass.server.http.response_stream import PART_BYTES, Pages
from runglass.server.services.run_content import checked_objects
from runglass.store.records import AttemptKey, RunRecord
from runglass.store.run_logs import RunLog

KEY_BYTES = 256
"""About what a key takes, with what is needed to sort it."""
PAGE_ATTEMPTS = 1000
"""The most attempts in one read, which limits the time for many small ones."""
SLICE_ROWS = 4096
"""Rows that are sorted in one go, which lets no other thread in: some milliseconds."""

PARTS = {"inputContext": "input", "outputContext": "output", "errorContext": "error"}
CALLS = "modelCalls"
SAID = ("request", "response")
"""What of a model call is content."""


async def chosen_attempts(
    store: RunLog, run: RunRecord, step_id: str, *, attempt: str, loop_index: str | None, position: int | None
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
            where = f" at position {position}" if position else ""
            message = f"step {step_id!r} of run {run.id!r} has no {which}{iteration}{where}"
        raise api_error("STEP_NOT_FOUND", message, execution_id=run.id, step_id=step_id)
    return chosen


def choose(keys: Sequence[AttemptKey], *, attempt: str) -> list[AttemptKey]:
    """Those that the parameter selects, empty if there are none.

    `attempt` is `all`, which sorts by iteration and attempt number, or `latest` or a number, for which `keys`
    are those of one iteration, in their order.
    """
    if attempt == "all":
        slices = range(0, len(keys), SLICE_ROWS)
        return list(heapq.merge(*(sorted(keys[at : at + SLICE_ROWS], key=_key) for at in slices), key=_key))
    if attempt == "latest":
        return list(keys[-1:])
    return [key for key in keys if key.attempt == int(attempt)]


def _key(key: AttemptKey) -> tuple[tuple[int, ...], int]:
    return tuple(map(int, key.loop_path.split(","))) if key.loop_path else (), key.attempt


async def attempt_pages(store: RunLog, run: RunRecord, keys: Sequence[AttemptKey]) -> Pages:
    """The StepTraces of these attempts as JSON, in pages. Raises StoreError, RunUnreadable."""
    done = 0
    while done < len(keys):
        wanted = keys[done : done + PAGE_ATTEMPTS]
        read = partial(store.attempt_data, run.no, wanted, limit_bytes=PART_BYTES)
        page = await paced_read(run.project_id, read, size_bytes=run.log_bytes)
        done += len(page)
        yield checked_objects(run, page)


def without_large_parts(data: bytes, most_bytes: int) -> bytes:
    """A StepTrace in JSON; parts of more bytes are left out, and `leftOut` says how many each takes.

    That is as much as a page shows before anybody asks for the rest. Of model calls what was sent and what
    came back is left out together. Raises msgspec.DecodeError.
    """
    if len(data) <= most_bytes:
        return data
    members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    sizes = {name: len(bytes(raw)) for name, raw in members.items()}
    left = {part: sizes[name] for name, part in PARTS.items() if sizes.get(name, 0) > most_bytes}
    for name, part in PARTS.items():
        if part in left:
            del members[name]
    if sizes.get(CALLS, 0) > most_bytes:
        left[CALLS] = sizes[CALLS]
        calls = msgspec.json.decode(members[CALLS], type=list[dict[str, msgspec.Raw]])
        bare = [{name: raw for name, raw in call.items() if name not in SAID} for call in calls]
        members[CALLS] = msgspec.Raw(msgspec.json.encode(bare))
    if not left:
        return data
    return msgspec.json.encode(members | {"leftOut": left})
