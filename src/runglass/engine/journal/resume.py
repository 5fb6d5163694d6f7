"""Where a segment begins: at the start of a run, after a pause, or where a process that died left off."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

from runglass.engine.journal.checkpoints import CheckpointSet, size_of
from runglass.engine.journal.run_spec import Pause, RunSpec, SegmentSpec, ToolLoopState
from runglass.limits.offload import offload
from runglass.log.fold import Address, RunFold, StepChange
from runglass.log.trace import StepTrace
from runglass.store.base import decoding, summary_of
from runglass.store.records import RunRecord, StepRow
from runglass.store.run_logs import RunLog

WORKER_LOST = "WORKER_LOST"


class PausedRun(NamedTuple):
    """A run that waits, with all that is needed to take it up again.

    `step_inputs` are those of the segment before the pause, `output_bytes` what its checkpoints measure.
    """

    run: RunRecord
    spec: RunSpec
    pause: Pause
    outputs: dict[str, Any]
    step_inputs: dict[str, dict[str, Any]]
    output_bytes: int = 0


class InterruptedAttempt(NamedTuple):
    """A step whose latest attempt was not ended, or not followed by the next one, by the process it was in.

    `failures` counts the attempts that failed by themselves, and `crashes` those that were interrupted
    before, since the step last ended well; `since` is when the first interrupted one began.
    """

    change: StepChange
    failures: int
    crashes: int
    since: str


class ResumeState(NamedTuple):
    """The state from which a segment goes on.

    `tool_loop` is the one that it goes on with, `abandoned_loop` one whose caller went back before its step.
    `outputs` are those by step id before the segment, `checkpoints` the finished steps of the segment itself.
    `earlier` are steps that may be run once more though they have ended: `reached` is how far they go.
    `iterations` and `output_bytes` are the parts of its limits that the run has used, but for those that the
    walk counts once more. `request_bytes` is about the size of the inputs as JSON.
    """

    segment_spec: SegmentSpec
    fold: RunFold
    tool_loop: ToolLoopState | None = None
    abandoned_loop: ToolLoopState | None = None
    outputs: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default, never changed
    checkpoints: CheckpointSet = CheckpointSet()
    reached: int = 0
    earlier: Mapping[Address, StepChange] = {}
    interrupted: Mapping[Address, InterruptedAttempt] = {}
    iterations: int = 0
    output_bytes: int = 0
    request_bytes: int = 0


def new_state(run: RunRecord, segment_spec: SegmentSpec, *, request_bytes: int = 0) -> ResumeState:
    """Of a run that has not begun. Raises RunUnreadable."""
    return ResumeState(segment_spec, RunFold(summary_of(run)), request_bytes=request_bytes)


async def paused_state(
    store: RunLog,
    run: RunRecord,
    segment_spec: SegmentSpec,
    pause: Pause,
    outputs: dict[str, Any],
    output_bytes: int,
) -> ResumeState:
    """Of a run that goes on after its pause. Raises StoreError, RunUnreadable."""
    first = segment_spec.segment.first
    earlier = await store.steps(run.no) if first < pause.reached else []
    with decoding(run.id):
        changes = list(map(step_change, earlier))
    return ResumeState(
        segment_spec,
        await stored_fold(store, run),
        tool_loop=pause.tool_loop if first == pause.cursor else None,
        abandoned_loop=None if first == pause.cursor else pause.tool_loop,
        outputs=outputs,
        reached=pause.reached,
        earlier={_address(change): change for change in changes},
        iterations=pause.iterations,
        output_bytes=output_bytes,
    )


async def left_state(store: RunLog, run: RunRecord) -> ResumeState | None:
    """The state of a run that was begun and left off; None where its request is not known any more.

    Raises StoreError, RunUnreadable.
    """
    if run.status == "pending":
        # It has no checkpoints yet.
        segment_spec = await first_segment(store, run)
        return None if segment_spec is None else new_state(run, segment_spec)
    with decoding(run.id):
        rows = await store.checkpoints(run.no)
        checkpoints = await offload(partial(CheckpointSet, rows), size_bytes=size_of(rows))
        await offload(checkpoints.check, size_bytes=size_of(rows))
        segment_spec, pause, outputs = await offload(checkpoints.decoded, size_bytes=size_of(rows))
        segment_spec = segment_spec or await first_segment(store, run)
        if segment_spec is None or (run.status == "paused" and pause is None):
            return None
        pause = pause or Pause(cursor=0)
        state = await paused_state(store, run, segment_spec, pause, outputs, size_of(rows))
        if run.status == "paused":
            return state
        interrupted = {}
        for change in state.fold.open_steps:
            step = change.step
            if not checkpoints.holds(step.step_id, step.loop_path):
                attempts = [step]
                if step.attempt > 1:
                    rows_of_step = await store.attempts_at(run.no, change.position)
                    attempts = [step_change(row).step for row in rows_of_step]
                interrupted[_address(change)] = _interrupted(change, attempts)
        # The attempt of an abandoned loop is one of the interrupted ones, if it has not been ended.
        return state._replace(abandoned_loop=None, checkpoints=checkpoints, interrupted=interrupted)


async def first_segment(store: RunLog, run: RunRecord) -> SegmentSpec | None:
    """Specification and first segment of a run that has not ended. Raises StoreError, RunUnreadable."""
    request = await store.request(run.no)
    if request is None:
        return None
    with decoding(run.id):
        return await offload(partial(msgspec.json.decode, request, type=SegmentSpec), size_bytes=len(request))


async def stored_fold(store: RunLog, run: RunRecord) -> RunFold:
    """The state of the run after its last event. Raises StoreError, RunUnreadable."""
    rows, last_position = await store.open_steps(run.no)
    with decoding(run.id):
        return RunFold(summary_of(run), open_steps=map(step_change, rows), last_position=last_position)


async def time_of(store: RunLog, run: RunRecord, seq: int) -> str:
    """When the event with this seq was recorded; empty for seq 0. No later one may be earlier.

    Raises StoreError, RunUnreadable.
    """
    if not seq:
        return ""
    events = await store.events(run.no, after=seq - 1, limit_bytes=1)
    with decoding(run.id):
        at = msgspec.json.decode(events[0][1], type=_Dated).at
        datetime.fromisoformat(at)
        return at


class _Dated(msgspec.Struct, frozen=True):
    at: str


def step_change(row: StepRow) -> StepChange:
    """The state of a step as its row has it."""
    return StepChange(row.position, msgspec.json.decode(row.data, type=StepTrace))


def _interrupted(change: StepChange, attempts: list[StepTrace]) -> InterruptedAttempt:
    failures = crashes = 0
    since = change.step.started_at or ""
    for step in reversed(attempts):
        if step.status == "completed":
            break
        if step.status == "failed":
            if (step.error_context or {}).get("code") != WORKER_LOST:
                failures += 1
                continue
            crashes += 1
        since = step.started_at or since
    return InterruptedAttempt(change, failures, crashes, since)


def _address(change: StepChange) -> Address:
    return Address(change.step.step_id, change.step.loop_path)
