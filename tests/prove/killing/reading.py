"""Everybody who reads a run over HTTP is told the same: by trace, stream, steps, job, session and list."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from runglass.log.events import decode_event
from runglass.log.fold import fold
from runglass.log.trace import TERMINAL
from runglass.wire.sse import Frame
from tests.prove.killing.book import PLACE, Asked
from tests.prove.killing.line import Line

BESIDE = 8
"""Runs that are read at a time."""
POLL_S = 0.05


async def listed_runs(line: Line, *, status: str | None = None) -> dict[str, dict[str, Any]]:
    """Every run of the project by its id, from all pages of the list."""
    runs: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        query = "".join(
            [
                "?limit=100",
                f"&status={status}" if status else "",
                f"&cursor={cursor}" if cursor else "",
            ]
        )
        page = (await line.insist("GET", f"/flow-runs{query}")).body
        runs |= {run["id"]: run for run in page["runs"]}
        cursor = page.get("nextCursor") or ""
        if not cursor:
            return runs


async def all_ended(line: Line) -> None:
    """Returns when no run is pending or running any more."""
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
    run_id = asked.run_id
    trace = (await line.insist("GET", f"/flow-runs/{run_id}/trace")).body
    run = trace["flowRun"]
    shown = {name: value for name, value in run.items() if name not in ("input", "result")}
    if run_id not in listed or listed[run_id] != shown:
        yield f"run {run_id} is {shown} in its trace and {listed.get(str(run_id))} in the list"
    session = (await line.insist("GET", f"/seq/sessions/{asked.tag}")).body
    states = [(entry["executionId"], entry["status"]) for entry in session["executions"]]
    if states != [(run_id, run["status"])]:
        yield f"run {run_id} is {run['status']} in its trace and its session says {states}"
    if asked.trigger == "job":
        job = (await line.insist("GET", f"/seq/{PLACE}/{asked.flow}/jobs/{run_id}")).body
        if job["status"] != {"cancelled": "failed"}.get(run["status"], run["status"]):
            yield f"run {run_id} is {run['status']} and its job {job}"
    if run["status"] in TERMINAL:
        async for lie in _of_stream(line, asked, trace, of_before=of_before):
            yield lie
    again = [step["stepId"] for step in trace["steps"] if step["attempt"] > 1]
    for step_id in dict.fromkeys(again):
        path = f"/flow-runs/{run_id}/steps/{step_id}/trace?attempt=all"
        attempts = (await line.insist("GET", path)).body["attempts"]
        keys = [(attempt.get("loopPath") or [], attempt["attempt"]) for attempt in attempts]
        if keys != sorted(keys) or len(keys) != len({str(key) for key in keys}):
            yield f"run {run_id}: the attempts of step {step_id} are listed as {keys}"


async def _of_stream(
    line: Line, asked: Asked, trace: dict[str, Any], *, of_before: bool
) -> AsyncIterator[str]:
    events = []
    stream = line.frames("GET", f"/flow-runs/{asked.run_id}/trace/stream")
    async with aclosing(stream):
        async for said in stream:
            if isinstance(said, Frame):
                events.append(decode_event(said.data))
    expected = msgspec.json.decode(msgspec.json.encode(fold(events)))
    if of_before:
        run = expected["flowRun"]
        expected["flowRun"] = {name: run[name] for name in run.keys() & trace["flowRun"].keys()}
    if expected != trace:
        yield f"the trace of run {asked.run_id} is not the fold of its stream"
