"""Running a run again: a new run from the input that the first one was given, in both path forms."""

from functools import partial

import msgspec
from starlette.responses import Response

from runglass.errors import APIError, api_error
from runglass.limits.offload import offload
from runglass.redact import MARK
from runglass.runtime.runtime import Submitted
from runglass.server.api_request import ApiRequest
from runglass.server.calls.call import Call, admitted
from runglass.server.calls.idempotency import made_once
from runglass.server.calls.responses import accepted, replay
from runglass.server.calls.segments import submit
from runglass.server.requests.attachments import check_attachments
from runglass.server.requests.body_parsing import read_request
from runglass.server.requests.messages import kept_history
from runglass.server.security.authentication import require_executed
from runglass.server.services.run_content import input_of, with_content
from runglass.store.records import RunRecord
from runglass.wire.run_api import RerunRequest, RunRequest


async def rerun(request: ApiRequest, run: RunRecord, session_id: str | None) -> Response:
    """Starts a new run from the kept input of this one, as a job is started; its trigger is `replay`.

    `version` is `same` (the default), `production` or a number; of a run of the draft, `same` is the draft
    as it is now. Overrides and tools of the first run are not taken over: `blockOverrides` are those of this
    call. Where the input was not kept, or not whole, the answer is INPUT_NOT_KEPT.
    """
    require_executed(run, what="run again")
    runtime = request.services.runtime
    own, flow = await runtime.store.project(run.project_id), await runtime.store.flow(run.flow_id)
    gone = api_error("FLOW_NOT_FOUND", f"the flow of run {run.id!r} is not there any more")
    if own is None or flow is None:
        raise gone
    call = Call(request=request, project=own, slug=flow.slug)
    if flow.deleted:
        await call.refuse_unless_repeated(gone)
    async with admitted(call, RerunRequest, session_id, empty=b"{}") as body:
        submitted = await made_once(call, partial(_submit, call, run, body))
    if submitted is None:
        return await replay(call)
    return accepted(call, submitted.run.id, submitted.flow_id, submitted.block_count, rerun_of=run.id).sent()


async def _submit(call: Call, run: RunRecord, body: RerunRequest) -> Submitted:
    given = input_of(await with_content(call.runtime.store, run))
    if given is None or given.inputs is None:
        raise _not_kept(run, _why_not(run))
    if given.truncated:
        raise _not_kept(run, "it was too large to be kept whole (setting snapshot_limit_bytes)")
    members = {"parameters": given.inputs, "messages": given.messages, "attachments": given.attachments}
    data = msgspec.json.encode(members)
    if run.capture == "redacted" and MARK.encode() in data:
        raise _not_kept(run, "parts of it were redacted; only capture mode full keeps inputs as they are")
    # Checked like the body of any call: the input of an imported run may be anything.
    most_values = call.runtime.settings.body_values_limit
    call.size_bytes = len(data)
    reading = partial(read_request, data, RunRequest, most_values=most_values)
    kept = await offload(reading, size_bytes=call.size_bytes)
    check_attachments(kept.attachments)
    named = body.version
    return await submit(
        call,
        msgspec.structs.replace(
            kept,
            messages=None,
            block_overrides=body.block_overrides,
            # The two can be compared where both have kept the same.
            trace=run.capture == "full",
        ),
        version=run.version if named == "same" else None if named == "production" else named,
        trigger_type="replay",
        history=kept_history(kept.messages or []),
        rerun_of=run.id,
    )


def _why_not(run: RunRecord) -> str:
    match run.capture:
        case "off":
            return "capture mode off keeps nothing of a run"
        case "metadata_only" if run.status != "failed":
            return (
                "capture mode metadata_only keeps the input of failed runs alone; call with `trace`, or set"
                " capture to full"
            )
    return "it has been removed since (content retention), or is of a version that kept none"


def _not_kept(run: RunRecord, why: str) -> APIError:
    message = f"the input of run {run.id!r} is not kept: {why}; start the flow with its input instead"
    return api_error("INPUT_NOT_KEPT", message, execution_id=run.id)
