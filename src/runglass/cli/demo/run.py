"""The run of the demo: a server on a socket, a key, a flow and the client, as users have them.

One thing differs: the server runs in this process, so that it ends with the demo.
"""

import asyncio
from typing import NamedTuple

from rich.text import Text

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.run_watcher import WatchedRun
from runglass.cli.demo.example_runs import example_flows, leave_example_runs
from runglass.cli.demo.live_view import LiveView
from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import complain, heading, one_line, stdout, width_of, write_line
from runglass.cli.terminal.run_table import print_runs
from runglass.cli.terminal.trace_view import excerpt, step_lines, summary_lines
from runglass.client.api.async_client import AsyncClient
from runglass.composition import open_runtime
from runglass.errors import APIError
from runglass.flow import Flow, LlmStep, leaves
from runglass.run_api import CompletedResult
from runglass.runtime import push_flow
from runglass.server import new_event_loop, serving
from runglass.settings import Settings
from runglass.store.base import Store
from runglass.trace import StepTrace, Trace

PROJECT = ProjectName("demo", "stories")
MOST_ROWS = 80
MOST_RETRIED = 3


class DemoRun(NamedTuple):
    """The key that the demo made, and the trace and result of its run; a failed run has no result."""

    key: str
    trace: Trace
    result: CompletedResult | None


def show_run(settings: Settings, flow: Flow, text: str, *, model: str) -> DemoRun:
    """Runs the flow over the text, shows events and trace. Raises APIError where no run was started."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_show(settings, flow, text, model))


async def _show(settings: Settings, flow: Flow, text: str, model: str) -> DemoRun:
    async with (
        open_runtime(settings) as runtime,
        serving(runtime, host=settings.host, port=settings.port) as url,
    ):
        key = await _prepare(runtime.store, flow, most_keys=settings.max_keys_per_project)
        async with AsyncClient(key, base_url=f"{url}/api/v1") as client:
            run_id, result = await _run(client, flow, text, model)
            trace = await client.run(run_id).trace()
            await _show_trace(client, trace)
            await _show_examples(client)
    return DemoRun(key, trace, result)


async def _prepare(store: Store, flow: Flow, *, most_keys: int) -> str:
    by = local_store.terminal_user()
    project = await store.ensure_project(PROJECT.org, PROJECT.project, by=by)
    for each in (flow, *example_flows()):
        record = await push_flow(store, project, each, by=by)
        await store.publish(record.id, by=by)
    key, _ = await local_store.create_key(store, project, "admin", most=most_keys)
    return key


async def _run(client: AsyncClient, flow: Flow, text: str, model: str) -> tuple[str, CompletedResult | None]:
    """The run's id and, unless it failed, its result. Raises APIError where no run was started."""
    view = LiveView(stdout())
    overrides = {
        step.id: {"model": model}
        for step in leaves(flow.steps)
        if isinstance(step, LlmStep) and step.model != model
    }

    run = WatchedRun(client, f"{PROJECT}/{flow.slug}", message=text, block_overrides=overrides, trace=True)
    heading("Live, as it happens")
    try:
        result = await run.result(view.add)
    except APIError as error:
        if error.execution_id is None:
            raise
        view.close()
        complain(str(error))
        return error.execution_id, None
    view.close()
    return result.execution_id, result


async def _show_trace(client: AsyncClient, trace: Trace) -> None:
    console = stdout()
    heading("The trace")
    for line in summary_lines(trace):
        write_line(console, line)
    write_line(console)
    part = excerpt(trace, MOST_ROWS)
    for line in step_lines(part, width=width_of(console)):
        write_line(console, line)
    if left_out := len(trace.steps) - len(part.steps):
        write_line(console, f"… and {formatting.counted(left_out, 'more step')} inside loops", style="dim")
    retried = [step for step in trace.steps if step.attempt > 1]
    for step in retried[:MOST_RETRIED]:
        attempts = await client.run(trace.flow_run.id).step_trace(
            step.step_id, attempt="all", loop_index=step.loop_path
        )
        where = f", iteration {formatting.iteration_of(step)}" if step.loop_path else ""
        heading(f"Attempt by attempt: step {step.step_id}{where}")
        for attempt in attempts.attempts:
            write_line(console, _attempt_line(attempt))


async def _show_examples(client: AsyncClient) -> None:
    run_ids = await leave_example_runs(client, str(PROJECT))
    heading("And runs of other kinds, to look at and to compare")
    print_runs([(await client.run(run_id).trace()).flow_run for run_id in run_ids])


def _attempt_line(step: StepTrace) -> Text:
    line = Text(f"{step.attempt}  ")
    line.append(f"{step.status:<9}", formatting.STYLES.get(step.status, ""))
    line.append(f"  {formatting.duration(step.duration_ms):>8}")
    if step.error_context is not None:
        line.append(f"  {one_line(formatting.error_text(step.error_context))}", "red")
    return line
