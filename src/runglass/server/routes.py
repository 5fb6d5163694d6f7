"""Running a flow, and what else is not the reading of one run: HTTP in, calls of the runtime, HTTP out."""

from functools import cache
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

import runglass
from runglass.execution import CompletedResult, ToolCallsRequired
from runglass.flow import flow_schema
from runglass.server.answers import JSON
from runglass.server.asked import documented
from runglass.server.auth import Asked, runtime_of
from runglass.server.executing import execute_flow
from runglass.server.openapi import ExecuteOperation, OpenOperation
from runglass.server.parameters import SessionId, VersionQuery, Wanted

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
