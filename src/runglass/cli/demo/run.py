"""The run of the demo: a server on a socket, a key, a flow and the client, as users have them.

One thing differs: the server runs in this process, so that it ends with the demo.
"""

import asyncio
from typing import NamedTuple

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.run_watcher import WatchedRun
from runglass.cli.demo.example_runs import example_flows, leave_example_runs
from runglass.cli.demo.live_view import LiveView
from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.cli.terminal.output import complain, heading, stdout, width_of, write_line
from runglass.cli.terminal.run_overview import RunOverview
from runglass.cli.terminal.run_table import print_runs
from runglass.client.api.async_client import AsyncClient
from runglass.config.settings import Settings
from runglass.errors import APIError
from runglass.flows.flow import Flow, LlmStep, leaves
from runglass.log.trace import Trace
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import push_flow
from runglass.server import new_event_loop, serving
from runglass.store.base import Store
from runglass.wire.run_api import CompletedResult

PROJECT = ProjectName("demo", "stories")
MOST_ROWS = 100_000


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
            await _show_trace(client, run_id)
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


async def _show_trace(client: AsyncClient, run_id: str) -> None:
    console, run, rows = stdout(), client.run(run_id), OutlineRows()
    rows.add(await run.outline(limit=MOST_ROWS))
    rows.finish()
    overview = RunOverview(await run.summary(), rows)
    attempts = {
        row: await run.step_trace(each.step_id, attempt=each.attempt, loop_index=each.loop_path or None)
        for row, each in overview.wanted
    }
    heading("The trace")
    for line in overview.lines(attempts, named=run_id, width=width_of(console)):
        write_line(console, line)


async def _show_examples(client: AsyncClient) -> None:
    run_ids = await leave_example_runs(client, str(PROJECT))
    heading("And runs of other kinds, to look at and to compare")
    print_runs([await client.run(run_id).summary() for run_id in run_ids])
