"""Responses of `execute` for a run that has ended or is paused, in this call or an earlier one."""

from functools import partial

import msgspec

from runglass.engine.journal.run_spec import Pause
from runglass.engine.models.model_types import both_spellings
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.outcome import LeaseLost, RunOutcome, RunReleased
from runglass.engine.scheduling.offloading import offload_in_turn
from runglass.errors import APIError, api_error
from runglass.log.trace import RunSummary
from runglass.server.api_request import ApiRequest
from runglass.server.calls.idempotency import StoredResponse, wait_until_idle
from runglass.server.calls.run_failure import failure_of, result_of
from runglass.server.http.error_responses import error_body, once_started
from runglass.server.security.authentication import lost_run, runtime_of
from runglass.server.security.revocation import while_allowed
from runglass.store.base import decoding
from runglass.store.records import RunRecord
from runglass.wire.run_api import ToolCallsRequired


async def outcome_of(
    request: ApiRequest, started: StartedRun, flow_id: str, block_count: int
) -> StoredResponse:
    """The response, once the segment has ended in this process or another."""
    try:
        with once_started(started.id):
            outcome = await while_allowed(request, started.id, _await_outcome(started))
    except LeaseLost:
        with once_started(started.id):
            return await _followed_response(request, started)
    except RunReleased as left:
        raise _released(request, started.id) from left
    return await _response(started.id, flow_id, block_count, outcome)


async def _followed_response(request: ApiRequest, started: StartedRun) -> StoredResponse:
    """The response for a run that another process executes, once the store has its end."""
    run = await runtime_of(request).store.run(started.id)
    if run is None:
        raise lost_run(started.id)
    # While the segment has not begun, the run is still in the pause before it.
    beyond = started.head if run.is_resuming else -1
    try:
        run = await wait_until_idle(request, run, beyond=beyond)
    except APIError as error:
        if error.code != "UNAVAILABLE":
            raise
        raise _released(request, started.id) from error
    return await response_of(request, run)


def _released(request: ApiRequest, run_id: str) -> APIError:
    message = "the server is being stopped; the run goes on after its next start"
    # UNAVAILABLE lets clients call again: under a key they get this run's outcome, else a second run.
    code = "UNAVAILABLE" if "idempotency-key" in request.headers else "INTERNAL_ERROR"
    return api_error(code, message, execution_id=run_id)


async def _await_outcome(started: StartedRun) -> RunOutcome:
    return await started.outcome()


async def _response(run_id: str, flow_id: str, block_count: int, outcome: RunOutcome) -> StoredResponse:
    if outcome.status == "completed":
        return _completed(run_id, flow_id, block_count, outcome.result_json)
    if outcome.pause is not None:
        waiting = tool_calls_required(run_id, flow_id, block_count, outcome.pause, dict(outcome.outputs))
        return await _paused_response(waiting)
    raise failure(run_id, outcome)


def _completed(run_id: str, flow_id: str, block_count: int, result: bytes) -> StoredResponse:
    """The fields of CompletedResult, with a result that is JSON already."""
    body = {
        "status": "completed",
        "result": msgspec.Raw(result),
        "flowId": flow_id,
        "blockCount": block_count,
        "executionId": run_id,
    }
    return StoredResponse(200, msgspec.json.encode(body))


async def _paused_response(waiting: ToolCallsRequired) -> StoredResponse:
    # The outputs so far may be large, so they are encoded in a thread.
    return StoredResponse(200, await offload_in_turn(partial(msgspec.json.encode, waiting)))


def tool_calls_required(
    run_id: str, flow_id: str, block_count: int, pause: Pause, outputs: dict[str, object]
) -> ToolCallsRequired:
    """The response for a run that is paused for tool results."""
    tool_loop = pause.tool_loop
    assert tool_loop is not None
    return ToolCallsRequired(
        execution_id=run_id,
        paused_at_step=tool_loop.step_id,
        iterations_used=tool_loop.iterations_used,
        tool_call_messages=both_spellings(tool_loop.messages),
        tool_calls=tool_loop.calls,
        accumulated_outputs=outputs,
        flow_id=flow_id,
        block_count=block_count,
    )


async def response_of(request: ApiRequest, run: RunRecord) -> StoredResponse:
    """The response for a run of an earlier call, from its stored data."""
    runtime = runtime_of(request)
    with decoding(run.id):
        block_count = msgspec.json.decode(run.summary, type=RunSummary).step_count or 0
    if run.status == "completed":
        return _completed(run.id, run.flow_id, block_count, await result_of(runtime.store, run))
    if run.status == "paused":
        paused = await runtime.engine.paused(run)
        waiting = tool_calls_required(run.id, run.flow_id, block_count, paused.pause, paused.outputs)
        return await _paused_response(waiting)
    if run.status == "cancelled":
        error = failure(run.id, RunOutcome("cancelled", error={"message": "cancelled"}))
    else:
        failed = await failure_of(runtime.store, run)
        error = failure(run.id, RunOutcome("failed", error=failed.error, step_id=failed.step_id))
    return StoredResponse(error.status, error_body(error))


_OWN_ANSWERS = frozenset({"BYOK_KEY_REJECTED", "TOOL_ITERATION_LIMIT", "CREDITS_EXHAUSTED"})
"""Codes of a failed run that the response has as its own code."""


def failure(execution_id: str, outcome: RunOutcome) -> APIError:
    """The error response for a run that failed or was cancelled."""
    error = outcome.error or {}
    code, message = error.get("code"), error.get("message")
    details = {"error": error}
    if outcome.status == "cancelled":
        return api_error(
            "STEP_FAILED", f"the run was cancelled: {message}", execution_id=execution_id, details=details
        )
    answered = str(code) if code in _OWN_ANSWERS else "STEP_FAILED"
    if outcome.step_id is None:
        if answered == "STEP_FAILED":
            return api_error("INTERNAL_ERROR", f"the run failed: {message}", execution_id=execution_id)
        return api_error(answered, str(message), execution_id=execution_id, details=details)
    return api_error(
        answered,
        f"step {outcome.step_id!r} failed: {message} ({code})",
        execution_id=execution_id,
        step_id=outcome.step_id,
        details=details,
    )
