"""Composition root: settings in, a runtime out whose parts belong together."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import timedelta
from decimal import getcontext
from functools import cache, partial

import runglass
from runglass.bus.base import Bus
from runglass.bus.process_bus import ProcessBus
from runglass.config.address import is_nats, parse_nats_address
from runglass.config.settings import Settings, SettingsError
from runglass.engine.capture.capture import Capture, Redactor
from runglass.engine.capture.redaction_client import RedactionClient
from runglass.engine.engine import Engine
from runglass.engine.maintenance.maintenance import Maintenance
from runglass.engine.maintenance.removal import RunRemoval
from runglass.engine.models.gateway import ModelGateway
from runglass.engine.steps.run_context import StepDependencies
from runglass.engine.workers.checks import Checks
from runglass.engine.workers.sandbox import Sandbox
from runglass.engine.workers.templates import Templates
from runglass.errors import UpgradeRequired
from runglass.limits.limits import Limits
from runglass.recording.recordings import Recordings
from runglass.recording.settling import Settling
from runglass.recording.span_reader import SpanReader
from runglass.runtime.policy import setting_rules
from runglass.runtime.runtime import FixedLimits, Runtime
from runglass.store.base import Store
from runglass.store.data_folder import DataInUse, exclusive, running_server
from runglass.store.integrity import Checked
from runglass.store.leases import ProcessFacts
from runglass.store.sqlite.database_file import check, upgrade
from runglass.store.sqlite.store import SqliteStore
from runglass.support.byte_cache import limit_caches
from runglass.support.supervision import SupervisedTask

PATIENCE_S = 5.0
"""How long a call waits for a PostgreSQL that has just gone away, and a start for one that is not there."""
SETTLED_S = 60.0
"""Housekeeping must have run for this long after a failure to count as healthy again."""


def open_store(settings: Settings) -> Store:
    """The store alone, for commands that work on the data beside a running server.

    Raises SettingsError, and UpgradeRequired for a store of an older version.
    """
    return _store(settings, migrates=False)


async def upgrade_store(settings: Settings, *, with_copy: bool = True) -> None:
    """Brings the store to the schema of this version, which is logged before. Raises StoreError, DataInUse.

    An SQLite file is copied first; a copy of a PostgreSQL is its operator's.
    """
    try:
        async with _store(settings, migrates=True):
            pass
    except UpgradeRequired:
        with exclusive(settings.database):
            await asyncio.to_thread(upgrade, settings.database, with_copy=with_copy)


def check_store(settings: Settings, *, every_run: bool, tell: Callable[[int, int], None]) -> Checked:
    """Checks the store beside a running server; blocking. Raises SettingsError, StoreError."""
    if settings.postgres is None:
        return check(settings.database, every_run=every_run, tell=tell)
    try:
        from runglass.store.postgres import integrity
    except ModuleNotFoundError as error:
        raise _without_driver(error) from error
    return asyncio.run(integrity.check(settings.postgres, every_run=every_run, tell=tell))


def _without_driver(error: ModuleNotFoundError) -> SettingsError:
    return SettingsError(f"a store on PostgreSQL needs {error.name}: pip install 'runglass[server,postgres]'")


def _store(settings: Settings, *, migrates: bool) -> Store:
    if settings.postgres is None:
        return SqliteStore(settings.database, synchronous=settings.synchronous)
    try:
        # Imported here, as its driver is installed only where it is needed.
        from runglass.store.postgres.store import PostgresStore
    except ModuleNotFoundError as error:
        raise _without_driver(error) from error
    # A run that goes on waits as long as nobody else may go on with it.
    return PostgresStore(
        settings.postgres, patience_s=PATIENCE_S, append_patience_s=settings.lease_s, migrates=migrates
    )


def _bus(settings: Settings) -> Bus:
    if (address := settings.bus_address) is None:
        return Bus()
    try:
        # Imported here, as the drivers are installed only where they are needed.
        if is_nats(address):
            from runglass.bus.nats import NatsCarrier

            return ProcessBus(NatsCarrier(parse_nats_address(address)))
        from runglass.bus.postgres import PostgresCarrier

        return ProcessBus(PostgresCarrier(address))
    except ModuleNotFoundError as error:
        extra = "nats" if is_nats(address) else "postgres"
        raise SettingsError(f"this bus needs {error.name}: pip install 'runglass[server,{extra}]'") from error
    except (ValueError, OSError) as error:
        raise SettingsError(f"bus: {error}") from error


@asynccontextmanager
async def _runtime_store(settings: Settings) -> AsyncIterator[Store]:
    """The store of a process that runs flows on it; one in a file is for this process alone."""
    if settings.postgres is not None:
        async with _store(settings, migrates=True) as store:
            yield store
        return
    with exclusive(settings.database):
        await asyncio.to_thread(upgrade, settings.database)
        async with _store(settings, migrates=True) as store:
            # The data lock shuts out other processes, so all leases in the store belong to dead ones.
            await store.end_lease(None)
            yield store


@asynccontextmanager
async def open_runtime(
    settings: Settings, limits: FixedLimits | None = None, *, is_guest: bool = False
) -> AsyncIterator[Runtime]:
    """The runtime, until the block ends; runs that are not finished then go on after the next start.

    A guest reads and manages what is in a store, beside whatever process has it: it starts and claims no run,
    has no lease, does no housekeeping, and upgrades nothing.

    Raises SettingsError, StoreError, and DataInUse while another process has the same file; a guest
    UpgradeRequired for a store of an older version.
    """
    limits = limits or FixedLimits()
    bus = Bus() if is_guest else _bus(settings)
    if not isinstance(bus, ProcessBus):
        # In one process no wake-up is lost, and no other server may have noted a call.
        limits = limits._replace(poll_s=settings.lease_s, noted_s=0.0)
    if settings.postgres is None and not (settings.executes_runs or is_guest):
        raise SettingsError(
            "executes_runs is false, and no other process executes the runs of a SQLite file; leave it true,"
            " or name a store on PostgreSQL"
        )
    try:
        redactor = Redactor(extra_keys=settings.redact_keys, extra_patterns=settings.redact_patterns)
    except ValueError as error:
        raise SettingsError(f"redact_patterns: {error}") from error
    captures = partial(Capture, limit_bytes=settings.snapshot_limit_bytes, redactor=redactor)
    limit_caches(settings.cache_limit_bytes)
    # All tasks inherit it: else each that reads an amount of money makes one, and a run keeps it to its end.
    getcontext()
    async with (
        open_store(settings) if is_guest else _runtime_store(settings) as store,
        Sandbox(settings) as sandbox,
        Checks(settings) as checks,
        RedactionClient(settings) as redactions,
        SpanReader(captures("redacted")) as spans,
        Templates(settings) as templates,
        ModelGateway(settings, checks=checks, rules=setting_rules(settings)) as models,
    ):
        clock = store.clock
        dependencies = StepDependencies(sandbox=sandbox, templates=templates, models=models, clock=clock)
        # By the ids of projects. A project that is made later gets its own at the next start.
        ids = {f"{project.org}/{project.name}": project.id for project in await store.projects()}
        weights = {ids[name]: weight for name, weight in settings.project_weights.items() if name in ids}
        if not is_guest:
            await store.set_weights(weights)
            if settings.spans_url is not None:
                # Runs count from now on, though this process may send none: a worker, or a command.
                await store.span_cursors()
        make_capture = cache(partial(captures, redactions=redactions))
        engine = Engine(
            store=store,
            bus=bus,
            dependencies=dependencies,
            make_capture=make_capture,
            limits=Limits(settings, weights=weights),
            process=ProcessFacts(
                socket.gethostname(), os.getpid(), runglass.__version__, settings.executes_runs
            ),
            poll_s=limits.poll_s,
        )
        if is_guest:
            # Nothing begins any more, and there is no lease to end.
            await engine.gate.close(0)
        async with nullcontext() if is_guest else engine:
            housekeeping = Maintenance(store=store, engine=engine, clock=clock, settings=settings)
            removal = RunRemoval(store=store, engine=engine, clock=clock, settings=settings)
            recordings = Recordings(
                store=store,
                bus=bus,
                clock=clock,
                new_id=engine.ids.next,
                make_capture=make_capture,
                settle=timedelta(seconds=settings.recording_settle_s),
                most_flows=settings.max_recorded_flows_per_project,
                is_alone=settings.postgres is None,
            )
            settling = Settling(
                store=store,
                recordings=recordings,
                clock=clock,
                settle=timedelta(seconds=settings.recording_settle_s),
                idle=timedelta(seconds=settings.recording_idle_s),
            )
            works = {
                "housekeeping": housekeeping.run_forever,
                "the expiry of answers": housekeeping.expire_forever,
                "the removal of runs": removal.run_forever,
                "the end of recorded runs": settling.run_forever,
            }
            if settings.executes_runs:
                works["the watch for requests"] = engine.idle.watch_cancel_requests
            if isinstance(bus, ProcessBus):
                works["the bus"] = bus.run_forever
                # Who puts work into the store of one process tells its engine.
                if settings.executes_runs:
                    works["the watch for work"] = engine.claims.watch_work
            keep_lease = engine.claims.run_forever
            supervised = [
                SupervisedTask(
                    "the lease keeper", keep_lease, clock=clock, vital=True, settled_s=settings.lease_s
                ),
                *(
                    SupervisedTask(name, work, clock=clock, vital=False, settled_s=SETTLED_S)
                    for name, work in works.items()
                ),
            ]
            if is_guest:
                supervised.clear()
            beside = {asyncio.create_task(work.run_forever(), name=work.name) for work in supervised}
            try:
                yield Runtime(
                    settings=settings,
                    store=store,
                    bus=bus,
                    engine=engine,
                    models=models,
                    removal=removal,
                    recordings=recordings,
                    spans=spans,
                    checks=checks,
                    supervised=supervised,
                    limits=limits,
                )
            finally:
                await engine.stop(grace_s=settings.stop_grace_s)
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                if is_guest and settings.postgres is None and removal.woken.is_set():
                    # Beside a process that has the file, this is its work.
                    with suppress(DataInUse):
                        if running_server(settings.database) is None:
                            await removal.finish()
