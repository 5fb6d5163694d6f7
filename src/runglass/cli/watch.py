"""Run a flow and follow its events while the call still waits for the result.

The call that executes a flow answers only when the run has ended, so its run is found among the newest ones.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from runglass.cli.terminal import note
from runglass.errors import APIConnectionError, APIError, APITimeoutError
from runglass.events import StreamEvent
from runglass.execution import CompletedResult, RunPage

if TYPE_CHECKING:
    from runglass.client.async_client import AsyncClient

Execution = Callable[[], Coroutine[Any, Any, CompletedResult]]

POLL_S = 0.05


async def execute_and_watch(
    client: "AsyncClient",
    execution: Execution,
    on_event: Callable[[StreamEvent], None],
    *,
    on_found: Callable[[str], None] = lambda run_id: None,
) -> CompletedResult:
    """The result of `execution()`, with each event of its run handed to `on_event` as it comes.

    `on_found` hears the run's id first. Where another run begins in the same moment, nobody can tell which is
    which, and the events come when the run has ended. Raises what `execution` raises; cancelling this leaves
    the run going on.
    """
    newest = await client.runs(limit=1)
    before = newest.runs[0].id if newest.runs else ""
    task = asyncio.create_task(execution())
    try:
        run_id = await _find_run(client, task, before)
        if run_id is not None:
            on_found(run_id)
            try:
                async for event in client.run(run_id).live_trace():
                    on_event(event)
            except APIConnectionError as error:
                note(f"the events cannot be followed any more: {error}")
        await asyncio.wait({task})
        if run_id is not None and (actual := _run_of(task)) not in (None, run_id):
            note(
                f"the events above are of run {run_id}, which began in the same moment; this run is {actual}"
            )
        return await task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _find_run(client: "AsyncClient", task: "asyncio.Task[CompletedResult]", before: str) -> str | None:
    # Ids are ordered by time, so whatever is greater than the newest id of before has begun since.
    while not task.done():
        try:
            page = await client.runs(limit=2)
        except (APIConnectionError, APITimeoutError):
            page = RunPage(runs=[])
        begun = [run.id for run in page.runs if run.id > before]
        if len(begun) == 1:
            return begun[0]
        await asyncio.wait({task}, timeout=None if begun else POLL_S)
    return _run_of(task)


def _run_of(task: "asyncio.Task[CompletedResult]") -> str | None:
    """The run that an execution was, also one that failed; None where none was started."""
    error = task.exception()
    if error is None:
        return task.result().execution_id
    return error.execution_id if isinstance(error, APIError) else None
