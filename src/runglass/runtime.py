"""Composition root: settings in, a store, a bus and an engine that belong together out.

Also the few things that need all of them: pushing a flow, and turning a caller's request into a run. What the
request looked like on the wire is the server's business.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from filelock import FileLock, Timeout

from runglass.admin_api import SERVER, Actor
from runglass.bus.base import Bus
from runglass.bus.memory import MemoryBus
from runglass.byte_cache import ByteCache, limit_caches
from runglass.clock import SystemClock
from runglass.engine.active_runs import StartedRun
from runglass.engine.capture.capture import Capture, Redactor, raise_for_trace
from runglass.engine.capture.redaction_client import RedactionClient
from runglass.engine.checks.checks import Checks
from runglass.engine.engine import Engine
from runglass.engine.journal.run_spec import RunSpec, Segment
from runglass.engine.maintenance.maintenance import Maintenance
from runglass.engine.maintenance.removal import RunRemoval
from runglass.engine.models.gateway import ModelGateway
from runglass.engine.models.provider_check import ProviderCheck
from runglass.engine.sandbox.sandbox import Sandbox
from runglass.engine.sandbox.templates import Templates
from runglass.engine.scheduling.fair_share import FairTurns, Shares
from runglass.engine.scheduling.memory_budget import MemoryBudget
from runglass.engine.scheduling.offloading import LARGE_BYTES, offload, offload_in_turn
from runglass.engine.scheduling.run_limits import RunLimits
from runglass.engine.steps.handlers import StepDependencies
from runglass.engine.supervision import SupervisedTask
from runglass.errors import RunglassError, api_error
from runglass.flow import Flow, decode_flow, step_count
from runglass.log_tail import Tails
from runglass.provider_settings import SettingRules
from runglass.run_api import CaptureMode, RunRequest, TraceContext
from runglass.run_policy import RunPolicy
from runglass.settings import Settings, SettingsError
from runglass.store.base import Store
from runglass.store.data_folder import make_folder
from runglass.store.records import FlowRecord, IdempotencyKey, Project, Retention, Role
from runglass.store.sqlite.store import SqliteStore

PROMPT_S = 0.2
"""A request that takes no longer until it starts its run is as good as its key was at first."""
SETTLED_S = 60.0
"""So long housekeeping must have gone on after a failure to count as in order again."""

decode_stored_flow = ByteCache(decode_flow, times=10, share=0.5)


class DataInUse(RunglassError):
    """Another process runs flows on the same data folder."""


class Submitted(NamedTuple):
    """A run that was started, with what the answer to its caller says about its flow."""

    run: StartedRun
    flow_id: str
    block_count: int


class Runtime:
    """A store, a bus and an engine that work together."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        bus: Bus,
        engine: Engine,
        removal: RunRemoval,
        checks: Checks,
        supervised: Sequence[SupervisedTask] = (),
    ) -> None:
        self.settings = settings
        self.checks = checks
        self.store = store
        self.bus = bus
        self.tails = Tails(store, bus, poll_s=settings.tail_poll_s)
        self.engine = engine
        self.removal = removal
        self.supervised = supervised
        self.policy = RunPolicy(store, settings)
        self._model_names = ProviderCheck(own_providers=settings.providers)

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
        stretch: Segment | None = None,
        history: Sequence[dict[str, Any]] = (),
        call: IdempotencyKey | None = None,
        outputs: MutableMapping[int, bytes] | None = None,
        size_bytes: int = 0,
        key_id: int | None = None,
        role: Role = "run",
    ) -> Submitted:
        """Checks the request and starts the run. `version` None is production, or the draft without one.

        `size_bytes` is about how large the request is, `role` that of its caller; `key_id` is the key that is
        owed what comes of it.

        Raises APIError for an unknown flow or version, for inputs, overrides or models that do not fit or are
        not allowed, and then for a spent budget or a full project; CallRepeated where `call` has been made
        before.
        """
        began_s = time.monotonic()
        record, number, flow = await self.find(project, slug, version)
        await self.policy.check_overrides(
            project, flow, request.block_overrides, role=role, size_bytes=size_bytes
        )
        flow, inputs = await self.checks.request(
            flow,
            request.block_overrides,
            run_inputs(request),
            size_bytes=size_bytes,
            project_id=project.id,
        )
        assert inputs is not None
        # A check may wait for its turn for long.
        if key_id is not None:
            waited = time.monotonic() - began_s > PROMPT_S
            await self.require_key(key_id, waited=waited or size_bytes > LARGE_BYTES)
        project = await self.current(project)
        await self.check_models(project, flow)
        self.require_credit(project)
        self.require_room(project)
        plan = RunSpec(
            flow=flow,
            version=number,
            inputs=inputs,
            capture=self.capture_mode(project, flow, trace=request.trace),
            trigger_type=trigger_type,
            history=list(history),
            attachments=request.attachments,
            trace_context=trace_context,
        )
        stretch = msgspec.structs.replace(stretch or Segment(), block_overrides=request.block_overrides)
        with self.engine.memory.starting(size_bytes, project_id=project.id):
            run = await self.engine.start(
                record,
                plan,
                stretch,
                session_id=session_id,
                call=call,
                outputs=outputs,
                size_bytes=size_bytes,
                key_id=key_id,
            )
        return Submitted(run, record.id, step_count(flow))

    async def find(self, project: Project, slug: str, version: int | None) -> tuple[FlowRecord, int, Flow]:
        """A flow and one of its versions; None is production, or the draft without one. Raises APIError."""
        record = await self.store.find_flow(project.id, slug)
        if record is None:
            raise api_error("FLOW_NOT_FOUND", f"there is no flow {slug!r} in {project.org}/{project.name}")
        number = version if version is not None else record.production_version or 0
        source = await self.store.flow_source(record.id, number)
        if source is None:
            raise api_error("VERSION_NOT_FOUND", f"flow {slug!r} has no version {number}")
        flow = await offload(partial(decode_stored_flow, source), size_bytes=len(source))
        return record, number, flow

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
        """The project as it stands now: since the call came in, a body may have taken its time.

        Meanwhile other runs have spent the budget, or somebody has set it, the capture mode or the models.
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
        # Runs that go on may pass the limit by what each of them may log.
        limit = self.settings.project_data_bytes
        if project.data_bytes >= limit:
            raise api_error(
                "UNAVAILABLE",
                f"the runs of project {project.org}/{project.name} take {project.data_bytes:,} bytes in the"
                f" store and may take {limit:,} (setting project_data_bytes); nothing was started. Delete"
                " runs (`runglass runs delete`), let them go by themselves (setting retention_days), or raise"
                " the limit",
            )

    def capture_mode(self, project: Project, flow: Flow, *, trace: bool) -> CaptureMode:
        """The mode of the flow, else of the project, else of the server; `trace` asks for full snapshots."""
        mode = flow.capture or project.capture or self.settings.capture
        return raise_for_trace(mode) if trace else mode


async def push_flow(store: Store, project: Project, flow: Flow, *, by: Actor = SERVER) -> FlowRecord:
    """Stores the flow as the draft of its slug."""
    # In a thread: nobody else is to wait while a large flow is written out.
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
        raise api_error("INVALID_REQUEST", "`message` is given twice, beside `parameters` and inside of them")
    return {**request.parameters, "message": request.message}


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """The store alone, for commands that work on the data beside a running server."""
    async with SqliteStore(settings.database, synchronous=settings.synchronous) as store:
        yield store


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Everything that runs flows, until the block ends; runs that go on then are left for the next start.

    Raises SettingsError, StoreError, and DataInUse while another process runs flows on the same data.
    """
    if settings.bus != "memory://":
        raise SettingsError(f"bus {settings.bus!r} is not supported here; use memory://")
    try:
        redactor = Redactor(extra_keys=settings.redact_keys, extra_patterns=settings.redact_patterns)
    except ValueError as error:
        raise SettingsError(f"redact_patterns: {error}") from error
    try:
        rules = SettingRules(settings.allowed_settings)
    except ValueError as error:
        raise SettingsError(f"allowed_settings: {error}") from error
    limit_caches(settings.cache_limit_bytes)
    with exclusive(settings.database):
        async with (
            SqliteStore(settings.database, synchronous=settings.synchronous) as store,
            Sandbox(
                time_limit_ms=settings.code_time_limit_ms,
                memory_limit_bytes=settings.code_memory_limit_bytes,
                most_each=_limit(settings.max_concurrent_steps_per_project),
            ) as sandbox,
            _checks(settings) as checks,
            RedactionClient(
                time_limit_ms=settings.redaction_time_limit_ms,
                memory_limit_bytes=settings.redaction_memory_limit_bytes,
            ) as redactions,
            Templates(most_each=_limit(settings.max_concurrent_steps_per_project)) as templates,
            ModelGateway(
                base_urls=settings.providers,
                api_keys=settings.provider_keys,
                prices=settings.prices,
                rules=rules,
                default_max_tokens=settings.default_max_tokens,
                image_tokens=settings.image_tokens,
                checks=checks,
            ) as models,
        ):
            bus = MemoryBus()
            parts = StepDependencies(
                sandbox=sandbox,
                templates=templates,
                models=models,
                clock=SystemClock(),
                model_turns=FairTurns(
                    Shares(math.inf, most_each=_limit(settings.max_concurrent_model_calls_per_project))
                ),
            )

            def make_capture(mode: CaptureMode) -> Capture:
                return Capture(
                    mode,
                    limit_bytes=settings.snapshot_limit_bytes,
                    redactor=redactor,
                    redactions=redactions,
                )

            # Nobody else runs flows on this data, so whatever leases are left are those of the dead.
            await store.end_lease(None)
            async with Engine(
                store=store,
                bus=bus,
                parts=parts,
                make_capture=make_capture,
                crash_retries=settings.crash_retries,
                lease_s=settings.lease_s,
                max_concurrent_runs=settings.max_concurrent_runs,
                max_queued_runs=settings.max_queued_runs,
                max_concurrent_runs_per_project=_limit(settings.max_concurrent_runs_per_project),
                max_queued_runs_per_project=_limit(settings.max_queued_runs_per_project),
                weights=await _weights(store, settings),
                memory=MemoryBudget(
                    limit_bytes=settings.memory_limit_bytes, run_bytes=settings.run_memory_bytes
                ),
                limits=RunLimits(
                    iterations=settings.run_iterations,
                    output_bytes=settings.run_output_bytes,
                    log_bytes=settings.run_log_bytes,
                ),
            ) as engine:
                housekeeping = Maintenance(
                    store=store,
                    engine=engine,
                    clock=parts.clock,
                    pause_limit=timedelta(hours=settings.pause_limit_h),
                    answer_ttl=timedelta(seconds=settings.answer_ttl_s),
                )
                removal = RunRemoval(
                    store=store,
                    clock=parts.clock,
                    default=Retention(settings.retention_days, settings.content_retention_days),
                )
                supervised = [
                    SupervisedTask(
                        "the lease keeper",
                        engine.run_forever,
                        clock=parts.clock,
                        vital=True,
                        settled_s=settings.lease_s,
                    ),
                    *(
                        SupervisedTask(name, work, clock=parts.clock, vital=False, settled_s=SETTLED_S)
                        for name, work in (
                            ("housekeeping", housekeeping.run_forever),
                            ("the expiry of answers", housekeeping.expire_forever),
                            ("the removal of runs", removal.run_forever),
                        )
                    ),
                ]
                beside = {asyncio.create_task(work.run_forever(), name=work.name) for work in supervised}
                try:
                    yield Runtime(
                        settings=settings,
                        store=store,
                        bus=bus,
                        engine=engine,
                        removal=removal,
                        checks=checks,
                        supervised=supervised,
                    )
                finally:
                    await engine.stop(grace_s=settings.stop_grace_s)
                    for task in beside:
                        task.cancel()
                    await asyncio.wait(beside)


def _checks(settings: Settings) -> Checks:
    return Checks(
        time_limit_ms=settings.check_time_limit_ms,
        flow_time_limit_ms=settings.flow_check_time_limit_ms,
        memory_limit_bytes=settings.check_memory_limit_bytes,
        schema_limit_bytes=settings.schema_limit_bytes,
        flow_limit_bytes=settings.flow_limit_bytes,
    )


def _limit(setting: int | None) -> float:
    return math.inf if setting is None else setting


async def _weights(store: Store, settings: Settings) -> dict[int, float]:
    """The weights of projects by their ids. One that does not exist yet has its own after the next start."""
    found = {f"{project.org}/{project.name}": project.id for project in await store.projects()}
    return {found[name]: weight for name, weight in settings.project_weights.items() if name in found}


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Nobody else runs flows on this database until the block ends. Raises DataInUse, SettingsError."""
    # A lock of the operating system: it is gone when its process is, however that ended.
    path = database.with_name(database.name + ".lock")
    lock = FileLock(path, mode=0o600, blocking=False, thread_local=False)
    try:
        make_folder(database.parent)
        lock.acquire()
    except Timeout as error:
        raise DataInUse(
            f"another process runs flows on {str(database)!r}; stop it or use another --data folder"
        ) from error
    except OSError as error:
        raise SettingsError(f"the data folder {str(database.parent)!r} cannot be used: {error}") from error
    try:
        yield
    finally:
        lock.release()
