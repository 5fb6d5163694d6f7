"""The run of the demo: a server on a socket, a key, a flow and the client, as users have them.

One thing differs: the server runs in this process, so that it ends with the demo. Runs of other kinds
are left behind, so that there is something to look at and to compare.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from rich.console import Console

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.run_watcher import WatchedRun
from runglass.cli.terminal.event_lines import PASSING, EventLines
from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.cli.terminal.output import complain, heading, stdout, width_of, write_line, write_lines
from runglass.cli.terminal.run_view import RunOverview
from runglass.cli.terminal.table import print_runs
from runglass.client.aio.client import AsyncClient
from runglass.config.settings import Settings
from runglass.errors import APIError
from runglass.flows.flow import Flow, LlmStep, leaves
from runglass.flows.parser import parse_flow
from runglass.log.events import LoopStarted, StepCompleted, StepSkipped, StepStarted, StreamEvent
from runglass.log.trace import Trace
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import push_flow
from runglass.server import new_event_loop, serving
from runglass.wire.run_api import CompletedResult

PROJECT = ProjectName("demo", "stories")
MOST_ROWS = 100_000

MOST_LINES = 90
"""After this many lines, events of success inside a loop are only counted."""

SIGN_OF_LIFE = 500
"""Counted events between two lines that tell their number."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city today.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
GOOD_ORDERS = "tea 4.50\nbread 3.20\ncheese 11.80"
BAD_ORDERS = "tea 4.50\nbread three\ncheese 11.80"
"""As the good ones, but for a price that is no number."""


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
        store, by = runtime.store, local_store.terminal_user()
        project = await store.ensure_project(PROJECT.org, PROJECT.project, by=by)
        for each in (flow, *example_flows()):
            record = await push_flow(store, project, each, by=by)
            await store.publish(record.id, by=by)
        key = await local_store.create_key(store, project, "admin", most=settings.max_keys_per_project)
        async with AsyncClient(key, base_url=f"{url}/api/v1") as client:
            run_id, result = await _run(client, flow, text, model)
            trace = await client.run(run_id).trace()
            rows = OutlineRows()
            rows.add(await client.run(run_id).outline(limit=MOST_ROWS))
            rows.finish()
            overview = RunOverview(await client.run(run_id).summary(), rows)
            attempts = {
                row: await client.run(run_id).step_trace(
                    each.step_id, attempt=each.attempt, loop_index=each.loop_path or None
                )
                for row, each in overview.wanted
            }
            heading("The trace")
            write_lines(overview.lines(attempts, named=run_id, width=width_of(stdout())))
            run_ids = await leave_example_runs(client, str(PROJECT))
            heading("And runs of other kinds, to look at and to compare")
            print_runs([await client.run(run_id).summary() for run_id in run_ids])
    return DemoRun(key, trace, result)


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


class LiveView:
    """Writes the events of one run to `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = EventLines()
        self._shown = 0
        self._counted: Counter[str] = Counter()

    def add(self, event: StreamEvent) -> None:
        """Shows or counts the event."""
        line = self._lines.line(event)
        if self._is_shown(event):
            self._shown += 1
            write_line(self._console, line)
            return
        self._counted[event.event_type] += 1
        if self._counted.total() % SIGN_OF_LIFE == 0:
            write_line(self._console, f"            … {self._counted.total():,} more events", style="dim")

    def close(self) -> None:
        """Writes the numbers of events that were shown, and of those counted, by type."""
        total = self._shown + self._counted.total()
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in self._counted.most_common())
        text = f"{total:,} events: {self._shown:,} shown" + (f", counted {kinds}" if kinds else "")
        write_line(self._console, f"            {text}", style="dim")

    def _is_shown(self, event: StreamEvent) -> bool:
        if isinstance(event, StepStarted):
            # The end of the step, with its duration, has a line of its own.
            return event.attempt > 1
        if isinstance(event, PASSING) and not isinstance(event, LoopStarted):
            return False
        if isinstance(event, (StepCompleted, StepSkipped)):
            return event.loop_path is None or self._shown < MOST_LINES
        return True


def example_flows() -> list[Flow]:
    """The flows of the runs, by slug."""
    folder = files("runglass.cli.demo").joinpath("flows")
    found = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [parse_flow(file.read_bytes(), file=file.name) for file in sorted(found, key=lambda it: it.name)]


async def leave_example_runs(client: AsyncClient, project: str) -> Sequence[str]:
    """Runs each of the flows, all at once; returns when the last has ended or waits. Their ids, newest last.

    One run is good and one of the same flow fails, one is retried, one cancelled, one waits for a tool's
    result, and one goes through nested loops. Raises APIError where one cannot be started.
    """
    runs = (
        _completed(client, f"{project}/add-up-orders", GOOD_ORDERS),
        _failed(client, f"{project}/add-up-orders", BAD_ORDERS),
        _completed(client, f"{project}/ask-a-flaky-source"),
        _completed(client, f"{project}/search-a-grid"),
        _cancelled(client, f"{project}/wait-for-a-person"),
        _paused(client, f"{project}/answer-with-tools"),
    )
    return sorted(await asyncio.gather(*runs))


async def _completed(client: AsyncClient, flow: str, message: str | None = None) -> str:
    return (await client.flow(flow).execute(message=message, trace=True)).execution_id


async def _failed(client: AsyncClient, flow: str, message: str) -> str:
    try:
        return await _completed(client, flow, message)
    except APIError as error:
        if error.code != "STEP_FAILED" or error.execution_id is None:
            raise
        return error.execution_id


async def _cancelled(client: AsyncClient, flow: str) -> str:
    job = await client.flow(flow).execute_async(trace=True)
    run = client.flow(flow).run(job.execution_id)
    async for event in run.live_trace():
        if isinstance(event, StepStarted) and event.step_id == "reading_time":
            break
    await run.cancel()
    return job.execution_id


async def _paused(client: AsyncClient, flow: str) -> str:
    waiting = await client.flow(flow).execute(tools=[WEATHER], trace=True)
    return waiting.execution_id
