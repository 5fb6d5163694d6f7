"""One segment of one run, from its begin to each of the ways in which it may end.

More than 300 lines: a segment has one begin and a dozen ends, which share what they record.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from runglass.bus.base import Bus
from runglass.engine.capture.capture import Capture
from runglass.engine.capture.snapshots import preview
from runglass.engine.journal.checkpoint_reader import CheckpointReader
from runglass.engine.journal.checkpoints import StepPosition, kept_ids, segment_checkpoint
from runglass.engine.journal.recorder import Recorder
from runglass.engine.journal.resume import ResumeState
from runglass.engine.journal.run_spec import ToolLoopState
from runglass.engine.models.budget import Budgets
from runglass.engine.models.provider_check import missing_key
from runglass.engine.payload import Payload
from runglass.engine.run.outcome import AppendRefused, LeaseLost, RunOutcome, RunReleased
from runglass.engine.run.terminate import KeptOutputs, end_run, read_outputs, record_end
from runglass.engine.scheduling.memory_budget import MemoryBudget, RunMemory
from runglass.engine.scheduling.pacing import set_project
from runglass.engine.scheduling.run_limits import LimitReached, RunLimits, RunUsage, StopRequest
from runglass.engine.scheduling.turns import DrainGate, ProjectTurns
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.executor import StepExecutor
from runglass.engine.steps.interpreter import Interpreter, SegmentResult
from runglass.engine.steps.interrupted_attempts import InterruptedAttempts
from runglass.engine.steps.outcomes import CreditsExhausted, StepFailedPermanently
from runglass.engine.steps.override_notes import overrides_applied, run_input
from runglass.engine.steps.run_context import LiveOutputs, RunContext, StepDependencies
from runglass.errors import (
    PermanentStoreError,
    StepFailure,
    StoreError,
    ValueTooLarge,
    WrongExpectedVersion,
    without_traceback,
)
from runglass.flows.flow import find_step, step_index
from runglass.log.events import FlowCancelled, FlowCompleted, FlowFailed
from runglass.store.base import Store
from runglass.store.records import RunRecord, StoredLog
from runglass.support.lazy_json import encoded
from runglass.support.log_context import run_id
from runglass.wire.run_api import CaptureMode

log = logging.getLogger(__name__)

_TOLD_OF_JOBS = ("code", "message")


class EngineContext(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that all segments of an engine share."""

    store: Store
    bus: Bus
    dependencies: StepDependencies
    make_capture: Callable[[CaptureMode], Capture]
    gate: DrainGate
    crash_retries: int
    budgets: Budgets
    memory: MemoryBudget
    limits: RunLimits
    project_turns: ProjectTurns


class RunTask:
    """A segment that goes on, on behalf of `owner`; `ending` asks it to end early."""

    def __init__(
        self,
        engine: EngineContext,
        run: RunRecord,
        state: ResumeState,
        *,
        owner: str,
        stop: StopRequest,
        not_before: str = "",
        outputs: LiveOutputs | None = None,
    ) -> None:
        self.run = run
        self.stop = stop
        self.begun = False
        self.ended = False
        self._engine = engine
        self._state = state
        self._outputs = outputs
        self._kept: KeptOutputs | None = None
        self._recorder = Recorder(
            engine.store,
            engine.bus,
            run,
            state.fold,
            engine.dependencies.clock,
            owner=owner,
            not_before=not_before,
        )
        self._memory = RunMemory(
            engine.memory,
            CheckpointReader(run, engine.store, self._recorder).read,
            project_id=run.project_id,
        )
        self._memory.hold_inputs(state.request_bytes)

    @property
    def stored_log(self) -> StoredLog:
        """What the store has said to have of the run."""
        recorder = self._recorder
        return StoredLog(self.run.id, self.run.project_id, recorder.stored_head, recorder.stored_last_at)

    async def walk(self) -> RunOutcome:
        """Goes on to the end of the segment. Raises RunReleased, and StoreError if it cannot be recorded."""
        self.begun = True
        set_project(self.run.project_id)
        run_id.set(self.run.id)
        try:
            outcome = await self._outcome()
            self.ended = True
            await self._recorder.commit()
        except WrongExpectedVersion as taken:
            raise AppendRefused(f"run {self.run.id!r} goes on elsewhere or from an earlier event") from taken
        except PermanentStoreError as error:
            # Another process that went on with the run would come to the same place, and so for ever.
            return await self._given_up(error)
        finally:
            self._memory.close()
            await self._recorder.close()
        return outcome

    async def _outcome(self) -> RunOutcome:
        run, recorder = self.run, self._recorder
        try:
            if self.stop.requested:
                raise asyncio.CancelledError
            return await self._walked()
        except asyncio.CancelledError:
            # Being cut off is a way for a segment to end, and this is its task: nothing is to be unwound.
            if self.stop.cancelled is None:
                if not self._engine.gate.closed:
                    raise LeaseLost(f"run {run.id!r} was left, as the lease ran out") from None
                raise RunReleased(f"run {run.id!r} was left by a process that stops") from None
            if run.status == "pending" and not recorder.head:
                recorder.begin()
            last = FlowCancelled(execution_id=run.id, run_id=run.id, reason=self.stop.cancelled)
            record_end(recorder, last, owed=b'"cancelled"')
            return RunOutcome("cancelled", error={"code": "CANCELLED", "message": self.stop.cancelled})

    async def _walked(self) -> RunOutcome:
        """The outcome of a segment that is not cut off."""
        capture = self._engine.make_capture(self._state.begun.plan.capture)
        try:
            await self._begin(capture)
            plan, engine = self._state.begun.plan, self._engine
            missing = None
            if self.run.status == "pending":
                missing = await missing_key(plan.flow, engine.dependencies.models)
            if missing is not None:
                captured = capture.error(missing.error)
                return await self._failed(capture, missing.error, captured, missing.step_id)
            try:
                walked = await (await self._interpreter(capture)).walk()
            except StoreError:
                raise
            except Exception:
                if (mode := plan.capture_of_failed) is not None:
                    # Not further down: meanwhile the run may be cancelled or left, as in the walk.
                    keeping = engine.make_capture(mode)
                    self._kept = await read_outputs(engine.store, self._recorder, keeping, engine.memory)
                raise
            if walked.result is None:
                return self._ended_well(walked, capture)
            # While the result is redacted, other runs may need memory: a value in use is not put away.
            async with self._memory.using([walked.result], decoded=False):
                await capture.prepare(walked.result)
                return self._ended_well(walked, capture)
        except StepFailedPermanently as failed:
            lost = without_traceback(failed).lost
            return await self._failed(capture, lost.error, lost.captured, lost.step_id)
        except CreditsExhausted as spent:
            without_traceback(spent)
            error = {"code": "CREDITS_EXHAUSTED", "message": str(spent)}
            return await self._failed(capture, error, capture.error(error), spent.step_id)
        except LimitReached as reached:
            without_traceback(reached)
            return await self._failed(capture, reached.error, capture.error(reached.error), reached.step_id)
        except StoreError:
            raise
        except Exception as fault:
            log.exception("run %s failed inside the engine", self.run.id)
            message = f"{type(fault).__name__} inside the engine; see the server's log"
            error = {"code": "INTERNAL_ERROR", "message": message}
            return await self._failed(capture, error, capture.error(error))

    async def _given_up(self, refused: PermanentStoreError) -> RunOutcome:
        """Ends a run where its stored log ends, since nothing more of it can be stored."""
        self.ended = True
        await self._recorder.close()
        engine, run = self._engine, await self._engine.store.run(self.run.id)
        if run is None or run.ended or run.fence != self.run.fence:
            raise LeaseLost(f"run {self.run.id!r} was taken over by another process") from refused
        log.error("run %s is ended, as it cannot be recorded: %s", run.id, refused)
        clock, reason = engine.dependencies.clock, self.stop.cancelled
        capture = engine.make_capture(run.capture)
        if reason is not None:
            await end_run(engine.store, engine.bus, clock, engine.memory, run, capture, cancelled=reason)
            return RunOutcome("cancelled", error={"code": "CANCELLED", "message": reason})
        error = {"code": refused.code, "message": f"the run cannot be recorded: {_reason_of(refused)}"}
        step_id = await end_run(engine.store, engine.bus, clock, engine.memory, run, capture, error=error)
        return RunOutcome("failed", error=error, step_id=step_id)

    async def _begin(self, capture: Capture) -> None:
        begun = self._state.begun
        if self.run.status == "pending":
            # Made before the first event: the two are one append, which a process that dies cannot part.
            told = await run_input(self.run.id, begun.plan, capture)
            self._recorder.begin()
            if told is not None:
                self._recorder.record(told)
        elif self.run.status == "paused":
            # With the first event: until that is stored the run still waits, and nothing has happened.
            if not self.run.is_resuming:
                self._recorder.add_checkpoint(self._state.checkpoint or segment_checkpoint(begun))
            self._recorder.invalidate_checkpoints(kept_ids(begun.plan.flow.steps[begun.segment.first :]))
        else:
            return
        applied = await overrides_applied(self.run.id, begun, capture, known=self._recorder.fold.summary)
        if applied is not None:
            self._recorder.record(applied)

    async def _interpreter(self, capture: Capture) -> Interpreter:
        state, engine, project_id = self._state, self._engine, self.run.project_id
        spec = state.begun.plan
        context = RunContext(
            run_id=self.run.id,
            project_id=project_id,
            flow=spec.flow,
            inputs=Payload(spec.inputs),
            dependencies=engine.dependencies,
            recorder=self._recorder,
            capture=capture,
            gate=engine.gate,
            stop=self.stop,
            memory=self._memory,
            usage=RunUsage(engine.limits, iterations=state.iterations, output_bytes=state.output_bytes),
            store_turns=engine.project_turns.of(project_id),
            budget=await engine.budgets.of_run(project_id, self._recorder),
            outputs=self._outputs,
            answers_call=state.begun.segment.answers_call,
        )
        if state.left_behind is not None:
            self._leave_behind(state.left_behind, context)
        executor = StepExecutor(
            context,
            InterruptedAttempts(context, state.cut_off, crash_retries=engine.crash_retries),
            earlier=state.earlier,
            step_inputs=state.begun.segment.step_inputs,
        )
        return Interpreter(context, executor, state)

    def _leave_behind(self, tool_loop: ToolLoopState, context: RunContext) -> None:
        """Ends the attempt that waited for tool results, as its step will be run anew."""
        flow = self._state.begun.plan.flow
        step = find_step(flow, tool_loop.step_id)
        assert step is not None
        position = StepPosition(step_index(flow, step.id))
        attempt = AttemptRecorder(
            context, step, Payload(None), position, tool_loop.attempt, tool_loop=tool_loop
        )
        attempt.retry(StepFailure("CANCELLED", "the caller went back to an earlier step"), delay_ms=0)

    def _ended_well(self, walked: SegmentResult, capture: Capture) -> RunOutcome:
        if walked.result is None:
            return RunOutcome("paused", pause=walked.pause, outputs=walked.outputs)
        snapshot = capture.snapshot(walked.result)
        self._recorder.set_outcome(result=walked.result.json)
        self._recorder.record(
            FlowCompleted(
                execution_id=self.run.id,
                run_id=self.run.id,
                step_id=self._state.begun.plan.flow.steps[-1].id,
                result=encoded(snapshot.data),
                truncated=snapshot.truncated,
                summary=encoded(msgspec.json.encode(self._recorder.fold.summary.totals)),
                result_preview=preview(snapshot.data),
            )
        )
        return RunOutcome("completed", result_json=walked.result.json)

    async def _failed(
        self, capture: Capture, error: dict[str, Any], captured: msgspec.Raw, step_id: str | None = None
    ) -> RunOutcome:
        """The failure with its whole `error` for the caller; the log gets the `captured` part."""
        told = None
        if self._recorder.fold.summary.input_preview is None:
            told = await run_input(self.run.id, self._state.begun.plan, capture, failed=True)
        # The caller of a job is told code and message of its error, and is owed no more.
        owed = {name: error.get(name) for name in _TOLD_OF_JOBS} if self.run.trigger_type == "job" else error
        last = FlowFailed(
            execution_id=self.run.id, run_id=self.run.id, error=encoded(captured), step_id=step_id
        )
        record_end(self._recorder, last, owed=msgspec.json.encode(owed), kept=self._kept, told=told)
        return RunOutcome("failed", error=error, step_id=step_id)


def _reason_of(refused: PermanentStoreError) -> str:
    """The reason, for callers. The texts of other errors may name places of this machine."""
    cause: BaseException = refused
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause) if isinstance(refused, ValueTooLarge) else "see the server's log"
