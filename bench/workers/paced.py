"""A server whose runs grow by one event for each byte that comes in on a port: the load is made elsewhere.

The events take the way of every event: run writer, store, bus, tails, sockets. `do` is `begin` or `end`.
"""

import asyncio
from itertools import count

from bench import flows
from bench.answering import Message, answer
from bench.samples import TOKENS
from runglass.engine.journal.run_writer import RunWriter
from runglass.log.events import FlowCompleted, StepCompleted, StepStarted
from runglass.testing import ORG, PROJECT, RunningServer, running_server

OWNER = "bench"


class Paced(asyncio.Protocol):
    """Records one event of a run for each byte: a step begins, a step ends, in turns."""

    def __init__(self, writer: RunWriter, run_id: str) -> None:
        self._writer = writer
        self._run_id = run_id
        self._numbers = count()

    def data_received(self, data: bytes) -> None:
        for _ in data:
            step, ends = divmod(next(self._numbers), 2)
            self._writer.record(self._completed(step) if ends else self._started(step))

    def _started(self, step: int) -> StepStarted:
        return StepStarted(
            execution_id=self._run_id,
            step_id="work",
            loop_index=step,
            loop_path=(step,),
            step_index=0,
            attempt=1,
        )

    def _completed(self, step: int) -> StepCompleted:
        return StepCompleted(
            execution_id=self._run_id,
            step_id="work",
            loop_index=step,
            loop_path=(step,),
            step_index=0,
            attempt=1,
            duration_ms=1,
            tokens=TOKENS,
        )


class Runs:
    """The run that is being followed, one after the other."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._numbers = count()
        self._listener: asyncio.Server | None = None
        self._writer: RunWriter | None = None
        self._run_id = ""

    def work(self, message: Message) -> Message:
        if message["do"] == "begin":
            port = self._server.call(self._begin())
            target = f"/api/v1/flow-runs/{self._run_id}/trace/stream"
            return {"address": self._server.address, "key": self._server.key, "target": target, "port": port}
        self._server.call(self._end())
        return {}

    async def _begin(self) -> int:
        runtime = self._server.runtime
        number = next(self._numbers)
        self._run_id = f"019a0000-0000-7000-8000-{number:012d}"
        project = await runtime.store.ensure_project(ORG, PROJECT)
        if number == 0:
            # The server must not take the runs for ones that nobody goes on with.
            await runtime.store.hold_lease(OWNER, until="9999-01-01T00:00:00.000Z", renew=False)
        writer = await flows.begin_recording(runtime.store, runtime.bus, project, self._run_id, owner=OWNER)
        self._writer = writer
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: Paced(writer, self._run_id), "127.0.0.1", 0
        )
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        assert self._listener is not None
        assert self._writer is not None
        self._listener.close()
        self._writer.record(FlowCompleted(execution_id=self._run_id, run_id=self._run_id))
        await self._writer.close()


if __name__ == "__main__":
    with running_server(ping_s=3600) as running:
        answer(Runs(running).work)
