"""Claims runs that wait on a PostgreSQL, as a worker does, and executes none of them.

`python -m bench.workers.claimer STORE`. `claims` makes so many, of up to `limit` runs, and answers how long
each took; without it, all of these runs are put back.
"""

import sys
import time
from pathlib import Path

from uuid_utils import uuid7

from bench.answering import Message
from bench.live_runtime import Work, answer_with
from runglass.config.settings import Settings
from runglass.runtime.runtime import Runtime
from runglass.support.clock import SystemClock, iso


async def _begin(runtime: Runtime) -> Work:
    store, clock, owner = runtime.store, SystemClock(), str(uuid7())

    async def work(message: Message) -> Message:
        if "claims" not in message:
            await store.end_lease(owner)
            return {}
        await store.hold_lease(owner, until="9999-01-01T00:00:00.000Z", renew=False)
        took_ms = []
        for _ in range(message["claims"]):
            began_s = time.perf_counter()
            claimed = await store.claim_runs(owner, now=iso(clock.now()), limit=message["limit"])
            took_ms.append((time.perf_counter() - began_s) * 1000)
            if len(claimed) != message["limit"]:
                raise ValueError(f"a claim of {message['limit']} runs found {len(claimed)}")
        return {"ms": took_ms}

    return work


if __name__ == "__main__":
    answer_with(Settings(store=sys.argv[1], executes_runs=False, data=Path("unused")), _begin)
