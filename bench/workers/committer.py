"""Records events of runs at a pace, in a process that serves nobody, and says when each was committed.

`python -m bench.workers.committer STORE [BUS]`. `do` is `begin`, which answers with a run that has its first
event, or `record`: so many more events of it, so many in a second, and then its end.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from uuid_utils import uuid7

from bench import flows
from bench.answering import Message
from bench.live_runtime import Work, answer_with
from bench.stage import add_key
from runglass.bus.base import Bus
from runglass.config.settings import Settings
from runglass.engine.journal.run_writer import RunWriter
from runglass.log.events import FlowCompleted, StepStarted
from runglass.runtime.runtime import Runtime

OWNER = "bench"


class NotingBus(Bus):
    """Keeps the times at which it was told of events of a run, which is right after their commit."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus
        self.fault = bus.fault
        self.run_id = ""
        self.committed_s: list[float] = []

    async def wake(self, subject: str) -> None:
        if subject == self.run_id:
            self.committed_s.append(time.monotonic())
        await self._bus.wake(subject)

    def listen(self, subject: str) -> Any:
        return self._bus.listen(subject)


class Runs:
    """The run that is being recorded, one after the other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._bus = NotingBus(runtime.bus)
        self._writer: RunWriter | None = None

    async def work(self, message: Message) -> Message:
        return await (self._begin() if message["do"] == "begin" else self._record(**message))

    async def _begin(self) -> Message:
        store = self._runtime.store
        key = await add_key(self._runtime)
        project = await store.ensure_project(flows.ORG, flows.PROJECT)
        run_id = str(uuid7())
        self._writer = await flows.begin_recording(store, self._bus, project, run_id, owner=OWNER)
        self._bus.run_id, self._bus.committed_s = run_id, []
        return {"key": key, "target": f"/api/v1/flow-runs/{run_id}/trace/stream"}

    async def _record(self, do: str, events: int, rate: int) -> Message:
        assert self._writer is not None
        run_id, start_s = self._bus.run_id, time.monotonic()
        for number in range(events):
            await asyncio.sleep(start_s + number / rate - time.monotonic())
            self._writer.record(
                StepStarted(
                    execution_id=run_id,
                    step_id="work",
                    loop_index=number,
                    loop_path=(number,),
                    step_index=0,
                    attempt=1,
                )
            )
            # One event in each commit, so that it is known which one a wake-up is for.
            await self._writer.commit()
        committed_s = list(self._bus.committed_s)
        self._writer.record(FlowCompleted(execution_id=run_id, run_id=run_id))
        await self._writer.close()
        return {"committed_s": committed_s}


async def _begin(runtime: Runtime) -> Work:
    # The servers must not take the runs for ones that nobody goes on with.
    await runtime.store.hold_lease(OWNER, until="9999-01-01T00:00:00.000Z", renew=False)
    return Runs(runtime).work


if __name__ == "__main__":
    own_store, own_bus = [*sys.argv[1:], None][:2]
    answer_with(Settings(store=own_store, bus=own_bus, data=Path("unused")), _begin)
