"""A process that takes runs in and executes none: others do, on the same PostgreSQL.

`python -m bench.workers.submitter STORE`. `flow` stores one in a project, by its text. `submit` queues so
many runs of a flow and answers with their ids; `finish` queues so many at once and answers when all have
ended; `jobs` waits for the end of each before the next one, and says how long each took.
"""

import asyncio
import sys
import time
from pathlib import Path

from bench import flows
from bench.answering import Message
from bench.live_runtime import Work, answer_with
from runglass.config.settings import Settings
from runglass.flows.parser import parse_flow
from runglass.runtime.runtime import Runtime, push_flow


async def _begin(runtime: Runtime) -> Work:
    async def work(message: Message) -> Message:
        project = await runtime.store.ensure_project(flows.ORG, message["project"])
        if "flow" in message:
            await push_flow(runtime.store, project, parse_flow(message["flow"]))
            return {}
        slug = message["slug"]
        if "jobs" in message:
            took_ms = []
            for _ in range(message["jobs"]):
                began_s = time.monotonic()
                await flows.run(runtime, project, slug)
                took_ms.append((time.monotonic() - began_s) * 1000)
            return {"ms": took_ms}
        if "finish" in message:
            submitting = [flows.submit(runtime, project, slug) for _ in range(message["finish"])]
            # One after the other: whoever waits for one run reads it at each of its wake-ups.
            for run in await asyncio.gather(*submitting):
                await flows.ended(run)
            return {}
        submitted = [await flows.submit(runtime, project, slug) for _ in range(message["submit"])]
        return {"ids": [each.id for each in submitted]}

    return work


if __name__ == "__main__":
    answer_with(Settings(store=sys.argv[1], executes_runs=False, data=Path("unused")), _begin)
