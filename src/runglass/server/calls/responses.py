"""Responses of calls whose caller waits for the run, or hears that it is queued; now, or in a repeat."""

import asyncio
import time
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
from starlette.responses import Response

from runglass.bus.base import progress_of
from runglass.engine.models.model_types import both_spellings
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.task import LeaseLost, RunOutcome, RunReleased
from runglass.errors import APIError, StoreUnreachable, api_error
from runglass.limits.offload import offload_in_turn
from runglass.log.events import TERMINAL_EVENTS
from runglass.runtime.runtime import Runtime, Submitted
from runglass.server.calls.call import Call, StoredResponse
from runglass.server.calls.idempotency import earlier_answer, keep
from runglass.server.calls.run_failure import RunFailure, answer_expired, failure_of, require_outcome
from runglass.server.http.error_responses import error_body, once_started
from runglass.server.http.open_responses import while_allowed, while_awaited
from runglass.server.security.authentication import lost_run, no_run
from runglass.store.base import summary_of
from runglass.store.records import IdempotencyRecord, RunRecord
from runglass.wire.run_api import CompletedResult, JobAccepted, ToolCallsRequired

REST_EVENTS = TERMINAL_EVENTS | {"step_paused", "step_paused_for_tool_calls"}
"""Events after which a run goes on only if a call resumes it."""

AGAIN_S = 0.5
"""How soon a database that is away is asked again."""

QUEUED = frozenset({"job", "replay"})
"""The triggers of runs whose caller does not wait for them."""


def accepted(
    call: Call, run_id: str, flow_id: str, block_count: int, rerun_of: str | None = None
) -> StoredResponse:
    """The response to a call whose run goes on without it."""
    body = JobAccepted(
        execution_id=run_id,
        status="pending",
        flow_id=flow_id,
        block_count=block_count,
        rerun_of=rerun_of,
        session_id=call.session_id,
    )
    return StoredResponse(202, msgspec.json.encode(body))


async def outcome_of(call: Call, submitted: Submitted) -> StoredResponse:
    """The response, once the segment has ended in this process or another. Raises APIError."""
    started = submitted.run
    # To wait for a run that may be executed elsewhere is of use to the caller alone.
    waiting = while_allowed if started.queued is None else while_awaited
    try:
        with once_started(started.id):
            outcome = await waiting(call.request, started.id, _awaited(started))
    except LeaseLost as lost:
        with once_started(started.id):
            run = started.queued or await call.runtime.store.run(started.id)
            if run is None:
                raise lost_run(started.id) from lost
            # While the segment has not begun, the run is still in the pause before it.
            beyond = started.head if run.is_resuming else -1
            outcome = await _stored_outcome(call, run, beyond=beyond)
    except RunReleased as left:
        raise _released(call, started.id) from left
    except APIError as error:
        if error.code != "UNAVAILABLE":
            raise
        raise _released(call, started.id) from error
    return await _response(call, started.id, submitted.flow_id, submitted.block_count, outcome)


async def replay(call: Call) -> Response:
    """The response to a repeat of a call that ends in one response. Raises APIError."""
    before = call.before
    if isinstance(before, IdempotencyRecord):
        with once_started(before.run_id):
            before = await _repeated(call, before)
    assert before is not None
    return before.replayed()


async def _repeated(call: Call, before: IdempotencyRecord) -> StoredResponse:
    run = await earlier_answer(call, before)
    if isinstance(run, StoredResponse):
        return run
    summary = summary_of(run)
    block_count = summary.step_count or 0
    call.session_id = run.session_id
    if run.trigger_type in QUEUED:
        # Whatever its status: the response said that the run was queued.
        await require_outcome(call.runtime.store, run)
        return accepted(call, run.id, run.flow_id, block_count, summary.rerun_of)
    outcome = await _stored_outcome(call, run, beyond=before.head)
    try:
        return await _response(call, run.id, run.flow_id, block_count, outcome)
    except APIError as error:
        return StoredResponse(error.status, error_body(error))


async def _awaited(started: StartedRun) -> RunOutcome:
    return await started.outcome()


def _released(call: Call, run_id: str) -> APIError:
    message = "the server is stopping; the run resumes after its next start"
    # UNAVAILABLE lets clients call again: under a key they get this run's outcome, else a second run.
    code = "INTERNAL_ERROR" if call.key is None else "UNAVAILABLE"
    return api_error(code, message, execution_id=run_id)


async def _stored_outcome(call: Call, run: RunRecord, *, beyond: int) -> RunOutcome:
    """The outcome of the segment after seq `beyond`, once the store has its end. Raises ANSWER_EXPIRED."""
    runtime = call.runtime

    async def rested(run: RunRecord) -> tuple[RunRecord, int]:
        run = await idle_run(runtime, run, beyond=beyond)
        if not (call.may_pause and 0 <= beyond < run.head):
            return run, run.head
        async with aclosing(runtime.tails.follow(run, after=beyond, until=REST_EVENTS)) as pages:
            return run, [page[-1][0] async for page in pages][-1]

    try:
        run, end = await while_awaited(call.request, run.id, rested(run))
    except APIError as error:
        if error.code != "UNAVAILABLE":
            raise
        raise _released(call, run.id) from error
    result, _ = await require_outcome(runtime.store, run)
    if end < run.head:
        # The segment paused and the run has gone on since: what it waited with is not there any more.
        raise answer_expired(run.id)
    if run.status == "paused":
        paused = await runtime.engine.idle.paused(run)
        return RunOutcome("paused", pause=paused.pause, outputs=paused.outputs)
    if result is not None:
        return RunOutcome("completed", result_json=result)
    failed = await failure_of(runtime.store, run)
    if "message" not in failed.error:
        # Content retention may be shorter than `answer_ttl_s`.
        raise answer_expired(run.id)
    return RunOutcome(run.status, error=failed.error, step_id=failed.step_id)


async def _response(
    call: Call, run_id: str, flow_id: str, block_count: int, outcome: RunOutcome
) -> StoredResponse:
    """The response for an outcome. Raises the error for a bad one."""
    if outcome.status == "completed":
        result: Any = msgspec.Raw(outcome.result_json)
        body = CompletedResult(
            result=result,
            flow_id=flow_id,
            block_count=block_count,
            execution_id=run_id,
            session_id=call.session_id,
        )
        return StoredResponse(200, msgspec.json.encode(body))
    if outcome.pause is None:
        is_cancelled = outcome.status == "cancelled"
        raise RunFailure(outcome.error or {}, outcome.step_id, is_cancelled).answer(run_id)
    tool_loop = outcome.pause.tool_loop
    assert tool_loop is not None
    waiting = ToolCallsRequired(
        execution_id=run_id,
        paused_at_step=tool_loop.step_id,
        iterations_used=tool_loop.iterations_used,
        tool_call_messages=both_spellings(tool_loop.messages),
        tool_calls=tool_loop.calls,
        accumulated_outputs=dict(outcome.outputs),
        flow_id=flow_id,
        block_count=block_count,
        session_id=call.session_id,
    )
    # The outputs so far may be large, so they are encoded in a thread.
    answered = StoredResponse(200, await offload_in_turn(partial(msgspec.json.encode, waiting)))
    # What the run waits with goes as soon as it is resumed.
    await keep(call, answered)
    return answered


async def idle_run(runtime: Runtime, run: RunRecord, *, beyond: int) -> RunRecord:
    """The run once it has ended, or is paused by an event after seq `beyond`.

    The process that has the run waits for a database that is away, and so does this, up to `lease_s` seconds.
    Where the store goes back to the pause that the run was resumed from, it is paused by that one again.
    """
    generation = runtime.store.generation
    away_since_s: float | None = None
    has_begun = False

    def is_idle(run: RunRecord) -> bool:
        return run.ended or (
            run.status == "paused" and (run.head > beyond or (has_begun and not run.is_resuming))
        )

    async with runtime.bus.listen(progress_of(run.id)) as listener:
        while not is_idle(run):
            has_begun = run.status != "paused" or run.is_resuming
            try:
                now = await runtime.store.run(run.id)
            except StoreUnreachable:
                now_s = time.monotonic()
                away_since_s = away_since_s or now_s
                if now_s - away_since_s > runtime.settings.lease_s:
                    raise
                await asyncio.sleep(AGAIN_S)
                continue
            if now is None:
                raise no_run(run.id) if runtime.store.generation == generation else lost_run(run.id)
            run, away_since_s = now, None
            if not is_idle(run):
                await listener.wait(runtime.settings.tail_poll_s)
    if not run.ended and run.head <= beyond:
        # The segment that the store has no trace of any more is let go with the next renewal of the lease.
        await runtime.engine.active.join(run.id)
    return run
