"""Running a flow, and what else is not the reading of one run: HTTP in, calls of the runtime, HTTP out."""

import logging
from functools import cache
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from runglass.errors import api_error
from runglass.execution import CompletedResult, ToolCallsRequired
from runglass.flow import flow_schema
from runglass.server.answers import JSON, error_body, error_headers
from runglass.server.asked import answer, documented
from runglass.server.auth import Asked
from runglass.server.executing import execute_flow
from runglass.server.health import Health, HealthCheck
from runglass.server.openapi import ExecuteOperation, OpenOperation
from runglass.server.parameters import SessionId, VersionQuery, Wanted

log = logging.getLogger(__name__)

ANSWERED = documented(CompletedResult | ToolCallsRequired, "The run has completed, or waits for tools.")


@post(
    "/seq/{org:str}/{project:str}/{slug:str}/execute",
    status_code=200,
    responses=ANSWERED,
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
    version_query: VersionQuery = None,
) -> Response[bytes]:
    """Runs the production version, or the draft where nothing is published, and answers when it has ended.

    The run goes on if the caller hangs up.
    """
    return await execute_flow(request, org, project, slug, Wanted(None, version_query), session_id)


@post(
    "/seq/{org:str}/{project:str}/{slug:str}/{version:str}/execute",
    status_code=200,
    responses=ANSWERED,
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
    version_query: VersionQuery = None,
) -> Response[bytes]:
    """Runs published version `v1`, `v2`, … or the draft, `v0`, and answers when it has ended."""
    return await execute_flow(request, org, project, slug, Wanted(version, version_query), session_id)


@get(
    "/health",
    responses=documented(Health, "The server works; `degraded` says that somebody should look."),
    operation_class=OpenOperation,
    tags=["The server"],
    summary="Whether the server can work",
)
async def health(request: Asked) -> Response[bytes]:
    """200 while the server can do its work, 503 while it cannot; `reasons` says what is wrong.

    A write is tried, at most once a second. `setAside` counts runs whose rows cannot be read.
    """
    check: HealthCheck = request.app.state["health"]
    found = await check.report()
    if found.status != "unavailable":
        return answer(found)
    message = "; ".join(found.reasons)
    log.error("request %s: unavailable: %s", request.state["request_id"], message)
    error = api_error("UNAVAILABLE", message)
    body = {**msgspec.to_builtins(found), **msgspec.json.decode(error_body(error))}
    return Response(
        msgspec.json.encode(body), status_code=error.status, media_type=JSON, headers=error_headers(error)
    )


@get(
    "/schemas/flow.json",
    responses=documented(dict[str, Any], "The JSON Schema."),
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
