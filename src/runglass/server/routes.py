"""Running a flow, and what else is not the reading of one run: HTTP in, calls of the runtime, HTTP out."""

import re
from functools import cache
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.exceptions import InternalServerException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter

import runglass
from runglass.engine.engine import Outcome
from runglass.errors import APIError, StoreError, api_error
from runglass.execution import CompletedResult
from runglass.flow import flow_schema
from runglass.runtime import Submitted
from runglass.server.answers import JSON
from runglass.server.auth import Asked, own_project, require_execute, runtime_of
from runglass.server.bodies import read_execute
from runglass.server.ongoing import Ongoing
from runglass.server.openapi import ExecuteOperation, OpenOperation

_VERSION = re.compile(r"v(\d{1,9})", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

SessionId = Annotated[
    str | None,
    HeaderParameter(name="X-Session-Id", description="a UUID that ties runs together"),
]
COMPLETED = {
    200: ResponseSpec(CompletedResult, description="The run has completed.", generate_examples=False)
}


@post(
    "/seq/{org:str}/{project:str}/{slug:str}/execute",
    status_code=200,
    responses=COMPLETED,
    operation_class=ExecuteOperation,
    tags=["Running a flow"],
    summary="Run a flow",
)
async def execute(
    request: Asked,
    org: FromPath[str],
    project: FromPath[str],
    slug: FromPath[str],
    session_id: SessionId = None,
) -> Response[bytes]:
    """Runs the production version, or the draft where nothing is published, and answers when it has ended.

    The run goes on if the caller hangs up.
    """
    return await _execute(request, org, project, slug, None, session_id)


@post(
    "/seq/{org:str}/{project:str}/{slug:str}/{version:str}/execute",
    status_code=200,
    responses=COMPLETED,
    operation_class=ExecuteOperation,
    tags=["Running a flow"],
    summary="Run one version of a flow",
)
async def execute_version(
    request: Asked,
    org: FromPath[str],
    project: FromPath[str],
    slug: FromPath[str],
    version: FromPath[str],
    session_id: SessionId = None,
) -> Response[bytes]:
    """Runs published version `v1`, `v2`, … or the draft, `v0`, and answers when it has ended."""
    return await _execute(request, org, project, slug, version, session_id)


@get(
    "/health",
    operation_class=OpenOperation,
    tags=["The server"],
    summary="Whether the server can work",
)
async def health(request: Asked) -> dict[str, str]:
    """200 while the store answers, 503 while it does not."""
    await runtime_of(request).store.project(0)
    return {"status": "ok", "version": runglass.__version__}


@get(
    "/schemas/flow.json",
    operation_class=OpenOperation,
    tags=["The server"],
    summary="JSON Schema of flow files",
)
async def flow_file_schema() -> Response[bytes]:
    """For editors and checkers; `runglass flow check` uses the same one."""
    return Response(_encoded_flow_schema(), media_type=JSON)


@cache
def _encoded_flow_schema() -> bytes:
    return msgspec.json.encode(flow_schema())


async def _execute(
    request: Asked, org: str, project: str, slug: str, version: str | None, session_id: str | None
) -> Response[bytes]:
    runtime = runtime_of(request)
    own = await own_project(request, org, project, slug)
    await require_execute(request, org, project, slug)
    number = None if version is None else _version_number(version)
    if session_id is not None and not _UUID.fullmatch(session_id):
        raise api_error("EXECUTION_ID_INVALID", f"the header X-Session-Id must be a UUID, not {session_id!r}")
    asked = read_execute(await _body(request))
    submitted = await runtime.submit(
        own,
        slug,
        asked,
        version=number,
        trigger_type="api",
        session_id=None if session_id is None else session_id.lower(),
    )
    outcome = await _ended(request, submitted)
    if outcome.status != "completed":
        raise _failure(submitted.run.id, outcome)
    result = CompletedResult(
        result=outcome.result,
        flow_id=submitted.flow_id,
        block_count=submitted.block_count,
        execution_id=submitted.run.id,
    )
    return Response(msgspec.json.encode(result), media_type=JSON)


async def _body(request: Asked) -> bytes:
    try:
        return await request.body()
    except InternalServerException as error:
        # So the framework calls a client that has left, which is no fault of the server.
        raise api_error("INVALID_REQUEST", "the connection ended before the body did") from error


async def _ended(request: Asked, submitted: Submitted) -> Outcome:
    """Waits for the end of the run. A stopping server cancels the run, so its caller still gets an answer."""
    engine, run = runtime_of(request).engine, submitted.run
    ongoing: Ongoing = request.app.state["ongoing"]
    with ongoing.ended_by(lambda: engine.cancel(run.id, reason="the server was stopped")):
        try:
            return await run.outcome()
        except StoreError as error:
            # Not UNAVAILABLE: that promises that nothing was started, and clients then start it again.
            message = "the run cannot be recorded any further; its trace shows how far it came"
            raise api_error("INTERNAL_ERROR", message, execution_id=run.id) from error


def _failure(execution_id: str, outcome: Outcome) -> APIError:
    error = outcome.error or {}
    code, message = error.get("code"), error.get("message")
    details = {"error": error}
    if outcome.status == "cancelled":
        return api_error(
            "STEP_FAILED", f"the run was cancelled: {message}", execution_id=execution_id, details=details
        )
    if outcome.step_id is None:
        return api_error("INTERNAL_ERROR", f"the run failed: {message}", execution_id=execution_id)
    return api_error(
        "BYOK_KEY_REJECTED" if code == "BYOK_KEY_REJECTED" else "STEP_FAILED",
        f"step {outcome.step_id!r} failed: {message} ({code})",
        execution_id=execution_id,
        step_id=outcome.step_id,
        details=details,
    )


def _version_number(version: str) -> int:
    found = _VERSION.fullmatch(version)
    if found is None:
        raise api_error("INVALID_VERSION", f"version {version!r} is not v1, v2, … or v0, the draft")
    return int(found[1])
