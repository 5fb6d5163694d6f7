"""Starts runs, owns them while they go on, and sees to it that each of them ends.

A run belongs to the engine and not to whoever asked for it: a caller that hangs up does not end it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

import msgspec
from uuid_utils import uuid7

from runglass.bus.base import Bus
from runglass.engine.attempts import Attempts, StepLost
from runglass.engine.capture import Capture
from runglass.engine.recorder import Recorder
from runglass.engine.runner import Runner
from runglass.engine.steps import Parts
from runglass.errors import HeadMismatch, StoreError
from runglass.events import FlowCancelled, FlowCompleted, FlowFailed, RunStarted, StepError
from runglass.execution import CaptureMode
from runglass.flow import Flow, find_step, step_count, step_index
from runglass.fold import RunFold, StepChange
from runglass.lazy import encoded
from runglass.store.base import FlowRecord, NewRun, RunRecord, Store
from runglass.trace import RunSummary, StepTrace

log = logging.getLogger(__name__)

MEND_DELAY_S = 1.0
MEND_DELAY_MAX_S = 30.0


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request to run a flow: `flow` has the overrides in it, `inputs` fit the flow's schema."""

    record: FlowRecord
    version: int
    flow: Flow
    inputs: dict[str, Any]
    trigger_type: str
    capture: CaptureMode
    session_id: str | None = None


class _Kept(msgspec.Struct, frozen=True):
    """What a run is made of, kept while it lives: a draft may have changed when the run is taken up again."""

    flow: Flow
    inputs: dict[str, Any]


class Outcome(NamedTuple):
    """How a run ended: `status` as in the trace, `result` of a completed run, `error` of a failed one."""

    status: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    step_id: str | None = None


class StartedRun(NamedTuple):
    """A run that goes on by itself; `outcome` waits for its end and raises StoreError if it has none."""

    id: str
    outcome: Callable[[], Awaitable[Outcome]]


class Engine:
    """Runs flows. `make_capture` gives the capture for a mode; `parts` are shared by all runs."""

    def __init__(
        self, *, store: Store, bus: Bus, parts: Parts, make_capture: Callable[[CaptureMode], Capture]
    ) -> None:
        self._store = store
        self._bus = bus
        self._parts = parts
        self._make_capture = make_capture
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._cancelled: dict[str, str] = {}
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._mending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        lost = {"code": "WORKER_LOST", "message": "the process that ran this ended before the run did"}
        for run in await self._store.unfinished_runs():
            await self._end_cut_off(run, lost)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for run_id in list(self._tasks):
            self.cancel(run_id, reason="the server was stopped")
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        for task in self._mending:
            task.cancel()
        await asyncio.gather(*self._mending, return_exceptions=True)

    async def start(self, request: RunRequest) -> StartedRun:
        """Creates the run and lets it go on. When this returns, the run can be read. Raises StoreError."""
        run_id = str(uuid7())
        summary = RunSummary(
            id=run_id,
            flow_id=request.record.id,
            status="pending",
            trigger_type=request.trigger_type,
            step_count=step_count(request.flow),
        )
        run = await self._store.create_run(
            NewRun(
                id=run_id,
                project_id=request.record.project_id,
                flow_id=request.record.id,
                version=request.version,
                trigger_type=request.trigger_type,
                capture=request.capture,
                session_id=request.session_id,
                request=msgspec.json.encode(_Kept(flow=request.flow, inputs=request.inputs)),
                summary=msgspec.json.encode(summary),
            )
        )
        task = asyncio.create_task(self._run(run, summary, request), name=f"run {run_id}")
        self._tasks[run_id] = task
        task.add_done_callback(lambda _: self._forget(run_id))
        return StartedRun(run_id, lambda: asyncio.shield(task))

    def cancel(self, run_id: str, *, reason: str) -> bool:
        """Ends a run of this engine as cancelled; False if it is not going on here."""
        task = self._tasks.get(run_id)
        if task is None or run_id in self._ended:
            return False
        if run_id not in self._cancelled:
            self._cancelled[run_id] = reason
            # A task that is cancelled before it begins never runs, and so would never record its end.
            if run_id in self._begun:
                task.cancel()
        return True

    def _forget(self, run_id: str) -> None:
        task = self._tasks.pop(run_id)
        self._cancelled.pop(run_id, None)
        self._begun.discard(run_id)
        self._ended.discard(run_id)
        # Asked for, so that a failure nobody waits for is logged here and not by the garbage collector.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run %s could not be recorded to its end: %s", run_id, error)

    async def _run(self, run: RunRecord, summary: RunSummary, request: RunRequest) -> Outcome:
        self._begun.add(run.id)
        recorder = Recorder(self._store, self._bus, run, RunFold(summary), self._parts.clock)
        try:
            outcome = await self._walk(run, request, recorder)
            self._ended.add(run.id)
            await recorder.commit()
        except StoreError as error:
            self._mend(run.id, error)
            raise
        finally:
            await recorder.close()
        return outcome

    async def _walk(self, run: RunRecord, request: RunRequest, recorder: Recorder) -> Outcome:
        capture = self._make_capture(request.capture)
        attempts = Attempts(execution_id=run.id, recorder=recorder, capture=capture, parts=self._parts)
        runner = Runner(
            execution_id=run.id, recorder=recorder, attempts=attempts, sandbox=self._parts.sandbox
        )
        try:
            recorder.record(_run_started(run, request.flow, request.trigger_type))
            if run.id in self._cancelled:
                raise asyncio.CancelledError
            result = await runner.walk(request.flow.steps, request.inputs)
        except StepLost as lost:
            recorder.record(
                FlowFailed(
                    execution_id=run.id,
                    run_id=run.id,
                    error=encoded(msgspec.json.encode(lost.error)),
                    step_id=lost.step_id,
                )
            )
            return Outcome("failed", error=lost.error, step_id=lost.step_id)
        except asyncio.CancelledError:
            # Being cancelled is a way for a run to end, and this is its task: nothing above is to be unwound.
            reason = self._cancelled.get(run.id, "cancelled")
            recorder.record(FlowCancelled(execution_id=run.id, run_id=run.id, reason=reason))
            return Outcome("cancelled", error={"code": "CANCELLED", "message": reason})
        except StoreError:
            raise
        except Exception as error:
            log.exception("run %s failed inside the engine", run.id)
            failure = {"code": "INTERNAL_ERROR", "message": f"{type(error).__name__} inside the engine"}
            recorder.record(
                FlowFailed(execution_id=run.id, run_id=run.id, error=encoded(msgspec.json.encode(failure)))
            )
            return Outcome("failed", error=failure)
        recorder.record(
            FlowCompleted(
                execution_id=run.id,
                run_id=run.id,
                result=encoded(capture.snapshot(result.json, result.value).data),
                summary=encoded(msgspec.json.encode(attempts.totals.summary())),
            )
        )
        return Outcome("completed", result=result.value)

    def _mend(self, run_id: str, error: StoreError) -> None:
        task = asyncio.create_task(self._end_when_possible(run_id, error))
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _end_when_possible(self, run_id: str, error: StoreError) -> None:
        """Records that the run could not be recorded, as soon as the store takes it."""
        reason = {"code": "INTERNAL_ERROR", "message": f"the run could not be recorded: {error}"}
        delay_s = MEND_DELAY_S
        while True:
            await self._parts.clock.sleep(delay_s)
            try:
                run = await self._store.run(run_id)
                if run is not None and not run.ended:
                    await self._end_cut_off(run, reason)
            except HeadMismatch:
                return  # another process goes on with the run
            except StoreError:
                delay_s = min(delay_s * 2, MEND_DELAY_MAX_S)
            else:
                return

    async def _end_cut_off(self, run: RunRecord, error: dict[str, Any]) -> None:
        """Ends a run that nobody runs any more as failed, and with it the attempts that were cut off."""
        rows, last_position = await self._store.open_steps(run.no)
        open_steps = [StepChange(row.position, msgspec.json.decode(row.data, type=StepTrace)) for row in rows]
        summary = msgspec.json.decode(run.summary, type=RunSummary)
        state = RunFold(summary, open_steps=open_steps, last_position=last_position)
        recorder = Recorder(self._store, self._bus, run, state, self._parts.clock)
        kept = msgspec.json.decode(await self._store.request(run.no) or b"", type=_Kept)
        recorded = encoded(msgspec.json.encode(error))
        if run.status == "pending":
            recorder.record(_run_started(run, kept.flow, summary.trigger_type or "api"))
        for change in open_steps:
            step = change.step
            found = find_step(kept.flow, step.step_id)
            recorder.record(
                StepError(
                    execution_id=run.id,
                    step_id=step.step_id,
                    name=found.name if found else None,
                    step_index=step_index(kept.flow, step.step_id),
                    attempt=step.attempt,
                    loop_index=step.loop_index,
                    loop_path=step.loop_path,
                    error=recorded,
                )
            )
        lost_step = open_steps[0].step.step_id if open_steps else None
        recorder.record(FlowFailed(execution_id=run.id, run_id=run.id, error=recorded, step_id=lost_step))
        await recorder.commit()
        log.warning("run %s was cut off and is recorded as failed: %s", run.id, error["message"])


def _run_started(run: RunRecord, flow: Flow, trigger_type: str) -> RunStarted:
    return RunStarted(
        execution_id=run.id,
        run_id=run.id,
        flow_id=run.flow_id,
        step_count=step_count(flow),
        trigger_type=trigger_type,
        version=run.version,
    )
