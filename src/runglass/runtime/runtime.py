"""A store, a bus and an engine that work together, and the few operations that need all of them.

These are pushing a flow, and turning a caller's request into a run. The form of the request on the wire is
the server's business; `runtime/composition.py` puts a runtime together.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import eq
from typing import Any, NamedTuple

import msgspec

from runglass.bus.base import Bus
from runglass.config.settings import Settings
from runglass.engine.capture.capture import capture_of_run
from runglass.engine.engine import Engine
from runglass.engine.journal.run_spec import RunSpec, Segment
from runglass.engine.maintenance.removal import RunRemoval
from runglass.engine.models.gateway import ModelGateway, ProviderCheck, missing_key
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.steps.run_context import LiveOutputs
from runglass.engine.workers.checks import Checks
from runglass.errors import APIError, api_error
from runglass.flows.flow import Flow, decode_flow, step_count
from runglass.limits.offload import LARGE_BYTES, offload, offload_in_turn
from runglass.limits.pace import paced_read
from runglass.recording.recordings import Recordings
from runglass.recording.span_reader import SpanReader
from runglass.runtime.policy import RunPolicy
from runglass.store.base import Store
from runglass.store.catalog import Catalog
from runglass.store.records import FlowRecord, IdempotencyKey, Project, Retention, Role
from runglass.support.byte_cache import ByteCache
from runglass.support.supervision import SupervisedTask
from runglass.tails.run_log import Tails
from runglass.wire.admin_api import SERVER, Actor
from runglass.wire.run_api import RunRequest, TraceContext

PROMPT_S = 0.2
"""A request whose body comes, or that starts its run, within this time needs no second check of its key."""


class FixedLimits(NamedTuple):
    """Limits that every server has and no setting changes; some tests have others."""

    poll_s: float = 1.0
    """So long a request or a run for another process may wait whose wake-up was lost."""
    noted_s: float = 2.0
    """So long a server of the version before may take from noting a call to resuming its run."""
    long_run_events: int = 100_000
    """Of a run with fewer events the outline is made within some tenths of a second."""
    ends_bytes: int = 128 * 1024
    """About how much is read of the beginning of such a run, and of its end."""
    repeated_s: float = 3.0
    """So long after a failure the repeat of a call without an Idempotency-Key gets it once more."""


decode_stored_flow = ByteCache(decode_flow, times=10, share=0.5)


class Submitted(NamedTuple):
    """A run that was started, with the facts about its flow that the answer has."""

    run: StartedRun
    flow_id: str
    block_count: int


@dataclass(kw_only=True, eq=False)
class Runtime:
    """A store, a bus and an engine that work together."""

    settings: Settings
    store: Store
    bus: Bus
    engine: Engine
    models: ModelGateway
    removal: RunRemoval
    recordings: Recordings
    spans: SpanReader
    checks: Checks
    supervised: Sequence[SupervisedTask]
    limits: FixedLimits

    def __post_init__(self) -> None:
        self.tails = Tails(
            self.store,
            self.bus,
            poll_s=self.settings.tail_poll_s,
            in_turn=lambda run, read: paced_read(run.project_id, read, size_bytes=run.log_bytes),
        )
        self.policy = RunPolicy(self.store, self.settings)
        self._model_names = ProviderCheck(own_providers=self.settings.providers)

    async def submit(
        self,
        project: Project,
        slug: str,
        request: RunRequest,
        *,
        version: int | None,
        trigger_type: str,
        session_id: str | None = None,
        trace_context: TraceContext | None = None,
        segment: Segment | None = None,
        history: Sequence[dict[str, Any]] = (),
        call: IdempotencyKey | None = None,
        outputs: LiveOutputs | None = None,
        size_bytes: int = 0,
        key_id: int | None = None,
        started_by: str | None = None,
        role: Role = "run",
        rerun_of: str | None = None,
    ) -> Submitted:
        """Checks the request and starts the run. `version` None is production, or the draft without one.

        `size_bytes` is about how large the request is, `role` that of its caller; `key_id` is the key that
        is owed its content, `started_by` its name; `rerun_of` is the run that is run again.

        Raises APIError for an unknown flow or version, for inputs, overrides or models that do not fit or are
        not allowed, for a provider without a key, and then for a spent budget or a full project;
        DuplicateIdempotencyKey where `call` has been made before.
        """
        began_s = time.monotonic()
        record, number, flow = await self.find(project, slug, version)
        given = run_inputs(request)
        flow, inputs = await self.with_overrides(
            project, flow, request.block_overrides, given, role=role, size_bytes=size_bytes
        )
        assert inputs is not None
        is_as_given = inputs is given or await offload(partial(eq, given, inputs), size_bytes=size_bytes)
        # A check may have waited long for its turn.
        if key_id is not None:
            waited = time.monotonic() - began_s > PROMPT_S
            await self.require_key(key_id, waited=waited or size_bytes > LARGE_BYTES)
        project = await self.current(project)
        await self.check_models(project, flow)
        # A job is answered before it has a place, and may get one in another process.
        if self.settings.executes_runs and trigger_type != "job":
            missing = await missing_key(flow, self.models)
            if missing is not None:
                step_id, message = missing
                raise api_error("PROVIDER_KEY_MISSING", f"step {step_id!r}: {message}", step_id=step_id)
        self.require_credit(project)
        self.require_room(project)
        run_id = self.engine.ids.next()
        capture = capture_of_run(run_id, flow, project, self.settings, traced=request.trace)
        spec = RunSpec(
            flow=flow,
            version=number,
            inputs=inputs,
            given=None if is_as_given else given,
            capture=capture.mode,
            capture_failed=capture.failed,
            trigger_type=trigger_type,
            history=list(history),
            attachments=request.attachments,
            trace_context=trace_context,
            rerun_of=rerun_of,
        )
        segment = msgspec.structs.replace(segment or Segment(), block_overrides=request.block_overrides)
        with self.engine.limits.memory.starting(size_bytes, project_id=project.id):
            run = await self.engine.start(
                record,
                spec,
                segment,
                run_id=run_id,
                session_id=session_id,
                call=call,
                outputs=outputs,
                size_bytes=size_bytes,
                key_id=key_id,
                started_by=started_by,
            )
        return Submitted(run, record.id, step_count(flow))

    async def with_overrides(
        self,
        project: Project,
        flow: Flow,
        overrides: Mapping[str, dict[str, Any]],
        inputs: dict[str, Any] | None,
        *,
        role: Role,
        size_bytes: int,
    ) -> tuple[Flow, dict[str, Any] | None]:
        """The flow with the overrides of a call, and the inputs, where given, with the flow's defaults.

        Raises INVALID_REQUEST, MODEL_NOT_SUPPORTED, and FORBIDDEN for an override that the role may not make.
        """
        await self.policy.check_overrides(project, flow, overrides, role=role, size_bytes=size_bytes)
        return await self.checks.request(
            flow, overrides, inputs, size_bytes=size_bytes, project_id=project.id
        )

    async def find(self, project: Project, slug: str, version: int | None) -> tuple[FlowRecord, int, Flow]:
        """A flow and one of its versions; None is production, or the draft without one. Raises APIError."""
        record = await self.store.find_flow(project.id, slug)
        if record is None:
            raise await self.policy.no_flow(project, slug)
        if record.recorded:
            message = f"flow {slug!r} has runs recorded from another program: only that program executes it"
            raise api_error("RUN_RECORDED", message)
        number = version if version is not None else record.production_version or 0
        source = await self.store.runnable_source(record.id, number)
        if source is None:
            raise await self.no_version(record, number)
        flow = await offload(partial(decode_stored_flow, source), size_bytes=len(source))
        return record, number, flow

    async def no_version(self, record: FlowRecord, number: int) -> APIError:
        """VERSION_NOT_FOUND for a version that cannot run: there is none, or it came with an imported run."""
        message = f"flow {record.slug!r} has no version {number}"
        if await self.store.flow_source(record.id, number) is not None:
            message = (
                f"version {number} of flow {record.slug!r} came with an imported run and is there to be read;"
                " push it as a draft, publish that, and run the version that it becomes"
            )
        return api_error("VERSION_NOT_FOUND", message)

    async def require_key(self, key_id: int, *, waited: bool) -> None:
        """Raises UNAUTHENTICATED where the key was revoked while its request waited."""
        if waited and not await self.store.live_keys([key_id]):
            message = "the API key was revoked while its request was checked; nothing was done"
            raise api_error("UNAUTHENTICATED", message)

    async def check_models(self, project: Project, flow: Flow) -> None:
        """Raises MODEL_NOT_SUPPORTED for a step whose model names no provider that this server knows.

        Raises FORBIDDEN for a model or settings that the project or the server does not allow.
        """
        await self._model_names.check(flow)
        self.policy.check_flow(project, flow)

    async def current(self, project: Project) -> Project:
        """The project as the store has it now, which may have changed while the body came in.

        Other runs may have spent the budget meanwhile, or an administrator may have changed the project.
        """
        return await self.store.project(project.id) or project

    def require_credit(self, project: Project) -> None:
        """Raises INSUFFICIENT_CREDITS where the project has a budget and nothing of it is left."""
        if project.is_spent:
            raise api_error(
                "INSUFFICIENT_CREDITS",
                f"the budget of project {project.org}/{project.name} is spent and nothing was started;"
                " an administrator of the server can raise it",
            )

    def require_room(self, project: Project) -> None:
        """Raises UNAVAILABLE where the project's runs take as much of the store as they may."""
        # Runs that go on may pass the limit by the size that the log of each may have.
        limit = self.settings.project_data_bytes
        if project.data_bytes >= limit:
            raise api_error(
                "UNAVAILABLE",
                f"the runs of project {project.org}/{project.name} take {project.data_bytes:,} bytes in the"
                f" store and may take {limit:,} (setting project_data_bytes); nothing was started. Delete"
                " runs (`runglass runs delete`), let them go by themselves (setting retention_days), or raise"
                " the limit",
            )


async def push_flow(store: Catalog, project: Project, flow: Flow, *, by: Actor = SERVER) -> FlowRecord:
    """Stores the flow as the draft of its slug. Raises FlowRecorded."""
    # A thread encodes the flow, as a large one would block the event loop.
    source = await offload_in_turn(flow.encode)
    return await store.put_draft(
        project.id,
        flow.slug,
        name=flow.name,
        capture=flow.capture,
        source=source,
        retention=Retention(flow.retention_days, flow.content_retention_days),
        by=by,
    )


def run_inputs(request: RunRequest) -> dict[str, Any]:
    """The run's inputs: the parameters, with the message beside them. Raises APIError."""
    if "attachments" in request.parameters:
        raise api_error("PARAMETER_NAME_RESERVED", "`parameters.attachments` is reserved; use another name")
    if request.message is None:
        return request.parameters
    if "message" in request.parameters:
        raise api_error("INVALID_REQUEST", "`message` is given twice, inside `parameters` and beside them")
    return {**request.parameters, "message": request.message}
