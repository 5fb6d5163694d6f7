"""Starts runs, owns them while they go on, and sees to it that each of them ends.

A run belongs to the engine and not to whoever asked for it: a caller that hangs up does not end it. Between
two stretches a paused run belongs to nobody; it waits in the store until it is taken up again or cancelled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple, Self

import msgspec
from uuid_utils import uuid7

from runglass.bus.base import Bus
from runglass.engine.attempt import Writing
from runglass.engine.attempts import Attempts, CreditsExhausted, StepLost
from runglass.engine.capture import Capture
from runglass.engine.cut_off import end_cut_off
from runglass.engine.plan import PAUSE, Pause, Plan, Stretch
from runglass.engine.recorder import Recorder
from runglass.engine.runner import Runner, Walked
from runglass.engine.steps import Parts
from runglass.engine.totals import Totals
from runglass.errors import HeadMismatch, StoreError, api_error
from runglass.events import FlowCancelled, FlowCompleted, FlowFailed, RunStarted
from runglass.execution import CaptureMode
from runglass.flow import step_count
from runglass.fold import Address, RunFold, StepChange
from runglass.lazy import encoded
from runglass.store.base import CallKey, FlowRecord, NewRun, RunRecord, Store
from runglass.trace import RunSummary, StepTrace

log = logging.getLogger(__name__)

MEND_DELAY_S = 1.0
MEND_DELAY_MAX_S = 30.0

WORKER_LOST = {"code": "WORKER_LOST", "message": "the process that ran this ended before the run did"}
UNRECORDED = {"code": "INTERNAL_ERROR", "message": "the store failed while the run was going on"}


class Outcome(NamedTuple):
    """How a stretch ended: `status` as in the trace, `result` of a completed run, `error` of a failed one.

    A paused run has its `pause` and the `outputs` by step id so far.
    """

    status: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    step_id: str | None = None
    pause: Pause | None = None
    outputs: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default, never changed


class StartedRun(NamedTuple):
    """A run that goes on by itself; `outcome` waits for the end of its stretch.

    `head` is the seq that the stretch began after. `outcome` raises StoreError if the end cannot be recorded.
    """

    id: str
    head: int
    outcome: Callable[[], Awaitable[Outcome]]


class PausedRun(NamedTuple):
    """A run that waits, with all that is needed to take it up again."""

    run: RunRecord
    plan: Plan
    pause: Pause
    outputs: dict[str, Any]


class _State(NamedTuple):
    """Where a stretch begins: the run's fold, what it has cost, what was pending, and what was kept."""

    fold: RunFold
    totals: Totals
    pause: Pause | None = None
    kept: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default, never changed
    earlier: dict[Address, StepChange] = {}  # noqa: RUF012  # as above


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
        self._stopping = False

    async def __aenter__(self) -> Self:
        for run in await self._store.unfinished_runs():
            plan = await self._plan_of(run)
            if run.status == "pending" and plan is not None:
                # Accepted and never begun: nothing has happened yet, so it simply begins now.
                self._begin(run, plan, Stretch(), _new_state(run), None)
            else:
                await end_cut_off(self._store, self._bus, self._parts.clock, run, plan, WORKER_LOST)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        for task in self._mending:
            task.cancel()
        await asyncio.gather(*self._mending, return_exceptions=True)

    async def stop(self) -> None:
        """Takes no more runs, cancels those that go on here and returns when their end is recorded."""
        self._stopping = True
        for run_id in list(self._tasks):
            self.cancel(run_id, reason="the server was stopped")
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def start(
        self,
        record: FlowRecord,
        plan: Plan,
        stretch: Stretch | None = None,
        *,
        session_id: str | None = None,
        call: CallKey | None = None,
        outputs: MutableMapping[int, bytes] | None = None,
    ) -> StartedRun:
        """Creates the run and lets it go on. When this returns, the run can be read.

        `outputs`, if given, gets each output by the seq of its `step_completed`. Raises StoreError, and
        CallRepeated where `call` has been made before.
        """
        if self._stopping:
            raise api_error("UNAVAILABLE", "the server is being stopped; nothing was started")
        run_id = str(uuid7())
        summary = RunSummary(
            id=run_id,
            flow_id=record.id,
            status="pending",
            trigger_type=plan.trigger_type,
            step_count=step_count(plan.flow),
        )
        run = await self._store.create_run(
            NewRun(
                id=run_id,
                project_id=record.project_id,
                flow_id=record.id,
                version=plan.version,
                trigger_type=plan.trigger_type,
                capture=plan.capture,
                session_id=session_id,
                request=msgspec.json.encode(plan),
                summary=msgspec.json.encode(summary),
                call=call,
            )
        )
        return self._begin(run, plan, stretch or Stretch(), _new_state(run), outputs)

    async def paused(self, run: RunRecord) -> PausedRun:
        """What a paused run waits for. Raises RUN_NOT_PAUSED."""
        await self._settled(run.id)
        plan = await self._plan_of(run)
        checkpoints = {
            (row.step_id, row.loop_path): row.data for row in await self._store.checkpoints(run.no)
        }
        pause = checkpoints.pop(PAUSE, None)
        if run.status != "paused" or run.id in self._tasks or plan is None or pause is None:
            raise api_error(
                "RUN_NOT_PAUSED", f"run {run.id!r} is {run.status} and waits for no call", execution_id=run.id
            )
        outputs = {
            step_id: msgspec.json.decode(data) for (step_id, path), data in checkpoints.items() if not path
        }
        return PausedRun(run, plan, msgspec.json.decode(pause, type=Pause), outputs)

    async def resume(
        self,
        paused: PausedRun,
        plan: Plan,
        stretch: Stretch,
        *,
        outputs: MutableMapping[int, bytes] | None = None,
    ) -> StartedRun:
        """Walks a further stretch of a paused run; `plan` is its own, or that with overrides.

        Raises RUN_NOT_PAUSED if somebody else has taken it up, StoreError.
        """
        if self._stopping:
            raise api_error("UNAVAILABLE", "the server is being stopped; nothing was started")
        run = paused.run
        rows, last_position = await self._store.open_steps(run.no)
        earlier = await self._store.steps(run.no) if stretch.first < paused.pause.cursor else []
        summary = msgspec.json.decode(run.summary, type=RunSummary)
        waiting = paused.pause.turns is not None and stretch.first == paused.pause.cursor
        state = _State(
            fold=RunFold(summary, open_steps=map(_change, rows), last_position=last_position),
            totals=paused.pause.totals,
            pause=paused.pause if waiting else None,
            kept=paused.outputs,
            earlier={
                Address(change.step.step_id, change.step.loop_path): change
                for change in map(_change, earlier)
            },
        )
        if run.id in self._tasks:
            raise api_error(
                "RUN_NOT_PAUSED", f"run {run.id!r} has been taken up already", execution_id=run.id
            )
        return self._begin(run, plan, stretch, state, outputs)

    async def cancel_paused(self, run: RunRecord, *, reason: str) -> bool:
        """Ends a paused run as cancelled; False if it does not wait any more."""
        await self._settled(run.id)
        if run.status != "paused" or run.id in self._tasks:
            return False
        plan = await self._plan_of(run)
        error = {"code": "CANCELLED", "message": reason}
        try:
            await end_cut_off(self._store, self._bus, self._parts.clock, run, plan, error, cancelled=reason)
        except HeadMismatch:
            return False
        return True

    def cancel(self, run_id: str, *, reason: str) -> bool:
        """Ends a run that goes on in this engine as cancelled; False if it does not."""
        task = self._tasks.get(run_id)
        if task is None or run_id in self._ended:
            return False
        self._cancelled.setdefault(run_id, reason)
        # A task that is cancelled before it begins never runs, and so would never record its end.
        if run_id in self._begun:
            task.cancel()
        return True

    def _begin(
        self,
        run: RunRecord,
        plan: Plan,
        stretch: Stretch,
        state: _State,
        outputs: MutableMapping[int, bytes] | None,
    ) -> StartedRun:
        task = asyncio.create_task(self._run(run, plan, stretch, state, outputs), name=f"run {run.id}")
        self._tasks[run.id] = task
        task.add_done_callback(lambda _: self._forget(run.id))
        return StartedRun(run.id, run.head, lambda: asyncio.shield(task))

    async def _settled(self, run_id: str) -> None:
        """Returns when a stretch that has ended is over: its last event is seen a moment before."""
        if run_id in self._ended and (task := self._tasks.get(run_id)) is not None:
            await asyncio.wait({task})

    def _forget(self, run_id: str) -> None:
        task = self._tasks.pop(run_id)
        self._cancelled.pop(run_id, None)
        self._begun.discard(run_id)
        self._ended.discard(run_id)
        # Asked for, so that a failure nobody waits for is logged here and not by the garbage collector.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run %s could not be recorded to its end: %s", run_id, error)

    async def _run(
        self,
        run: RunRecord,
        plan: Plan,
        stretch: Stretch,
        state: _State,
        outputs: MutableMapping[int, bytes] | None,
    ) -> Outcome:
        self._begun.add(run.id)
        recorder = Recorder(self._store, self._bus, run, state.fold, self._parts.clock)
        try:
            outcome = await self._outcome(run, plan, stretch, state, recorder, outputs)
            self._ended.add(run.id)
            await recorder.commit()
        except StoreError:
            self._mend(run.id)
            raise
        finally:
            await recorder.close()
        return outcome

    async def _outcome(
        self,
        run: RunRecord,
        plan: Plan,
        stretch: Stretch,
        state: _State,
        recorder: Recorder,
        outputs: MutableMapping[int, bytes] | None,
    ) -> Outcome:
        """Walks the stretch and records how it ended, in whatever way it did."""
        capture = self._make_capture(plan.capture)
        try:
            if run.status == "pending":
                recorder.record(run_started(run, plan))
            if run.id in self._cancelled:
                raise asyncio.CancelledError
            writing = Writing(
                execution_id=run.id,
                inputs=plan.inputs,
                recorder=recorder,
                capture=capture,
                clock=self._parts.clock,
            )
            attempts = Attempts(
                writing,
                parts=self._parts,
                totals=state.totals,
                has_credit=await self._credit(run.project_id),
                earlier=state.earlier,
                outputs=outputs,
            )
            runner = Runner(
                execution_id=run.id,
                recorder=recorder,
                attempts=attempts,
                capture=capture,
                parts=self._parts,
                is_cancelled=lambda: run.id in self._cancelled,
            )
            turns = state.pause.turns if state.pause else None
            walked = await runner.walk(plan, stretch, turns=turns, kept=state.kept)
            if walked.result is not None:
                await capture.prepare(walked.result)
            return _ended_well(run, walked, capture, state.totals, recorder)
        except StepLost as lost:
            return _failed(run, recorder, lost.error, lost.step_id)
        except CreditsExhausted as spent:
            message = f"the project's budget is spent; step {spent.step_id!r} was not begun"
            return _failed(run, recorder, {"code": "CREDITS_EXHAUSTED", "message": message})
        except asyncio.CancelledError:
            # Being cancelled is a way for a run to end, and this is its task: nothing above is to be unwound.
            reason = self._cancelled.get(run.id, "cancelled")
            recorder.owe(error=b'"cancelled"')
            recorder.record(FlowCancelled(execution_id=run.id, run_id=run.id, reason=reason))
            return Outcome("cancelled", error={"code": "CANCELLED", "message": reason})
        except StoreError:
            raise
        except Exception as error:
            log.exception("run %s failed inside the engine", run.id)
            message = f"{type(error).__name__} inside the engine; see the server's log"
            return _failed(run, recorder, {"code": "INTERNAL_ERROR", "message": message})

    async def _credit(self, project_id: int) -> Callable[[], Awaitable[bool]] | None:
        """How to ask for credit before each step; None where no budget is set."""
        project = await self._store.project(project_id)
        if project is None or project.budget_pico is None:
            return None

        async def has_credit() -> bool:
            current = await self._store.project(project_id)
            return current is None or not current.is_spent

        return has_credit

    async def _plan_of(self, run: RunRecord) -> Plan | None:
        """The run's plan; None where it cannot be read, as after a change of version."""
        kept = await self._store.request(run.no)
        try:
            return None if kept is None else msgspec.json.decode(kept, type=Plan)
        except msgspec.MsgspecError as error:
            log.warning("the plan of run %s cannot be read: %s", run.id, error)
            return None

    def _mend(self, run_id: str) -> None:
        task = asyncio.create_task(self._end_when_possible(run_id))
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _end_when_possible(self, run_id: str) -> None:
        """Records that the run could not be recorded, as soon as the store takes it."""
        delay_s = MEND_DELAY_S
        while True:
            await self._parts.clock.sleep(delay_s)
            try:
                run = await self._store.run(run_id)
                if run is not None and not run.ended:
                    plan = await self._plan_of(run)
                    await end_cut_off(self._store, self._bus, self._parts.clock, run, plan, UNRECORDED)
            except HeadMismatch:
                return  # another process goes on with the run
            except StoreError:
                delay_s = min(delay_s * 2, MEND_DELAY_MAX_S)
            else:
                return


def run_started(run: RunRecord, plan: Plan) -> RunStarted:
    """The first event of a run."""
    return RunStarted(
        execution_id=run.id,
        run_id=run.id,
        flow_id=run.flow_id,
        step_count=step_count(plan.flow),
        trigger_type=plan.trigger_type,
        version=plan.version,
    )


def _new_state(run: RunRecord) -> _State:
    return _State(fold=RunFold(msgspec.json.decode(run.summary, type=RunSummary)), totals=Totals())


def _change(row: Any) -> StepChange:
    return StepChange(row.position, msgspec.json.decode(row.data, type=StepTrace))


def _ended_well(
    run: RunRecord, walked: Walked, capture: Capture, totals: Totals, recorder: Recorder
) -> Outcome:
    if walked.result is None:
        return Outcome("paused", pause=walked.pause, outputs=walked.outputs)
    kept = capture.snapshot(walked.result).data
    recorder.owe(result=walked.result.json)
    recorder.record(
        FlowCompleted(
            execution_id=run.id,
            run_id=run.id,
            result=encoded(kept),
            summary=encoded(msgspec.json.encode(totals.summary())),
        )
    )
    return Outcome("completed", result=walked.result.value, outputs=walked.outputs)


def _failed(run: RunRecord, recorder: Recorder, error: dict[str, Any], step_id: str | None = None) -> Outcome:
    recorded = msgspec.json.encode(error)
    recorder.owe(error=recorded)
    recorder.record(FlowFailed(execution_id=run.id, run_id=run.id, error=encoded(recorded), step_id=step_id))
    return Outcome("failed", error=error, step_id=step_id)
