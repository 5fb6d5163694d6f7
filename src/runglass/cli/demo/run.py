"""The run of the demo: a key, a flow and the client, as users have them, and a server in this process.

Runs of other kinds are left behind, so that there is something to look at and to compare.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from typing import Any

from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends import local_store
from runglass.cli.backends.local_server import in_process
from runglass.cli.backends.run_watcher import WatchedRun
from runglass.cli.backends.server import read_attempt, read_outline
from runglass.cli.terminal.output import complain, heading, stdout, width_of, write_lines
from runglass.cli.terminal.run_progress import following
from runglass.cli.terminal.run_view import overview_lines
from runglass.cli.terminal.table import print_runs
from runglass.client import Client
from runglass.client.api.admin import Management
from runglass.client.core import run_requests
from runglass.config.settings import Settings
from runglass.errors import APIError
from runglass.flows.flow import Flow, LlmStep, leaves
from runglass.flows.parser import parse_flow
from runglass.log.events import StepStarted
from runglass.log.trace import Trace
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


def show_run(
    settings: Settings, flow: Flow, text: str, *, model: str
) -> tuple[str, Trace, CompletedResult | None]:
    """Runs the flow over the text, shows events and trace. Raises APIError where no run was started.

    Returns the key that it made, and the trace and result of the run; a failed run has no result.
    """
    make = partial(local_store.create_key, role="admin", most=settings.max_keys_per_project)
    key, _ = local_store.in_project(settings, PROJECT, make, create=True)
    with in_process(settings, PROJECT, executes=True) as client:
        for each in (flow, *example_flows()):
            Management(client).push(*PROJECT, each.slug, each.encode())
            Management(client).publish(*PROJECT, each.slug)
        overrides = {
            step.id: {"model": model}
            for step in leaves(flow.steps)
            if isinstance(step, LlmStep) and step.model != model
        }
        address, result = client.flow(f"{PROJECT}/{flow.slug}")._address, None
        call = run_requests.job(address, message=text, block_overrides=overrides, trace=True)
        watched = WatchedRun(client, call)
        heading("Live, as it happens")
        try:
            with following(stdout()) as show:
                result = watched.result(show)
        except APIError as error:
            if error.execution_id is None:
                raise
            complain(str(error))
        run = client.run(watched.run_id or "")
        trace = run.trace()
        heading("The trace")
        about = run.summary(), read_outline(run), partial(read_attempt, run)
        write_lines(overview_lines(*about, named=run.execution_id, width=width_of(stdout())))
        run_ids = leave_example_runs(client, str(PROJECT))
        heading("And runs of other kinds, to look at and to compare")
        print_runs([client.run(run_id).summary() for run_id in run_ids])
    return key, trace, result


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
        partial(_ran, client, f"{project}/add-up-orders", message=GOOD_ORDERS),
        partial(_ran, client, f"{project}/add-up-orders", message=BAD_ORDERS),
        partial(_ran, client, f"{project}/ask-a-flaky-source"),
        partial(_ran, client, f"{project}/search-a-grid"),
        partial(_cancelled, client, f"{project}/wait-for-a-person"),
        partial(_ran, client, f"{project}/answer-with-tools", tools=[WEATHER]),
    )
    with ThreadPoolExecutor(len(runs)) as threads:
        return sorted(threads.map(lambda run: run(), runs))


def _ran(client: Client, flow: str, **given: Any) -> str:
    try:
        return str(client.flow(flow).execute(trace=True, **given).execution_id)
    except APIError as error:
        if error.execution_id is None:
            raise
        return error.execution_id


def _cancelled(client: Client, flow: str) -> str:
    run_id = client.flow(flow).execute_async(trace=True).execution_id
    for event in client.run(run_id).live_trace():
        if isinstance(event, StepStarted) and event.step_id == "reading_time":
            break
    client.run(run_id).cancel()
    return run_id
