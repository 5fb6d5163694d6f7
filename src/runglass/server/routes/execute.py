"""Running a flow, the health of the server, and the schema of flow files."""

import logging
from functools import cache, partial

import msgspec
from starlette.responses import Response

from runglass.errors import api_error
from runglass.flows.flow import flow_schema
from runglass.runtime.health import Health, Readiness
from runglass.server.api_request import ApiRequest
from runglass.server.calls.call import admitted, find_call
from runglass.server.calls.idempotency import failure_kept, made_once
from runglass.server.calls.responses import outcome_of, replay
from runglass.server.calls.segments import resume, start
from runglass.server.endpoint import JSON
from runglass.server.http.error_responses import error_body, error_headers
from runglass.server.requests.body import answer
from runglass.wire.run_api import ExecuteRequest

log = logging.getLogger(__name__)


async def execute(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    version: str | None = None,
    *,
    session_id: str | None,
    version_query: str | None,
) -> Response:
    """Runs the production version, or the draft where none is published, and responds when the run has ended.

    The run goes on if the caller hangs up.
    """
    call = await find_call(request, org, project, slug, version, version_query)
    async with admitted(call, ExecuteRequest, session_id) as body:
        call.resumes = body.execution_id is not None
        call.may_pause = call.resumes or bool(body.tools)
        starting = partial(start, call, body, version=call.number, trigger_type="api")
        submitted = await made_once(call, partial(resume, call, body) if call.resumes else starting)
        # The response may take as long as the run.
        del body, starting
    if submitted is None:
        return await replay(call)
    async with failure_kept(call):
        return (await outcome_of(call, submitted)).sent()


async def health(request: ApiRequest) -> Response:
    """200 while the server can do its work, 503 while it cannot; `reasons` names the faults.

    A write is tried, at most once a second. `setAside` counts runs whose rows cannot be read.
    """
    found = await request.services.health.report()
    return _state(request, found, is_well=found.status != "unavailable")


async def ready(request: ApiRequest) -> Response:
    """200 where calls should come here, 503 while the store does not answer or the server stops."""
    found = await request.services.health.readiness()
    return _state(request, found, is_well=found.status == "ready")


def _state(request: ApiRequest, found: Health | Readiness, *, is_well: bool) -> Response:
    if is_well:
        return answer(found)
    message = "; ".join(found.reasons)
    log.error("request %s: unavailable: %s", request.id, message)
    error = api_error("UNAVAILABLE", message)
    body = {**msgspec.to_builtins(found), **msgspec.json.decode(error_body(error))}
    return Response(
        msgspec.json.encode(body), status_code=error.status, media_type=JSON, headers=error_headers(error)
    )


async def flow_file_schema(request: ApiRequest) -> Response:
    """For editors and checkers; `runglass flow check` uses the same one."""
    return Response(_encoded_flow_schema(), media_type=JSON)


@cache
def _encoded_flow_schema() -> bytes:
    return msgspec.json.encode(flow_schema())
