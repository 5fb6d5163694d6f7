"""The content of events that a caller of `step` is owed, from this process or from the store."""

from functools import partial

import msgspec

from runglass.engine.models.model_types import both_spellings
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.outcome import RunOutcome, RunReleased
from runglass.engine.scheduling.offloading import offload
from runglass.engine.steps.run_context import LiveOutputs
from runglass.server.services.step_frames import Waiting
from runglass.store.base import Store
from runglass.store.records import RunRecord


class LiveContent:
    """Content of a segment that this call has started."""

    def __init__(self, started: StartedRun, outputs: LiveOutputs, store: Store, run: RunRecord) -> None:
        self._started = started
        self._outputs = outputs
        self._store = store
        self._run = run

    async def of(self, seq: int) -> bytes | None:
        content = self._outputs.pop(seq)
        if content is None and seq in self._outputs.stored:
            self._outputs.stored.discard(seq)
            return await self._store.owed(self._run.no, seq)
        return content

    async def result(self) -> bytes | None:
        outcome = await self._outcome()
        return None if outcome is None else outcome.result_json

    async def error(self) -> bytes | None:
        outcome = await self._outcome()
        return None if outcome is None else msgspec.json.encode(outcome.error)

    async def pause(self, seq: int) -> Waiting | None:
        outcome = await self._outcome()
        if outcome is None or outcome.pause is None or outcome.pause.tool_loop is None:
            return None
        tool_loop = outcome.pause.tool_loop
        return Waiting(
            tool_call_messages=both_spellings(tool_loop.messages),
            tool_calls=tool_loop.calls,
            accumulated_outputs=dict(outcome.outputs),
        )

    async def _outcome(self) -> RunOutcome | None:
        """None if another process took over the run: then the content is that of the log."""
        try:
            return await self._started.outcome()
        except RunReleased:
            return None


class StoredContent:
    """Content that the store keeps with the events: the same for repeats of a call, and on each server."""

    def __init__(self, store: Store, run: RunRecord) -> None:
        self._store = store
        self._run = run

    async def of(self, seq: int) -> bytes | None:
        return await self._store.owed(self._run.no, seq)

    async def result(self) -> bytes | None:
        result, _ = await self._store.outcome(self._run.no)
        return result

    async def error(self) -> bytes | None:
        _, error = await self._store.outcome(self._run.no)
        return error

    async def pause(self, seq: int) -> Waiting | None:
        owed = await self._store.owed(self._run.no, seq)
        if owed is None:
            return None
        return await offload(partial(msgspec.json.decode, owed, type=Waiting), size_bytes=len(owed))
