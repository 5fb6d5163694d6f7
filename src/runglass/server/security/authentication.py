"""Finds the key of a request, the flows and runs that the key may see, and what of their content.

A key belongs to one project, and its caller cannot tell what other projects have: the response for another
project's flow or run is word for word the one for an unknown id, after the same reads. Nothing is cached, so
a revoked key stops at once.

Under capture mode `full` every key that may read a run gets its content. Under every other mode only the key
that started the run gets what its caller is owed and the log does not keep; the role of other keys does not
matter.
"""

import base64
from functools import partial

from starlette.types import Scope

from runglass.errors import APIError, api_error
from runglass.limits.pace import LARGE_READ_BYTES, paced_read
from runglass.server.api_request import ApiRequest
from runglass.server.http.response_stream import PART_BYTES
from runglass.server.security.browser_sessions import header
from runglass.store.catalog import Catalog
from runglass.store.keys import LOCAL_KEY, PREFIX, digest_of
from runglass.store.records import ApiKey, FlowRecord, OpenedTrace, Project, RunRecord
from runglass.wire.admin_api import Actor

TRACE_ID_CHARS = 32
MAY_EXECUTE = frozenset({"run", "admin"})


def authorization_of_sender(scope: Scope) -> str | None:
    """The `Authorization` of a request that sends traces, whichever way it shows its key; None without one.

    Programs that send have an exporter, whose headers may be set by a product of its own: the key is the
    password of `Basic`, stands alone in `Authorization`, or comes in `x-api-key`.
    """
    shown = (header(scope, "authorization") or header(scope, "x-api-key") or "").strip()
    scheme, _, rest = shown.partition(" ")
    if scheme.lower() == "basic":
        try:
            rest = base64.b64decode(rest).decode().partition(":")[2]
        except ValueError:
            return shown
        return f"Bearer {rest}"
    return f"Bearer {shown}" if shown.startswith(PREFIX) else shown or None


async def authenticate(store: Catalog, authorization: str | None) -> ApiKey:
    """The key in an `Authorization` header. Raises UNAUTHENTICATED, StoreError."""
    scheme, _, key = (authorization or "").strip().partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key.startswith(PREFIX):
        raise api_error("UNAUTHENTICATED", f"an API key is needed: send `Authorization: Bearer {PREFIX}…`")
    found = await store.find_key(digest_of(key))
    if found is None or found.revoked_at is not None:
        raise api_error("UNAUTHENTICATED", "the API key is unknown or revoked")
    return found


async def require_project(request: ApiRequest, org: str, project: str, slug: str | None = None) -> Project:
    """The caller's project, if that is the one the path names, of flow `slug`. Raises FLOW_NOT_FOUND."""
    own = await request.services.runtime.store.project(request.auth.project_id)
    if own is None or (own.org, own.name) != (org, project):
        what = f"project {org}/{project}" if slug is None else f"flow {slug!r} in {org}/{project}"
        raise api_error("FLOW_NOT_FOUND", f"there is no {what}")
    return own


async def project_of_key(request: ApiRequest) -> Project:
    """The project of the caller's key. Raises FLOW_NOT_FOUND where it is gone."""
    own = await request.services.runtime.store.project(request.auth.project_id)
    if own is None:
        raise api_error("FLOW_NOT_FOUND", "the project of this key is gone")
    return own


async def require_flow(request: ApiRequest, org: str, project: str, slug: str) -> FlowRecord:
    """A flow of the caller's project. Raises FLOW_NOT_FOUND."""
    own = await require_project(request, org, project, slug)
    flow = await request.services.runtime.store.find_flow(own.id, slug)
    if flow is None:
        raise await request.services.runtime.policy.no_flow(own, slug)
    return flow


def actor_of(request: ApiRequest) -> Actor:
    """The actor of the request, for the audit log. Its address is the socket's, as headers can be forged."""
    key, client = request.auth, request.client
    if key.id == LOCAL_KEY:
        return Actor(kind="cli", name=key.hint)
    address = "unknown" if client is None else client.host
    return Actor(kind="key", name=key.hint, key_id=key.id, address=address)


async def run_by_id(request: ApiRequest, execution_id: str) -> RunRecord:
    """A run of the caller's project, its id in either case, or its trace's. Raises RUN_NOT_FOUND."""
    run = await request.services.runtime.store.run(await _run_id(request, execution_id))
    if run is None or run.project_id != request.auth.project_id:
        raise no_run(execution_id)
    return run


async def _run_id(request: ApiRequest, execution_id: str) -> str:
    """The id as the store has it; of a trace id, by which its sender knows a run, that of its newest run."""
    run_id = execution_id.lower()
    if len(run_id) == TRACE_ID_CHARS:
        found = await request.services.runtime.store.recorded_traces(request.auth.project_id, [run_id])
        if (run := found.get(run_id)) is not None:
            return run.id
    return run_id


async def runs_by_id(request: ApiRequest, execution_id: str, other_id: str) -> tuple[RunRecord, RunRecord]:
    """Two runs of the caller's project, each as `run_by_id` finds it. Raises RUN_NOT_FOUND."""
    return await run_by_id(request, execution_id), await run_by_id(request, other_id)


async def trace_by_id(request: ApiRequest, execution_id: str, *, flow_id: str | None = None) -> OpenedTrace:
    """As `run_by_id`, with its trace: one read for both. Raises RUN_NOT_FOUND.

    With `flow_id` a run of another flow is not found.
    """
    project_id = request.auth.project_id
    read = partial(
        request.services.runtime.store.trace,
        await _run_id(request, execution_id),
        project_id=project_id,
        flow_id=flow_id,
        limit_bytes=PART_BYTES,
    )
    opened = await read(most_log_bytes=LARGE_READ_BYTES)
    if opened is not None and opened.run.log_bytes > LARGE_READ_BYTES:
        opened = await paced_read(project_id, read)
    if opened is None:
        raise no_run(execution_id)
    return opened


async def run_of_flow(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    execution_id: str,
) -> RunRecord:
    """A run of that flow. Raises FLOW_NOT_FOUND, and RUN_NOT_FOUND also for a run of another flow."""
    flow = await require_flow(request, org, project, slug)
    run = await run_by_id(request, execution_id)
    if run.flow_id != flow.id:
        raise no_run(execution_id)
    return run


async def trace_of_flow(
    request: ApiRequest,
    org: str,
    project: str,
    slug: str,
    execution_id: str,
) -> OpenedTrace:
    """As `run_of_flow`, with its trace. Raises FLOW_NOT_FOUND, RUN_NOT_FOUND."""
    flow = await require_flow(request, org, project, slug)
    return await trace_by_id(request, execution_id, flow_id=flow.id)


def lost_run(execution_id: str) -> APIError:
    """The error for a run that was there before the store was restarted or replaced."""
    message = (
        f"run {execution_id!r} is not in the store any more: PostgreSQL was replaced by a standby that lacks"
        " the run, or it was deleted meanwhile; it cannot be resumed"
    )
    return api_error("INTERNAL_ERROR", message, execution_id=execution_id)


def no_run(execution_id: str) -> APIError:
    """The error for a run that does not exist or belongs to another project."""
    return api_error("RUN_NOT_FOUND", f"there is no run {execution_id!r}", execution_id=execution_id)


def require_executed(run: RunRecord, *, what: str) -> None:
    """Raises RUN_RECORDED for a run of another program, which cannot be `what`."""
    if run.is_recorded:
        message = f"run {run.id!r} is of another program, and cannot be {what} here"
        raise api_error("RUN_RECORDED", message, execution_id=run.id)


def is_owed(key: ApiKey, run: RunRecord) -> bool:
    """Whether the key may have the whole content of the run."""
    if run.capture == "full":
        return True
    if run.key_id is None:
        # A run without a key was started by the terminal or an earlier version: keys that may start runs get
        # its content.
        return key.role in MAY_EXECUTE
    return run.key_id == key.id


def require_owed(key: ApiKey, run: RunRecord, *, what: str) -> None:
    """Raises FORBIDDEN where `what` is not for this key, with the status of the run, which is no secret."""
    if is_owed(key, run):
        return
    who = "a key that may run flows" if run.key_id is None else f"key {run.key_id}, which started it"
    message = (
        f"{what} of run {run.id!r}, which is {run.status}, is only for {who}: its capture mode is"
        f" {run.capture!r}; with 'full' every key of the project may read it"
    )
    raise api_error("FORBIDDEN", message, execution_id=run.id, details={"status": run.status})
