"""Managing flows: push a draft, publish it, roll back and forward, and see what there is.

Their paths begin with `/flows`, which no path of running or reading does. Whoever may see the project may
look; changing takes the role `admin`.
"""

from dataclasses import dataclass

import msgspec
from litestar import Response, Router, get, post, put
from litestar.openapi.spec import OpenAPIMediaType, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath

from runglass.errors import APIError, FlowFileError, Problem, api_error
from runglass.flow import CheckedFlow
from runglass.management import (
    FlowHistory,
    FlowInfo,
    FlowList,
    FlowTree,
    FlowVersionNumber,
    FlowWarning,
    PushedFlow,
    VersionInfo,
)
from runglass.runtime import Runtime, push_flow
from runglass.server.answers import JSON
from runglass.server.asked import answer, body_of, documented
from runglass.server.auth import Asked, actor_of, own_flow, own_room, require_admin, runtime_of
from runglass.server.bodies import read_body
from runglass.server.openapi import ReadingOperation
from runglass.store.base import FlowRecord, Project

YAML = "application/yaml"
MOST_IN_MESSAGE = 3
LARGEST_VERSION = 2**31 - 1
TAGS = ["Managing flows"]


@dataclass
class PushOperation(ReadingOperation):
    """An operation whose body is a flow file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        about = "A flow, in the shape of `/api/v1/schemas/flow.json`."
        tree = Schema(type=OpenAPIType.OBJECT, required=["slug", "steps"], description=about)
        text = Schema(type=OpenAPIType.STRING, description="A flow file; read as YAML whatever its type.")
        body = {JSON: OpenAPIMediaType(tree), YAML: OpenAPIMediaType(text)}
        self.request_body = RequestBody(body, required=True)


@dataclass
class ProductionOperation(ReadingOperation):
    """An operation whose body names a version."""

    def __post_init__(self) -> None:
        super().__post_init__()
        number = Schema(type=OpenAPIType.INTEGER, minimum=1, description="A published version.")
        body = Schema(
            type=OpenAPIType.OBJECT,
            required=["version"],
            properties={"version": number},
            additional_properties=True,
        )
        self.request_body = RequestBody({JSON: OpenAPIMediaType(body)}, required=True)


@get(
    "/",
    responses=documented(FlowList, "The flows, by slug."),
    operation_class=ReadingOperation,
    tags=TAGS,
    summary="The flows of the key's project",
)
async def own_flows(request: Asked) -> Response[bytes]:
    """The flows of the project that the key belongs to, and how that is called."""
    own = await runtime_of(request).store.project(request.auth.project_id)
    if own is None:
        raise api_error("FLOW_NOT_FOUND", "the project of this key is gone")
    return await _list(request, own)


@get(
    "/{org:str}/{project:str}",
    responses=documented(FlowList, "The flows, by slug."),
    operation_class=ReadingOperation,
    tags=TAGS,
    summary="A project's flows",
)
async def flows(request: Asked, org: FromPath[str], project: FromPath[str]) -> Response[bytes]:
    """Each flow and which version of it is in production."""
    return await _list(request, await own_room(request, org, project))


@get(
    "/{org:str}/{project:str}/{slug:str}",
    responses=documented(FlowHistory, "The flow."),
    operation_class=ReadingOperation,
    tags=TAGS,
    summary="A flow and its versions",
)
async def flow(
    request: Asked, org: FromPath[str], project: FromPath[str], slug: FromPath[str]
) -> Response[bytes]:
    """The versions in order, the draft, which is version 0, first."""
    record = await own_flow(request, org, project, slug)
    versions = await runtime_of(request).store.versions(record.id)
    return answer(
        FlowHistory(
            **msgspec.structs.asdict(_info(record)),
            versions=msgspec.convert(versions, list[VersionInfo], from_attributes=True),
        )
    )


@get(
    "/{org:str}/{project:str}/{slug:str}/versions/{number:int}",
    responses=documented(FlowTree, "The flow's tree of steps."),
    operation_class=ReadingOperation,
    tags=TAGS,
    summary="A version of a flow",
)
async def flow_version(
    request: Asked,
    org: FromPath[str],
    project: FromPath[str],
    slug: FromPath[str],
    number: FromPath[int],
) -> Response[bytes]:
    """The flow as JSON, fields at their defaults left out; version 0 is the draft."""
    record = await own_flow(request, org, project, slug)
    known = 0 <= number <= LARGEST_VERSION
    source = await runtime_of(request).store.flow_source(record.id, number) if known else None
    if source is None:
        raise _no_version(record, number)
    return Response(source, media_type=JSON)


@put(
    "/{org:str}/{project:str}/{slug:str}",
    responses=documented(PushedFlow, "The flow; what it is in production has not changed."),
    operation_class=PushOperation,
    tags=TAGS,
    summary="Push a flow",
)
async def push(
    request: Asked, org: FromPath[str], project: FromPath[str], slug: FromPath[str]
) -> Response[bytes]:
    """Stores a flow file, YAML or JSON, as the draft of its slug, which must be the slug in the path.

    A file with mistakes is refused with all of them in `detail.problems`. `warnings` lists what does not keep
    the flow from being used, such as a model whose package this server lacks. Models and settings that the
    project or the server does not allow are FORBIDDEN.
    """
    own = await own_room(request, org, project)
    require_admin(request)
    runtime = runtime_of(request)
    checked = await _read_flow(runtime, own, await body_of(request), slug)
    runtime.policy.check_flow(own, checked.flow)
    info = _info(await push_flow(runtime.store, own, checked.flow, by=actor_of(request)))
    warnings = [FlowWarning(**warning._asdict()) for warning in checked.warnings]
    return answer(PushedFlow(**msgspec.structs.asdict(info), warnings=warnings))


@post(
    "/{org:str}/{project:str}/{slug:str}/publish",
    status_code=200,
    responses=documented(FlowVersionNumber, "The version that is now in production."),
    operation_class=ReadingOperation,
    tags=TAGS,
    summary="Publish a flow",
)
async def publish(
    request: Asked, org: FromPath[str], project: FromPath[str], slug: FromPath[str]
) -> Response[bytes]:
    """Makes the draft the next version and that the production version.

    A draft equal to the production version is not published again.
    """
    record = await own_flow(request, org, project, slug)
    require_admin(request)
    version = await runtime_of(request).store.publish(record.id, by=actor_of(request))
    return answer(FlowVersionNumber(version=version))


@put(
    "/{org:str}/{project:str}/{slug:str}/production",
    responses=documented(FlowInfo, "The flow with that version in production."),
    operation_class=ProductionOperation,
    tags=TAGS,
    summary="Roll back or forward",
)
async def set_production(
    request: Asked, org: FromPath[str], project: FromPath[str], slug: FromPath[str]
) -> Response[bytes]:
    """Makes a published version the production version. The draft, 0, cannot be it."""
    record = await own_flow(request, org, project, slug)
    require_admin(request)
    number = read_body(await body_of(request), FlowVersionNumber).version
    if number < 1:
        message = f"version {number} cannot be in production: publish the draft, or name a published version"
        raise api_error("INVALID_VERSION", message)
    store = runtime_of(request).store
    known = number <= LARGEST_VERSION
    if not known or not await store.set_production(record.id, number, by=actor_of(request)):
        raise _no_version(record, number)
    return answer(_info(await store.flow(record.id) or record))


FLOWS = Router("/flows", route_handlers=[own_flows, flows, flow, flow_version, push, publish, set_production])


async def _list(request: Asked, project: Project) -> Response[bytes]:
    records = await runtime_of(request).store.flows(project.id)
    return answer(
        FlowList(org=project.org, project=project.name, flows=[_info(record) for record in records])
    )


def _info(record: FlowRecord) -> FlowInfo:
    return msgspec.convert(record, FlowInfo, from_attributes=True)


async def _read_flow(runtime: Runtime, own: Project, body: bytes, slug: str) -> CheckedFlow:
    try:
        checked = await runtime.checks.flow_file(
            body, own_providers=runtime.settings.providers, project_id=own.id
        )
    except FlowFileError as error:
        raise _refusal(error.problems) from error
    if checked.flow.slug != slug:
        raise _refusal([Problem(f"the slug is {checked.flow.slug!r}, but the path says {slug!r}", "slug")])
    return checked


def _refusal(problems: list[Problem]) -> APIError:
    first = [
        f"line {problem.line}: {problem.message}" if problem.line is not None else problem.message
        for problem in problems[:MOST_IN_MESSAGE]
    ]
    rest = len(problems) - len(first)
    message = "; ".join(first) + (f"; and {rest:,} more, see `problems`" if rest else "")
    listed = [problem._asdict() for problem in problems]
    return api_error("INVALID_REQUEST", f"the flow cannot be used: {message}", details={"problems": listed})


def _no_version(record: FlowRecord, number: int) -> APIError:
    return api_error("VERSION_NOT_FOUND", f"flow {record.slug!r} has no version {number}")
