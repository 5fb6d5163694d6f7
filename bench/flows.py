"""The flows that the bench runs, each of no-op steps: what is measured is Runglass, not the work."""

from contextlib import suppress
from typing import Any

from runglass.bus.base import Bus
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.task import LeaseLost
from runglass.flows.flow import Flow
from runglass.flows.parser import parse_flow
from runglass.log.events import RunStarted
from runglass.log.fold import RunFold
from runglass.log.trace import RunSummary
from runglass.runtime.runtime import Runtime, push_flow
from runglass.store.base import Store
from runglass.store.records import NewRun, Project, RunRecord
from runglass.support.clock import SystemClock
from runglass.wire.run_api import RunRequest

ORG, PROJECT = "bench", "bench"

LOOP = """
slug: loop
steps:
  - id: each
    type: loop
    over: items
    steps: [{id: work, type: passthrough}]
"""

TEXTS = """
slug: texts
steps:
  - id: each
    type: loop
    over: items
    max_concurrency: 16
    steps: [{id: work, type: passthrough, input: {text: "%s"}}]
""" % ("The quick brown fox jumps over the lazy dog, and the dog does not mind. " * 4)
"""With `trace`, its iterations are about 820 bytes each in a trace."""

WAIT = """
slug: wait
steps: [{id: wait, type: wait, ms: 600000}]
"""


def loop_of(steps: int, *, trace: bool = False) -> RunRequest:
    """What to ask of a flow with a loop for so many iterations; `trace` keeps their snapshots."""
    parameters: dict[str, Any] = {"items": list(range(steps))}
    return RunRequest(parameters=parameters, trace=trace)


def chain(steps: int) -> str:
    """A flow of so many no-op steps, one after the other."""
    lines = [f"  - {{id: step-{number}, type: passthrough}}" for number in range(steps)]
    return "\n".join(["slug: chain", "steps:", *lines])


async def push(runtime: Runtime, *texts: str) -> Project:
    """Stores the flows as drafts of the bench's project."""
    project = await runtime.store.ensure_project(ORG, PROJECT)
    for text in texts:
        flow: Flow = parse_flow(text)
        await push_flow(runtime.store, project, flow)
    return project


async def run(runtime: Runtime, project: Project, slug: str, request: RunRequest | None = None) -> str:
    """Runs a flow to its end, here or in a process that shares the store; returns the run's id."""
    submitted = await submit(runtime, project, slug, request)
    await ended(submitted)
    return submitted.id


async def submit(
    runtime: Runtime, project: Project, slug: str, request: RunRequest | None = None
) -> StartedRun:
    """Starts a run of a flow, here or in a process that shares the store."""
    submitted = await runtime.submit(project, slug, request or RunRequest(), version=None, trigger_type="api")
    return submitted.run


async def ended(run: StartedRun) -> None:
    """Returns when the run has ended."""
    # Of a run that another process has executed the store has the outcome.
    with suppress(LeaseLost):
        await run.outcome()


async def create_run(
    store: Store, project: Project, slug: str, run_id: str, *, owner: str | None
) -> RunRecord:
    """A run of a flow without steps, which nothing executes; without an owner it waits to be claimed."""
    flow = await store.put_draft(project.id, slug, name=None, capture=None, source=b"{}")
    new = NewRun(
        id=run_id,
        project_id=project.id,
        flow_id=flow.id,
        version=0,
        trigger_type="api",
        capture="metadata_only",
        session_id=None,
        request=b"{}",
        summary=b"{}",
        owner=owner,
    )
    return await store.create_run(new)


async def begin_recording(store: Store, bus: Bus, project: Project, run_id: str, *, owner: str) -> RunWriter:
    """The writer of a run that nothing executes, which has its first event."""
    run = await create_run(store, project, "paced", run_id, owner=owner)
    fold = RunFold(RunSummary(id=run.id, flow_id=run.flow_id, status="pending"))
    writer = RunWriter(store, bus, run, fold, SystemClock(), owner=owner)
    writer.record(
        RunStarted(
            execution_id=run.id,
            run_id=run.id,
            flow_id=run.flow_id,
            step_count=1,
            trigger_type="api",
            version=0,
        )
    )
    await writer.commit()
    return writer
