"""Everybody who reads a run over HTTP is told the same: by trace, stream, steps, job, session and list."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from runglass.log.trace import TERMINAL
from runglass.wire.sse import Frame
from tests.laws.told import Told, broken_by_readers, the_list_tells_what_the_trace_tells
from tests.prove.killing.book import PLACE, Asked
from tests.prove.killing.line import Line

BESIDE = 8
"""Runs that are read at a time."""
POLL_S = 0.05


async def listed_runs(line: Line, *, status: str | None = None) -> dict[str, dict[str, Any]]:
    runs: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        query = "".join(
            ["?limit=100", f"&status={status}" if status else "", f"&cursor={cursor}" if cursor else ""]
        )
        page = (await line.insist("GET", f"/flow-runs{query}")).body
        runs |= {run["id"]: run for run in page["runs"]}
        cursor = page.get("nextCursor") or ""
        if not cursor:
            return runs


async def all_ended(line: Line) -> None:
    for status in ("pending", "running"):
        # Never back to pending: what has been waited for first stays true.
        going_on = await listed_runs(line, status=status)
        while going_on:
            await asyncio.sleep(POLL_S)
            going_on = await listed_runs(line, status=status)


async def disagreements(line: Line, asked: list[Asked], *, of_before: bool = False) -> list[str]:
    """What different readers are told differently about these runs, whose callers know them.

    A program `of_before` tells nothing that it does not know.
    """
    listed = await listed_runs(line)
    gate = asyncio.Semaphore(BESIDE)

    async def look(one: Asked) -> list[str]:
        async with gate:
            return [lie async for lie in _of_run(line, one, listed, of_before=of_before)]

    found = await asyncio.gather(*[look(one) for one in asked])
    return [lie for lies in found for lie in lies]


async def _of_run(
    line: Line, asked: Asked, listed: dict[str, dict[str, Any]], *, of_before: bool
) -> AsyncIterator[str]:
    run_id = str(asked.run_id)
    trace = (await line.insist("GET", f"/flow-runs/{run_id}/trace")).body
    status = trace["flowRun"]["status"]
    session = (await line.insist("GET", f"/seq/sessions/{asked.tag}")).body
    states = [(entry["executionId"], entry["status"]) for entry in session["executions"]]
    if states != [(run_id, status)]:
        yield f"run {run_id} is {status} in its trace and its session says {states}"
    if asked.trigger == "job":
        job = (await line.insist("GET", f"/seq/{PLACE}/{asked.flow}/jobs/{run_id}")).body
        if job["status"] != {"cancelled": "failed"}.get(status, status):
            yield f"run {run_id} is {status} and its job {job}"
    told = Told(run_id, [], trace, listed=listed.get(run_id), attempts={})
    if status not in TERMINAL:
        lies = the_list_tells_what_the_trace_tells(told)
    else:
        for step_id in dict.fromkeys(step["stepId"] for step in trace["steps"] if step["attempt"] > 1):
            path = f"/flow-runs/{run_id}/steps/{step_id}/trace?attempt=all"
            told.attempts[step_id] = (await line.insist("GET", path)).body
        async with aclosing(line.frames("GET", f"/flow-runs/{run_id}/trace/stream")) as stream:
            async for said in stream:
                if isinstance(said, Frame):
                    told.events.append(msgspec.json.decode(said.data))
        lies = broken_by_readers(told, of_before=of_before)
    for lie in lies:
        yield str(lie)
