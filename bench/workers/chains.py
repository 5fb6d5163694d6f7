"""The one process of a SQLite file: takes runs of no-op steps in and executes them.

`python -m bench.workers.chains FOLDER`. `steps` makes a flow of so many; `runs` has so many runs of it
executed at once, and answers when all have ended.
"""

import asyncio
import sys
from pathlib import Path

from bench import flows
from bench.answering import Message
from bench.live_runtime import Work, answer_with
from runglass.config.settings import Settings
from runglass.runtime.runtime import Runtime


async def _begin(runtime: Runtime) -> Work:
    async def work(message: Message) -> Message:
        if "steps" in message:
            await flows.push(runtime, flows.chain(message["steps"]))
            return {}
        project = await runtime.store.ensure_project(flows.ORG, flows.PROJECT)
        await asyncio.gather(*[flows.run(runtime, project, "chain") for _ in range(message["runs"])])
        return {}

    return work


if __name__ == "__main__":
    answer_with(Settings(data=Path(sys.argv[1]), synchronous="FULL"), _begin)
