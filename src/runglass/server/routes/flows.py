"""Managing flows: push a draft, publish it, roll back and forward, and see what there is.

Their paths begin with `/flows`, which no path of running or reading does. Whoever may see the project may
look; changing takes the role `admin`.
"""

import msgspec
from starlette.responses import Response

from runglass.errors import APIError, FlowFileError, FlowRecorded, Problem, api_error
from runglass.flows.parser import CheckedFlow
from runglass.runtime.runtime import Runtime, push_flow
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.requests.body import answer, body_of
from runglass.server.requests.body_parsing import read_body
from runglass.server.requests.pagination import (
    cursor_of_number,
    cursor_of_slug,
    number_before,
    slug_before,
)
from runglass.server.security.authentication import actor_of, project_of_key, require_flow, require_project
from runglass.store.records import FlowRecord, Project
from runglass.wire.admin_api import (
    FlowHistory,
    FlowInfo,
    FlowList,
    FlowVersionNumber,
    FlowWarning,
    PushedFlow,
    VersionInfo,
)

MOST_IN_MESSAGE = 3
LARGEST_VERSION = 2**31 - 1


async def own_flows(request: ApiRequest, limit: int, cursor: str | None) -> Response:
    """The flows of the project that the key belongs to, and how that is called.

    The last page has no `nextCursor`.
    """
    return await _list(request, await project_of_key(request), limit, cursor)


async def flows(request: ApiRequest, org: str, project: str, limit: int, cursor: str | None) -> Response:
    """Each flow and which version of it is in production. The last page has no `nextCursor`."""
    return await _list(request, await require_project(request, org, project), limit, cursor)


async def flow(
    request: ApiRequest, org: str, project: str, slug: str, limit: int, cursor: str | None
) -> Response:
    """The versions in order, the draft, which is version 0, first. The last page has no `nextCursor`."""
    record = await require_flow(request, org, project, slug)
    after = -1 if cursor is None else number_before(cursor)
    found = await request.services.runtime.store.versions(record.id, after=after, limit=limit + 1)
    page = found[:limit]
    following = cursor_of_number(page[-1].version) if len(found) > limit else None
    versions = msgspec.convert(page, list[VersionInfo], from_attributes=True)
    return answer(
        FlowHistory(**msgspec.structs.asdict(_info(record)), versions=versions, next_cursor=following)
    )


async def flow_version(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    number: int,
) -> Response:
    """The flow as JSON, fields at their defaults left out; version 0 is the draft.

    The header `X-Flow-Id` has the flow's id, which a flow that takes the slug later does not have;
    `X-Version-Imported` says of a version that it came with an imported run, and does not run.
    """
    record = await require_flow(request, org, project, slug)
    store = request.services.runtime.store
    known = 0 <= number <= LARGEST_VERSION
    source = await store.flow_source(record.id, number) if known else None
    if source is None:
        raise _no_version(record, number)
    (version,) = await store.versions(record.id, after=number - 1, limit=1)
    headers = {"X-Flow-Id": record.id} | ({"X-Version-Imported": "true"} if version.imported else {})
    return Response(source, media_type=JSON, headers=headers)


async def push(request: ApiRequest, org: str, project: str, slug: str) -> Response:
    """Stores a flow file, YAML or JSON, as the draft of its slug, which must be the slug in the path.

    A file with mistakes is refused with all of them in `detail.problems`. `warnings` lists what does not keep
    the flow from being used, such as a model whose package this server lacks. Models and settings that the
    project or the server does not allow are FORBIDDEN.
    """
    own = await require_project(request, org, project)
    runtime = request.services.runtime
    checked = await _read_flow(runtime, own, await body_of(request), slug)
    runtime.policy.check_flow(own, checked.flow)
    info = _info(await push_flow(runtime.store, own, checked.flow, by=actor_of(request)))
    warnings = [FlowWarning(**warning._asdict()) for warning in checked.warnings]
    return answer(PushedFlow(**msgspec.structs.asdict(info), warnings=warnings))


async def publish(request: ApiRequest, org: str, project: str, slug: str) -> Response:
    """Makes the draft the next version and that the production version.

    A draft equal to the production version is not published again.
    """
    record = await require_flow(request, org, project, slug)
    if record.recorded:
        raise FlowRecorded(slug)
    version = await request.services.runtime.store.publish(record.id, by=actor_of(request))
    return answer(FlowVersionNumber(version=version))


async def set_production(request: ApiRequest, org: str, project: str, slug: str) -> Response:
    """Makes a published version the production version. The draft, 0, cannot be it."""
    record = await require_flow(request, org, project, slug)
    number = read_body(await body_of(request), FlowVersionNumber).version
    if number < 1:
        message = f"version {number} cannot be in production: publish the draft, or name a published version"
        raise api_error("INVALID_VERSION", message)
    runtime = request.services.runtime
    if number > LARGEST_VERSION:
        raise _no_version(record, number)
    if not await runtime.store.set_production(record.id, number, by=actor_of(request)):
        raise await runtime.no_version(record, number)
    return answer(_info(await runtime.store.flow(record.id) or record))


async def delete(request: ApiRequest, org: str, project: str, slug: str) -> Response:
    """Deletes a flow, executable or recorded, so that its slug is free. Its runs stay readable, by their ids.

    The versions that no run is of go with it. FLOW_IN_USE while one of its runs has not ended.
    """
    record = await require_flow(request, org, project, slug)
    count = await request.services.runtime.store.delete_flow(record.id, by=actor_of(request))
    if count:
        runs = "run of it has" if count == 1 else "runs of it have"
        message = (
            f"flow {slug!r} cannot be deleted: {count:,} {runs} not ended; wait for them, cancel them"
            f" (`runglass runs cancel flow:{slug}`), or delete them with it (`runglass flow delete"
            f" {org}/{project}/{slug} --runs`)"
        )
        raise api_error("FLOW_IN_USE", message, details={"runs": count})
    return Response(status_code=204)


async def _list(request: ApiRequest, project: Project, limit: int, cursor: str | None) -> Response:
    after = "" if cursor is None else slug_before(cursor)
    found = await request.services.runtime.store.flows(project.id, after=after, limit=limit + 1)
    page = found[:limit]
    following = cursor_of_slug(page[-1].slug) if len(found) > limit else None
    listed = msgspec.convert(page, list[FlowInfo], from_attributes=True)
    return answer(FlowList(org=project.org, project=project.name, flows=listed, next_cursor=following))


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
