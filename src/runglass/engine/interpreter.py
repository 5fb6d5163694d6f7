"""Walks a flow's tree of steps for one run.

Leaf steps do the work (`executor.py`); the loops, conditions and parallel parts here only order it.
"""

import asyncio
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, assert_never

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.drain import StopRequest
from runglass.engine.journal.checkpoints import (
    ENDED,
    FailureCheckpoint,
    decision_checkpoint,
    output_checkpoint,
    pause_checkpoint,
)
from runglass.engine.journal.recorder import Recorder, path_text
from runglass.engine.journal.resume import ResumeState
from runglass.engine.journal.run_spec import Pause, RunSpec, Segment, ToolLoopState, ToolOffer
from runglass.engine.models.model_types import both_spellings
from runglass.engine.payload import LARGE_BYTES as HELD_AS_JSON
from runglass.engine.payload import Payload
from runglass.engine.scheduling.concurrency import LoopWorkers, Workers, is_cut_off, side_by_side
from runglass.engine.scheduling.loop_outputs import LoopOutputs, joined_branches, require_values
from runglass.engine.scheduling.memory_budget import RunMemory, encode, value_of
from runglass.engine.scheduling.offloading import LARGE_BYTES, offload
from runglass.engine.scheduling.pacing import ITERATION_S, admit_paced
from runglass.engine.scheduling.run_limits import Allowance
from runglass.engine.scope import Scope, StepPosition
from runglass.engine.step_variables import names_for, needed_by
from runglass.engine.steps.executor import (
    AwaitingToolResults,
    CreditsExhausted,
    StepExecutor,
    StepFailedPermanently,
)
from runglass.engine.steps.handlers import LlmContext, StepDependencies
from runglass.errors import StepFailure
from runglass.events import LoopCompleted, StepPaused, StepPausedForToolCalls, StepSkipped
from runglass.flow import (
    CodeStep,
    ConditionStep,
    LeafStep,
    LlmStep,
    LoopStep,
    ParallelStep,
    PassthroughStep,
    Step,
    WaitStep,
    leaves,
    within,
)

_LEAVES = frozenset({LlmStep, CodeStep, WaitStep, PassthroughStep})
NO_TALK = LlmContext()
"""That of a step which asks no model."""


class SegmentResult(NamedTuple):
    """What a stretch came to: the run's result, or the pause in which it waits, and the outputs so far."""

    result: Payload | None
    pause: Pause | None
    outputs: dict[str, Any]


class Interpreter:
    """One stretch of one run of one flow."""

    def __init__(
        self,
        *,
        execution_id: str,
        recorder: Recorder,
        attempts: StepExecutor,
        capture: Capture,
        parts: StepDependencies,
        ending: StopRequest,
        state: ResumeState,
        memory: RunMemory,
        allowance: Allowance,
    ) -> None:
        self._id = execution_id
        self._ending = ending
        self._state = state
        self._kept = state.kept
        self._memory = memory
        self._allowance = allowance
        self._recorder = recorder
        self._attempts = attempts
        self._capture = capture
        self._sandbox = parts.sandbox
        self._templates = parts.templates
        self._project_id = parts.project_id
        self._talk = LlmContext()
        self._workers = Workers()

    async def walk(self) -> SegmentResult:
        """Runs the top-level steps of the stretch.

        Raises StepLost, CreditsExhausted, LimitReached and StoreError.
        """
        plan, stretch = self._state.begun.plan, self._state.begun.stretch
        turns, steps = self._state.turns, plan.flow.steps
        scope, data = self._before(plan, stretch, self._state.outputs)
        self._talk = LlmContext(history=plan.history, attachments=plan.attachments)
        for index in range(stretch.first, len(steps)):
            step = steps[index]
            if index == stretch.first and stretch.input is not None:
                await self._memory.bring_back(data)
                data = Payload({**(data.value or {}), **stretch.input})
            offer = stretch.offer if isinstance(step, LlmStep) and step.tools else None
            try:
                data = await self._step(step, data, scope, StepPosition(index), offer, turns, stretch.results)
            except AwaitingToolResults as waiting:
                outputs = await self._outputs(scope)
                return await self._wait_for_tools(waiting.turns, index, outputs)
            turns = None
            if index == stretch.last and index + 1 < len(steps):
                pause = Pause(
                    cursor=index + 1,
                    reached=max(index + 1, self._state.reached),
                    iterations=self._allowance.iterations,
                )
                event = StepPaused(execution_id=self._id, step_id=step.id, step_index=index)
                self._recorder.record(event, checkpoint=pause_checkpoint(pause))
                return SegmentResult(None, pause, await self._outputs(scope))
        await self._memory.bring_back(data)
        return SegmentResult(data, None, {})

    async def _outputs(self, scope: Scope) -> dict[str, Any]:
        """The outputs so far, all of them in memory: the answer to the caller has them."""
        outputs = scope.outputs()
        for step_id, output in scope.large().items():
            async with self._memory.using([output]):
                outputs[step_id] = await value_of(output)
        return outputs

    async def _wait_for_tools(
        self, turns: ToolLoopState, index: int, outputs: dict[str, Any]
    ) -> SegmentResult:
        pause = Pause(
            cursor=index,
            turns=turns,
            reached=max(index, self._state.reached),
            iterations=self._allowance.iterations,
        )
        shown = Payload({"messages": turns.messages, "calls": turns.calls, "outputs": outputs})
        await encode(shown)
        await self._capture.prepare(shown)
        kept = self._capture.snapshot(shown).data
        content = msgspec.json.decode(kept) if kept is not None else {}
        attempt = self._recorder.fold.open_step(turns.step_id, None)
        event = StepPausedForToolCalls(
            execution_id=self._id,
            run_id=self._id,
            step_id=turns.step_id,
            step_index=index,
            iterations_used=turns.iterations_used,
            tool_call_messages=both_spellings(_objects(content.get("messages"))),
            tool_calls=_objects(content.get("calls")),
            accumulated_outputs=content.get("outputs") or {},
            tokens=None if attempt is None else attempt.tokens,
            cost_usd=None if attempt is None else attempt.cost_usd,
            model_used=None if attempt is None else attempt.model_used,
        )
        owed = {
            "toolCallMessages": both_spellings(turns.messages),
            "toolCalls": turns.calls,
            "accumulatedOutputs": outputs,
        }
        checkpoint, answer = await offload(
            lambda: (pause_checkpoint(pause), msgspec.json.encode(owed)), size_bytes=shown.size_bytes
        )
        self._recorder.record(event, checkpoint=checkpoint)
        if self._state.begun.stretch.answers_call:
            self._recorder.keep_replay(answer)
        return SegmentResult(None, pause, outputs)

    async def _sequence(
        self, steps: Sequence[Step], data: Payload, scope: Scope, place: StepPosition
    ) -> Payload:
        for step in steps:
            data = await self._step(step, data, scope, place)
        return data

    async def _step(
        self,
        step: Step,
        data: Payload,
        scope: Scope,
        place: StepPosition,
        offer: ToolOffer | None = None,
        turns: ToolLoopState | None = None,
        results: Sequence[dict[str, Any]] = (),
    ) -> Payload:
        known = None
        try:
            known = self._known(step, scope, place) if self._kept else None
            match step:
                case _ if known is not None:
                    output = known
                case LlmStep() | CodeStep() | WaitStep() | PassthroughStep():
                    talk = self._talk_of(step, offer, turns, results)
                    output = await self._attempts.run(step, data, scope, place, talk, turns)
                case LoopStep():
                    output = await self._loop(step, data, scope, place)
                case ConditionStep():
                    output = await self._condition(step, data, scope, place)
                case ParallelStep():
                    output = await self._parallel(step, data, scope, place)
                case _:
                    assert_never(step)
            if known is None and place.loop_path is None and not isinstance(step, LeafStep):
                # What is outside of loops is seen to the end of the run, over every pause.
                await self._keep_container(step, place, data, output)
        except StepFailedPermanently:
            # The cancellation itself may have been swallowed on its way.
            if self._ending.requested or (step.on_error != "fail" and is_cut_off()):
                raise asyncio.CancelledError from None
            if self._ending.spent_at is not None:
                raise CreditsExhausted(self._ending.spent_at, self._ending.spent) from None
            if self._ending.limit is not None:
                raise self._ending.limit from None
            if step.on_error == "fail":
                raise
            self._attempts.abandon_inner(step, place)
            output = Payload(None)
            if known is None and place.loop_path is None and not isinstance(step, LeafStep):
                self._recorder.add_checkpoint(output_checkpoint(step, place, output.json))
        if (place.loop_path is None or type(step) in _LEAVES) and output.size_bytes >= HELD_AS_JSON:
            self._memory.keep(output, (step.id, path_text(place.loop_path)))
        scope.keep(step.id, output)
        return output

    async def _keep_container(self, step: Step, place: StepPosition, data: Payload, output: Payload) -> None:
        async with self._memory.using([output], decoded=False):
            try:
                self._allowance.keep(output.size_bytes, step_id=step.id)
            except StepFailure as failure:
                async with self._memory.using([data], decoded=False):
                    await self._attempts.fail(step, data, failure, place)
            self._recorder.add_checkpoint(output_checkpoint(step, place, output.json))

    def _known(self, step: Step, scope: Scope, place: StepPosition) -> Payload | None:
        """The output of a step that a process before this one has ended. Raises StepLost."""
        found = self._kept.take(step, place)
        if found is None:
            return None
        if not isinstance(step, LeafStep):
            self._attempts.abandon_inner(step, place)
            self._see_inside(step, scope, place)
        if isinstance(found, FailureCheckpoint):
            raise StepFailedPermanently(found)
        return found

    def _see_inside(self, container: Step, scope: Scope, place: StepPosition) -> None:
        """Lets the steps to come see the outputs inside of a container that is not walked again."""
        for inner in within(container):
            found = self._kept.take(inner, place) if inner is not container else None
            if isinstance(found, Payload):
                self._memory.keep(found, (inner.id, path_text(place.loop_path)))
                scope.keep(inner.id, found)

    def _talk_of(
        self,
        step: LeafStep,
        offer: ToolOffer | None,
        turns: ToolLoopState | None,
        results: Sequence[dict[str, Any]],
    ) -> LlmContext:
        if not isinstance(step, LlmStep):
            return NO_TALK
        if turns is not None:
            return LlmContext(offer=offer or turns.offer, messages=[*turns.messages, *results])
        if step is self._first_llm:
            return msgspec.structs.replace(self._talk, offer=offer)
        return LlmContext(offer=offer)

    @cached_property
    def _first_llm(self) -> LeafStep | None:
        """The first llm step of the flow; looked for once there is one to run."""
        return next(
            (leaf for leaf in leaves(self._state.begun.plan.flow.steps) if isinstance(leaf, LlmStep)), None
        )

    async def _loop(self, step: LoopStep, data: Payload, scope: Scope, place: StepPosition) -> Payload:
        data = await self._own_input(step, data, scope, place)
        decided = self._kept.take_decision(step, place)
        items: list[Any]
        if decided is not None:
            items = await offload(partial(_items, decided), size_bytes=len(decided))
            self._allowance.iterate(len(items), step_id=step.id)
        else:
            items = await self._items_of(step, data, scope, place)
        remaining = iter(range(len(items)))

        with LoopOutputs(self._memory, step.id, len(items)) as outputs:

            async def work() -> None:
                await self._attempts.turn()
                await admit_paced(self._project_id, ITERATION_S)
                # Workers draw from one iterator: at most max_concurrency iterations exist at a time.
                for index in remaining:
                    workers.add()
                    item = items[index]
                    names = {
                        step.as_: msgspec.json.decode(item) if type(item) is msgspec.Raw else item,
                        "index": index,
                    }
                    output = await self._sequence(
                        step.steps, Payload(names), scope.iteration(names), place.iteration(index)
                    )
                    try:
                        outputs.add(index, output)
                    except StepFailure as failure:
                        await self._attempts.fail(step, Payload(names), failure, place)

            workers = LoopWorkers(min(step.max_concurrency, len(items)), self._workers)
            await workers.run(work)
            output = await outputs.joined()
        await self._require_values(step, data, output, place)
        if self._kept.holds(step.id, place.loop_path):
            return output
        self._recorder.record(
            LoopCompleted(
                execution_id=self._id,
                step_id=step.id,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                iterations=len(items),
            ),
            checkpoint=output_checkpoint(step, place, ENDED),
        )
        if place.loop_path is not None:
            await self._attempts.pace(step)
        return output

    async def _items_of(self, step: LoopStep, data: Payload, scope: Scope, place: StepPosition) -> list[Any]:
        """The items of a loop that begins; many of them as JSON, each decoded in its iteration."""
        items = await self._evaluate(step, step.over, data, scope, place)
        decision, failure = b"", None
        if isinstance(items, list):
            decision = msgspec.json.encode(items)
            try:
                self._allowance.iterate(len(items), step_id=step.id)
                self._allowance.keep(len(decision), step_id=step.id)
            except StepFailure as refusal:
                failure = refusal
        else:
            failure = StepFailure(
                "INVALID_INPUT",
                f"`over: {step.over}` of loop {step.id!r} is a {type(items).__name__}, not a list",
            )
        if failure is not None:
            async with self._memory.using([data], decoded=False):
                await self._attempts.fail(step, data, failure, place)
        self._recorder.add_checkpoint(decision_checkpoint(step, place, decision))
        return _items(decision) if len(decision) > LARGE_BYTES else items

    async def _condition(
        self, step: ConditionStep, data: Payload, scope: Scope, place: StepPosition
    ) -> Payload:
        data = await self._own_input(step, data, scope, place)
        decided = self._kept.take_decision(step, place)
        holds = None if decided is None else msgspec.json.decode(decided)
        if holds is None:
            # In the sandbox, where a truth value can be had of what is no JSON, such as a set.
            holds = await self._evaluate(step, f"not not ({step.if_}\n)", data, scope, place)
            await self._skip(step, place, holds=holds)
        return await self._sequence(step.then if holds else step.else_, data, scope, place)

    async def _skip(self, step: ConditionStep, place: StepPosition, *, holds: bool) -> None:
        """Records that the leaves of the branch that is not taken are skipped."""
        self._recorder.add_checkpoint(decision_checkpoint(step, place, msgspec.json.encode(holds)))
        for leaf in leaves(step.else_ if holds else step.then):
            self._recorder.record(
                StepSkipped(
                    execution_id=self._id,
                    step_id=leaf.id,
                    attempt=self._attempts.next_attempt(leaf.id, place),
                    loop_index=place.loop_index,
                    loop_path=place.loop_path,
                    reason=f"condition {step.id!r} was {'true' if holds else 'false'}",
                )
            )
            await self._attempts.pace(step)

    async def _parallel(
        self, step: ParallelStep, data: Payload, scope: Scope, place: StepPosition
    ) -> Payload:
        data = await self._own_input(step, data, scope, place)
        outputs = dict.fromkeys(step.branches, data)

        async def work(name: str, steps: Sequence[Step]) -> None:
            outputs[name] = await self._sequence(steps, data, scope, place)

        await side_by_side([partial(work, name, steps) for name, steps in step.branches.items()])
        output = await joined_branches(outputs, self._memory)
        await self._require_values(step, data, output, place)
        return output

    async def _require_values(
        self, step: LoopStep | ParallelStep, data: Payload, output: Payload, place: StepPosition
    ) -> None:
        try:
            await require_values(output, step_id=step.id)
        except StepFailure as failure:
            await self._attempts.fail(step, Payload(None) if data.is_away else data, failure, place)

    async def _evaluate(
        self,
        step: LoopStep | ConditionStep,
        expression: str,
        data: Payload,
        scope: Scope,
        place: StepPosition,
    ) -> Any:
        async with self._memory.using(needed_by(step, data, scope)):
            try:
                names = await names_for(step, data, scope)
                return await self._sandbox.evaluate(expression, names, project_id=self._project_id)
            except StepFailure as failure:
                await self._attempts.fail(step, data, failure, place)

    async def _own_input(
        self, step: LoopStep | ConditionStep | ParallelStep, data: Payload, scope: Scope, place: StepPosition
    ) -> Payload:
        if step.input is not None:
            async with self._memory.using(needed_by(step, data, scope)):
                try:
                    names = await names_for(step, data, scope)
                    given = await self._templates.render_input(step.input, names, project_id=self._project_id)
                    data = Payload(given)
                except StepFailure as failure:
                    await self._attempts.fail(step, data, failure, place)
        return self._attempts.overridden(step, data)

    def _before(self, plan: RunSpec, stretch: Segment, outputs: dict[str, Any]) -> tuple[Scope, Payload]:
        """The scope and the data with which a stretch begins: as if all before it had just been run."""
        scope, data = Scope(plan.inputs), Payload(plan.inputs)
        known = {step_id: Payload(output) for step_id, output in {**outputs, **stretch.outputs}.items()}
        for step in plan.flow.steps[: stretch.first]:
            for inner in within(step):
                if inner.id in known:
                    if inner.id not in stretch.outputs:
                        self._memory.keep(known[inner.id], (inner.id, ""))
                    scope.keep(inner.id, known[inner.id])
            data = known.get(step.id) or Payload(None)
        return scope, data


def _items(decision: bytes) -> list[Any]:
    """The items that a loop has decided on, each as JSON where they are many."""
    if len(decision) <= LARGE_BYTES:
        items: list[Any] = msgspec.json.decode(decision)
        return items
    return msgspec.json.decode(decision, type=list[msgspec.Raw])


def _objects(value: Any) -> list[dict[str, Any]]:
    # A cut list ends with a mark, which is no object.
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
