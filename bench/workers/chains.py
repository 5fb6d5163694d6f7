"""One process of several on one store: executes runs of no-op steps.

`python -m bench.workers.chains ADDRESS` on PostgreSQL, or with a folder on SQLite. `steps` makes a flow of so
many; `runs` has so many runs of it executed at once, and answers when all have ended.
"""

import asyncio
import sys
from pathlib import Path

from bench import flows
from bench.answering import Message
from bench.live_runtime import Work, answer_with
from runglass.runtime import Runtime
from runglass.settings import Settings


def _settings(where: str) -> Settings:
    if where.startswith("postgresql://"):
        return Settings(store=where, data=Path("unused"))
    return Settings(data=Path(where), synchronous="FULL")


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
    answer_with(_settings(sys.argv[1]), _begin)
