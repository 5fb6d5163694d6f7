"""`POST …/step`: walking through a flow step by step, each call a stream of events up to the next rest.

The log keeps the content that the capture mode allows; a caller that steps through a flow gets outputs and
errors in the stream all the same, since they are the answer to its call.
"""

from collections.abc import Mapping
from functools import partial

from starlette.types import ASGIApp

from runglass.engine.run.active_runs import StartedRun
from runglass.engine.steps.run_context import LiveOutputs
from runglass.errors import api_error
from runglass.runtime.runtime import Submitted
from runglass.server.api_request import ApiRequest
from runglass.server.calls.call import REPLAYED, Call, StoredResponse, admitted, find_call
from runglass.server.calls.idempotency import earlier_answer, failure_kept, made_once
from runglass.server.calls.responses import REST_EVENTS
from runglass.server.calls.run_failure import require_outcome
from runglass.server.calls.segments import resume, start
from runglass.server.calls.step_frames import StepFrames
from runglass.server.http.error_responses import once_started
from runglass.server.http.response_stream import event_stream
from runglass.server.security.authentication import no_run
from runglass.wire.run_api import StepRequest


async def step(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    version: str | None = None,
    *,
    session_id: str | None,
    version_query: str | None,
) -> ASGIApp:
    """Runs the next step of the production version, or all remaining ones, and streams their events.

    Of a flow that was never published it walks the draft, as that is at the first call.
    """
    call = await find_call(request, org, project, slug, version, version_query)
    if call.number == 0:
        message = (
            f"the draft of flow {slug!r} is walked through on the path without a version, as long as nothing "
            f"of it is published; a published version is v1, v2, …"
        )
        raise api_error("INVALID_VERSION", message)
    async with admitted(call, StepRequest, session_id) as body:
        if body.step_index is not None and body.step_index < 0:
            message = f"`stepIndex` must be 0 or more, not {body.step_index}"
            raise api_error("INVALID_STEP_INDEX", message, execution_id=body.execution_id)
        call.resumes = body.execution_id is not None
        # What a call under a key is owed is stored, for its repeats.
        outputs = LiveOutputs() if call.key is None else None
        submitted = await made_once(call, partial(_begin, call, body, outputs))
        # The stream may last as long as the run.
        del body
    if submitted is not None:
        started = submitted.run
        async with failure_kept(call):
            return await _stream(call, started.id, started.head, started, outputs)
    before = call.before
    if isinstance(before, StoredResponse):
        return before.replayed()
    assert before is not None
    earlier = await earlier_answer(call, before)
    if isinstance(earlier, StoredResponse):
        return earlier.replayed()
    await require_outcome(call.runtime.store, earlier)
    return await _stream(call, earlier.id, before.head, headers={REPLAYED: "true"})


async def _begin(call: Call, body: StepRequest, outputs: LiveOutputs | None) -> Submitted:
    if call.resumes:
        return await resume(call, body, outputs=outputs)
    if body.step_index not in (None, 0):
        message = "the first call, without `executionId`, begins at `stepIndex` 0"
        raise api_error("INVALID_FIRST_CALL", message)
    return await start(call, body, version=call.version, trigger_type="step", outputs=outputs)


async def _stream(
    call: Call,
    run_id: str,
    head: int,
    started: StartedRun | None = None,
    outputs: LiveOutputs | None = None,
    *,
    headers: Mapping[str, str] = {},  # never changed
) -> ASGIApp:
    runtime = call.runtime
    with once_started(run_id):
        run = await runtime.store.run(run_id)
    if run is None:
        raise no_run(run_id)
    if outputs is None or started is None or started.queued is not None:
        # The store has the content.
        started = outputs = None
    pages = runtime.tails.follow(run, after=head, until=REST_EVENTS, idle_s=runtime.settings.ping_s)
    frames = StepFrames(runtime.store, run, started, outputs)
    at_end = None if outputs is None else outputs.close
    return event_stream(call.request, frames.of(pages), headers=headers, at_end=at_end)
