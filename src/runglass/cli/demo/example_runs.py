"""Runs of other kinds that the demo leaves behind, so that there is something to look at and to compare."""

import asyncio
from collections.abc import Sequence
from importlib.resources import files

from runglass.client.api.async_client import AsyncClient
from runglass.errors import APIError
from runglass.flows.flow import Flow
from runglass.flows.parser import parse_flow
from runglass.log.events import StepStarted

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
