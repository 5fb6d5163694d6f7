"""One segment of one run, from its begin to each of the ways in which it may end for its caller."""

import asyncio
import logging
from typing import Any, NamedTuple

import msgspec

from runglass.engine.capture.snapshots import preview
from runglass.engine.journal.checkpoints import StepPosition, kept_ids
from runglass.engine.journal.resume import ResumeState
from runglass.engine.journal.run_spec import Pause
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.models.gateway import missing_key
from runglass.engine.payload import Payload
from runglass.engine.run.content import overrides_applied, read_outputs, run_input
from runglass.engine.run.terminate import end_run, record_end
from runglass.engine.run_memory import RunMemory
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.executor import StepExecutor
from runglass.engine.steps.interpreter import Interpreter
from runglass.engine.steps.interrupted_attempts import InterruptedAttempts
from runglass.engine.steps.outcomes import StepFailedPermanently
from runglass.engine.steps.run_context import EngineContext, LiveOutputs, RunContext
from runglass.engine.steps.run_limits import LimitReached, RunUsage, StopRequest
from runglass.errors import (
    PermanentStoreError,
    RunglassError,
    StepFailure,
    StoreError,
    ValueTooLarge,
    WrongExpectedVersion,
    without_traceback,
)
from runglass.flows.flow import find_step, step_index
from runglass.limits.pace import set_project
from runglass.log.events import FlowCancelled, FlowCompleted, FlowFailed
from runglass.store.records import RunRecord, StoredLog
from runglass.support.lazy_json import encoded
from runglass.support.logs import run_id

log = logging.getLogger(__name__)


class RunReleased(RunglassError):
    """The run was left by the process that went on with it; it goes on elsewhere, or after the next start."""


class LeaseLost(RunReleased):
    """Another process goes on with the run: this one has lost its lease, or never had the run."""


class AppendRefused(LeaseLost):
    """The store refused what this process recorded: another one has the run, or the store has gone back.

    It goes back where PostgreSQL has been replaced by a standby that lacks the newest commits. The run may
    then be this process's still.
    """


class RunOutcome(NamedTuple):
    """How a segment ended: `status` as in the trace, and the `error` of a run that failed.

    `result_json` is the result of a completed one. A paused run has its `pause` and the `outputs` by step id
    so far.
    """

    status: str
    error: dict[str, Any] | None = None
    step_id: str | None = None
    pause: Pause | None = None
    outputs: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default, never changed
    result_json: bytes = b"null"


class RunTask:
    """A segment that goes on, on behalf of `owner`; `stop` asks it to end early."""

    def __init__(
        self,
        engine: EngineContext,
        run: RunRecord,
        state: ResumeState,
        *,
        owner: str,
        not_before: str = "",
        outputs: LiveOutputs | None = None,
    ) -> None:
        self.run = run
        self.stop = StopRequest()
        self.has_begun = False
        self.ended = False
        self._engine = engine
        self._state = state
        self._outputs = outputs
        self._spec = state.segment_spec.spec
        self._capture = engine.make_capture(self._spec.capture, self._spec.capture_failed)
        self._writer = RunWriter(
            engine.store,
            engine.bus,
            run,
            state.fold,
            engine.dependencies.clock,
            owner=owner,
            not_before=not_before,
        )
        self._memory = RunMemory(engine.limits.memory, self._writer.checkpoint, project_id=run.project_id)
        self._memory.hold_inputs(state.request_bytes)

    @property
    def stored_log(self) -> StoredLog:
        """What the store has said to have of the run."""
        writer = self._writer
        return StoredLog(self.run.id, self.run.project_id, writer.stored_head, writer.stored_last_at)

    async def walk(self) -> RunOutcome:
        """Goes on to the end of the segment. Raises RunReleased, and StoreError if it cannot be recorded."""
        self.has_begun = True
        set_project(self.run.project_id)
        run_id.set(self.run.id)
        try:
            try:
                if self.stop.requested:
                    raise asyncio.CancelledError
                outcome = await self._walked()
            except asyncio.CancelledError:
                # Being cut off is a way for a segment to end, and this is its task: nothing is to be unwound.
                outcome = await self._cancelled()
            self.ended = True
            await self._writer.commit()
        except WrongExpectedVersion as taken:
            raise AppendRefused(
                f"run {self.run.id!r} continues elsewhere or from an earlier event"
            ) from taken
        except PermanentStoreError as error:
            # Another process that went on with the run would come to the same place, and so for ever.
            return await self._given_up(error)
        finally:
            self._memory.close()
            await self._writer.close()
        return outcome

    async def _walked(self) -> RunOutcome:
        """The outcome of a segment that is not cut off."""
        try:
            await self._begin()
            if self.run.status == "pending":
                missing = await missing_key(self._spec.flow, self._engine.dependencies.models)
                if missing is not None:
                    step_id, message = missing
                    return await self._failed({"code": "PROVIDER_KEY_MISSING", "message": message}, step_id)
            result = await (await self._interpreter()).walk()
            if result.result is None:
                return RunOutcome("paused", pause=result.pause, outputs=result.outputs)
            # While the result is redacted, other runs may need memory: a value in use is not put away.
            async with self._memory.using([result.result], decoded=False):
                await self._capture.prepare(result.result)
                return self._completed(result.result)
        except StepFailedPermanently as failed:
            lost = without_traceback(failed).lost
            return await self._failed(lost.error, lost.step_id, captured=lost.captured)
        except LimitReached as reached:
            without_traceback(reached)
            return await self._failed(reached.error, reached.step_id)
        except StoreError:
            raise
        except Exception as fault:
            log.exception("run %s failed inside the engine", self.run.id)
            message = f"{type(fault).__name__} inside the engine; see the server's log"
            error = {"code": "INTERNAL_ERROR", "message": message}
            return await self._failed(error)

    async def _cancelled(self) -> RunOutcome:
        """Records the end of a run whose segment was cut off. Raises RunReleased where the run goes on."""
        reason = self.stop.cancelled
        if reason is None:
            if not self._engine.gate.closed:
                raise LeaseLost(f"run {self.run.id!r} was left, as the lease ran out") from None
            raise RunReleased(f"run {self.run.id!r} was left by a process that stops") from None
        told = None
        if not self._writer.head:
            told = await run_input(self._writer, self._spec, self._capture)
        last = FlowCancelled(execution_id=self.run.id, run_id=self.run.id, reason=reason)
        record_end(self._writer, last, owed=b'"cancelled"', told=told, left=self._state)
        return RunOutcome("cancelled", error={"code": "CANCELLED", "message": reason})

    async def _given_up(self, refused: PermanentStoreError) -> RunOutcome:
        """Ends a run where its stored log ends, since nothing more of it can be stored."""
        self.ended = True
        await self._writer.close()
        engine, run = self._engine, await self._engine.store.run(self.run.id)
        if run is None or run.ended or run.fence != self.run.fence:
            raise LeaseLost(f"run {self.run.id!r} was taken over by another process") from refused
        log.error("run %s is ended, as it cannot be recorded: %s", run.id, refused)
        if (reason := self.stop.cancelled) is not None:
            await end_run(engine, run, cancelled=reason, left=self._state)
            return RunOutcome("cancelled", error={"code": "CANCELLED", "message": reason})
        # The reason, for callers. The texts of other errors may name places of this machine.
        cause: BaseException = refused
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = str(cause) if isinstance(refused, ValueTooLarge) else "see the server's log"
        error = {"code": refused.code, "message": f"the run cannot be recorded: {why}"}
        step_id = await end_run(engine, run, error=error, left=self._state)
        return RunOutcome("failed", error=error, step_id=step_id)

    async def _begin(self) -> None:
        segment_spec = self._state.segment_spec
        if self.run.status == "pending":
            # Made before the first event: the two are one append, which a process that dies cannot part.
            told = await run_input(self._writer, self._spec, self._capture)
            self._writer.begin()
            if told is not None:
                self._writer.record(told)
        elif self.run.status == "paused":
            # With the first event: until that is stored the run still waits, and nothing has happened.
            self._writer.invalidate_checkpoints(kept_ids(self._spec.flow.steps[segment_spec.segment.first :]))
        else:
            return
        applied = await overrides_applied(self._writer, segment_spec, self._capture)
        if applied is not None:
            self._writer.record(applied)

    async def _interpreter(self) -> Interpreter:
        state, engine, spec, project_id = self._state, self._engine, self._spec, self.run.project_id
        context = RunContext(
            run_id=self.run.id,
            project_id=project_id,
            flow=spec.flow,
            inputs=Payload(spec.inputs),
            dependencies=engine.dependencies,
            writer=self._writer,
            capture=self._capture,
            gate=engine.gate,
            stop=self.stop,
            memory=self._memory,
            usage=RunUsage(
                engine.limits.settings, iterations=state.iterations, output_bytes=state.output_bytes
            ),
            store_turns=engine.limits.store_turns[project_id],
            model_calls=engine.limits.model_calls,
            budget=await engine.budgets.of_run(project_id, self._writer),
            outputs=self._outputs,
            answers_call=state.segment_spec.segment.answers_call,
        )
        if (tool_loop := state.abandoned_loop) is not None:
            # Its step will be run anew: the attempt that waited for tool results ends.
            step = find_step(spec.flow, tool_loop.step_id)
            assert step is not None
            position, number = StepPosition(step_index(spec.flow, step.id)), tool_loop.attempt
            attempt = AttemptRecorder(context, step, Payload(None), position, number, tool_loop=tool_loop)
            attempt.retry(StepFailure("CANCELLED", "the caller went back to an earlier step"), delay_ms=0)
        executor = StepExecutor(
            context,
            InterruptedAttempts(
                context, state.interrupted, crash_retries=engine.limits.settings.crash_retries
            ),
            earlier=state.earlier,
            step_inputs=state.segment_spec.segment.step_inputs,
        )
        return Interpreter(context, executor, state)

    def _completed(self, result: Payload) -> RunOutcome:
        snapshot = self._capture.snapshot(result)
        self._writer.set_outcome(result=result.json)
        self._writer.record(
            FlowCompleted(
                execution_id=self.run.id,
                run_id=self.run.id,
                step_id=self._spec.flow.steps[-1].id,
                result=encoded(snapshot.data),
                truncated=snapshot.truncated,
                summary=encoded(msgspec.json.encode(self._writer.fold.summary.totals)),
                result_preview=preview(snapshot.data),
            )
        )
        return RunOutcome("completed", result_json=result.json)

    async def _failed(
        self, error: dict[str, Any], step_id: str | None = None, *, captured: msgspec.Raw | None = None
    ) -> RunOutcome:
        """The failure with its whole `error` for the caller; the log gets what is `captured` of it."""
        # Meanwhile the run may still be cancelled or left, as in the walk.
        kept = await read_outputs(self._engine, self._writer, self._capture)
        told = await run_input(self._writer, self._spec, self._capture, failed=True)
        # The caller of a job is told code and message of its error, and is owed no more.
        is_job = self.run.trigger_type == "job"
        owed = {name: error.get(name) for name in ("code", "message")} if is_job else error
        shown = encoded(self._capture.error(error) if captured is None else captured)
        last = FlowFailed(execution_id=self.run.id, run_id=self.run.id, error=shown, step_id=step_id)
        record_end(self._writer, last, owed=msgspec.json.encode(owed), kept=kept, told=told, left=self._state)
        return RunOutcome("failed", error=error, step_id=step_id)
