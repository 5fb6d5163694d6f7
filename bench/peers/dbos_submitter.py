"""Puts workflows of no-op steps into a queue of DBOS, for workers in processes of their own.

`python -m bench.peers.dbos_submitter ADDRESS`, of a database that a worker has set up. `runs` queues so many
at once, of so many `steps` each, and answers when all have ended.
"""

import asyncio
import sys
from typing import Any

from dbos import DBOSClient, EnqueueOptions

from bench.answering import Message, answer
from bench.peers.dbos_worker import QUEUE, VERSION, WORKFLOW


async def finish(client: DBOSClient, runs: int, steps: int) -> None:
    options: EnqueueOptions = {"queue_name": QUEUE, "workflow_name": WORKFLOW, "app_version": VERSION}
    handles: list[Any] = await asyncio.gather(*[client.enqueue_async(options, steps) for _ in range(runs)])
    for handle in handles:
        await handle.get_result(polling_interval_sec=0.01)


def main() -> None:
    client = DBOSClient(system_database_url=sys.argv[1], application_name="bench")
    runner = asyncio.Runner()

    def work(message: Message) -> Message:
        runner.run(finish(client, message["runs"], message["steps"]))
        return {}

    answer(work)


if __name__ == "__main__":
    main()
