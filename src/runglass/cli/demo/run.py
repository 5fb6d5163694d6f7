"""The run of the demo: a key, a flow and the client, as users have them, and a server in this process.

Runs of other kinds are left behind, so that there is something to look at and to compare.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from typing import NamedTuple

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.local_server import in_process
from runglass.cli.backends.run_watcher import WatchedRun
from runglass.cli.backends.server import read_attempts, read_outline
from runglass.cli.terminal.output import complain, heading, stdout, width_of, write_lines
from runglass.cli.terminal.run_progress import following
from runglass.cli.terminal.run_view import RunOverview
from runglass.cli.terminal.table import print_runs
from runglass.client import Client
from runglass.client.api.admin import Management
from runglass.config.settings import Settings
from runglass.errors import APIError
from runglass.flows.flow import Flow, LlmStep, leaves
from runglass.flows.parser import parse_flow
from runglass.log.events import StepStarted
from runglass.log.trace import Trace
from runglass.store.base import Store
from runglass.store.records import Project
from runglass.wire.run_api import CompletedResult

PROJECT = ProjectName("demo", "stories")

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

    async def make_key(store: Store, project: Project) -> str:
        return await local_store.create_key(store, project, "admin", most=settings.max_keys_per_project)

    key = local_store.in_project(settings, PROJECT, make_key, create=True)
    with in_process(settings, PROJECT, executes=True) as client:
        for each in (flow, *example_flows()):
            Management(client).push(*PROJECT, each.slug, each.encode())
            Management(client).publish(*PROJECT, each.slug)
        run_id, result = _run(client, flow, text, model)
        run = client.run(run_id)
        trace = run.trace()
        rows = read_outline(run)
        overview = RunOverview(run.summary(), rows)
        attempts = read_attempts(run, overview.wanted)
        heading("The trace")
        write_lines(overview.lines(attempts, named=run_id, width=width_of(stdout())))
        run_ids = leave_example_runs(client, str(PROJECT))
        heading("And runs of other kinds, to look at and to compare")
        print_runs([client.run(run_id).summary() for run_id in run_ids])
    return DemoRun(key, trace, result)


def _run(client: Client, flow: Flow, text: str, model: str) -> tuple[str, CompletedResult | None]:
    """The run's id and, unless it failed, its result. Raises APIError where no run was started."""
    overrides = {
        step.id: {"model": model}
        for step in leaves(flow.steps)
        if isinstance(step, LlmStep) and step.model != model
    }

    run = WatchedRun(client, f"{PROJECT}/{flow.slug}", message=text, block_overrides=overrides, trace=True)
    heading("Live, as it happens")
    try:
        with following(stdout()) as show:
            result = run.result(show)
    except APIError as error:
        if error.execution_id is None:
            raise
        complain(str(error))
        return error.execution_id, None
    return result.execution_id, result


def example_flows() -> list[Flow]:
    """The flows of the runs, by slug."""
    folder = files("runglass.cli.demo").joinpath("flows")
    found = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [parse_flow(file.read_bytes(), file=file.name) for file in sorted(found, key=lambda it: it.name)]


def leave_example_runs(client: Client, project: str) -> Sequence[str]:
    """Runs each of the flows, all at once; returns when the last has ended or waits. Their ids, newest last.

    One run is good and one of the same flow fails, one is retried, one cancelled, one waits for a tool's
    result, and one goes through nested loops. Raises APIError where one cannot be started.
    """
    runs: tuple[Callable[[], str], ...] = (
        partial(_completed, client, f"{project}/add-up-orders", GOOD_ORDERS),
        partial(_failed, client, f"{project}/add-up-orders", BAD_ORDERS),
        partial(_completed, client, f"{project}/ask-a-flaky-source"),
        partial(_completed, client, f"{project}/search-a-grid"),
        partial(_cancelled, client, f"{project}/wait-for-a-person"),
        partial(_paused, client, f"{project}/answer-with-tools"),
    )
    with ThreadPoolExecutor(len(runs)) as threads:
        return sorted(threads.map(lambda run: run(), runs))


def _completed(client: Client, flow: str, message: str | None = None) -> str:
    return client.flow(flow).execute(message=message, trace=True).execution_id


def _failed(client: Client, flow: str, message: str) -> str:
    try:
        return _completed(client, flow, message)
    except APIError as error:
        if error.code != "STEP_FAILED" or error.execution_id is None:
            raise
        return error.execution_id


def _cancelled(client: Client, flow: str) -> str:
    run_id = client.flow(flow).execute_async(trace=True).execution_id
    for event in client.run(run_id).live_trace():
        if isinstance(event, StepStarted) and event.step_id == "reading_time":
            break
    client.run(run_id).cancel()
    return run_id


def _paused(client: Client, flow: str) -> str:
    return client.flow(flow).execute(tools=[WEATHER], trace=True).execution_id
