"""Walks a flow's tree of steps for one run.

Leaf steps do the work (`steps/executor.py`); containers only order it (`containers.py`). A segment ends
with the result of the run, or with a pause.
"""

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from runglass.engine.journal.checkpoints import (
    FailureCheckpoint,
    StepPosition,
    pause_checkpoint,
)
from runglass.engine.journal.resume import ResumeState
from runglass.engine.journal.run_spec import Pause, RunSpec, Segment, ToolLoopState, ToolOffer
from runglass.engine.models.model_types import both_spellings
from runglass.engine.payload import Payload
from runglass.engine.run_memory import value_of
from runglass.engine.steps.attempt_runner import LlmContext
from runglass.engine.steps.containers import Containers
from runglass.engine.steps.executor import StepExecutor
from runglass.engine.steps.outcomes import AwaitingToolResults, StepFailedPermanently
from runglass.engine.steps.run_context import RunContext
from runglass.engine.steps.scope import Scope
from runglass.errors import StepFailure
from runglass.flows.flow import (
    ConditionStep,
    LeafStep,
    LlmStep,
    LoopStep,
    ParallelStep,
    Step,
    leaves,
    within,
)
from runglass.limits.offload import offload
from runglass.log.events import StepPaused, StepPausedForToolCalls
from runglass.store.records import Checkpoint


class SegmentResult(NamedTuple):
    """The end of a segment: the run's result, or the pause in which it waits, and the outputs so far."""

    result: Payload | None
    pause: Pause | None
    outputs: dict[str, Any]


def _objects(value: Any) -> list[dict[str, Any]]:
    # A cut list ends with a mark, which is no object.
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


NO_LLM_CONTEXT = LlmContext()
"""The context of a step that asks no model."""


class Interpreter:
    """One segment of one run of one flow."""

    def __init__(self, context: RunContext, executor: StepExecutor, state: ResumeState) -> None:
        self._context = context
        self._executor = executor
        self._state = state
        self._checkpoints = state.checkpoints
        self._has_checkpoints = bool(state.checkpoints)

    async def walk(self) -> SegmentResult:
        """Runs the top-level steps of the segment.

        Raises StepFailedPermanently, LimitReached and StoreError.
        """
        spec, segment = self._state.segment_spec.spec, self._state.segment_spec.segment
        tool_loop, steps = self._state.tool_loop, spec.flow.steps
        scope, data = self._before(spec, segment)
        for index in range(segment.first, len(steps)):
            step = steps[index]
            if index == segment.first and segment.input is not None:
                async with self._context.memory.using([data]):
                    data = Payload({**(await value_of(data) or {}), **segment.input})
            offer = segment.offer if isinstance(step, LlmStep) and step.tools else None
            try:
                data = await self._step(step, data, scope, StepPosition(index), offer, tool_loop)
            except AwaitingToolResults as waiting:
                return await self._wait_for_tools(waiting.tool_loop, index, await self._outputs(scope))
            tool_loop = None
            if index == segment.last and index + 1 < len(steps):
                pause = self._pause(index + 1)
                event = StepPaused(execution_id=self._context.run_id, step_id=step.id, step_index=index)
                self._context.writer.record(event, checkpoint=pause_checkpoint(pause))
                return SegmentResult(None, pause, await self._outputs(scope))
        return SegmentResult(data, None, {})

    async def _outputs(self, scope: Scope) -> dict[str, Any]:
        """The outputs so far, all of them in memory: the answer to the caller has them."""
        outputs = scope.outputs()
        for step_id, output in scope.large().items():
            async with self._context.memory.using([output]):
                outputs[step_id] = await value_of(output)
        return outputs

    async def _wait_for_tools(
        self, tool_loop: ToolLoopState, index: int, outputs: dict[str, Any]
    ) -> SegmentResult:
        """Records that the run waits for the results of the calls in `tool_loop`.

        Where the segment answers a call that may be sent again, the pause is kept whole for that.
        """
        context = self._context
        pause = self._pause(index, tool_loop)
        shown = Payload({"messages": tool_loop.messages, "calls": tool_loop.calls, "outputs": outputs})
        await context.capture.prepare(shown)
        snapshot = context.capture.snapshot(shown).data
        content = msgspec.json.decode(snapshot) if snapshot is not None else {}
        attempt = context.writer.fold.open_step(tool_loop.step_id, None)
        event = StepPausedForToolCalls(
            execution_id=context.run_id,
            run_id=context.run_id,
            step_id=tool_loop.step_id,
            step_index=pause.cursor,
            iterations_used=tool_loop.iterations_used,
            tool_call_messages=both_spellings(_objects(content.get("messages"))),
            tool_calls=_objects(content.get("calls")),
            accumulated_outputs=content.get("outputs") or {},
            tokens=None if attempt is None else attempt.tokens,
            cost_usd=None if attempt is None else attempt.cost_usd,
            model_used=None if attempt is None else attempt.model_used,
        )
        owed = {
            "toolCallMessages": both_spellings(tool_loop.messages),
            "toolCalls": tool_loop.calls,
            "accumulatedOutputs": outputs,
        }
        checkpoint, answer = await offload(
            lambda: (pause_checkpoint(pause), msgspec.json.encode(owed)), size_bytes=shown.size_bytes
        )
        context.writer.record(event, checkpoint=checkpoint)
        if context.answers_call:
            context.writer.keep_replay(answer)
        return SegmentResult(None, pause, outputs)

    def _pause(self, cursor: int, tool_loop: ToolLoopState | None = None) -> Pause:
        reached, iterations = max(cursor, self._state.reached), self._context.usage.iterations
        return Pause(cursor=cursor, tool_loop=tool_loop, reached=reached, iterations=iterations)

    async def _sequence(
        self, steps: Sequence[Step], data: Payload, scope: Scope, position: StepPosition
    ) -> Payload:
        for step in steps:
            data = await self._step(step, data, scope, position)
        return data

    async def _step(
        self,
        step: Step,
        data: Payload,
        scope: Scope,
        position: StepPosition,
        offer: ToolOffer | None = None,
        tool_loop: ToolLoopState | None = None,
    ) -> Payload:
        try:
            output = self._known(step, scope, position) if self._has_checkpoints else None
            if output is None:
                match step:
                    case LoopStep():
                        output = await self._containers.loop(step, data, scope, position, self._sequence)
                    case ConditionStep():
                        output = await self._containers.condition(step, data, scope, position, self._sequence)
                    case ParallelStep():
                        output = await self._containers.parallel(step, data, scope, position, self._sequence)
                    case _:
                        llm_context = NO_LLM_CONTEXT
                        if isinstance(step, LlmStep):
                            llm_context = self._llm_context(step, offer, tool_loop)
                        output = await self._executor.run(step, data, scope, position, llm_context, tool_loop)
                if position.loop_path is None and not isinstance(step, LeafStep):
                    await self._keep_container(step, position, data, output)
        except StepFailedPermanently:
            # A step may fail in the moment in which it is cancelled.
            if self._context.stop.requested:
                raise asyncio.CancelledError from None
            if self._context.stop.limit is not None:
                raise self._context.stop.limit from None
            if step.on_error == "fail":
                raise
            self._executor.interrupted.abandon_inner(step, position)
            output = Payload(None)
            if position.loop_path is None and not isinstance(step, LeafStep):
                self._context.writer.add_checkpoint(Checkpoint(step.id, position.path_text, output.json))
        scope.keep(step.id, output)
        return output

    async def _keep_container(
        self, step: Step, position: StepPosition, data: Payload, output: Payload
    ) -> None:
        """Keeps the output of a container outside of loops: it is seen to the end, over every pause."""
        async with self._context.memory.using([output], decoded=False):
            try:
                self._context.usage.keep(output.size_bytes, step_id=step.id)
            except StepFailure as failure:
                await self._executor.fail(step, data, failure, position)
            self._context.writer.add_checkpoint(Checkpoint(step.id, position.path_text, output.json))
        self._context.memory.keep(output, (step.id, position.path_text))

    def _known(self, step: Step, scope: Scope, position: StepPosition) -> Payload | None:
        """The output of a step that a process before this one has ended. Raises StepFailedPermanently."""
        found = self._checkpoints.take(step, position)
        if found is None:
            return None
        if not isinstance(step, LeafStep):
            self._executor.interrupted.abandon_inner(step, position)
            self._see_inside(step, scope, position)
        if isinstance(found, FailureCheckpoint):
            raise StepFailedPermanently(found)
        self._context.memory.keep(found, (step.id, position.path_text))
        return found

    def _see_inside(self, container: Step, scope: Scope, position: StepPosition) -> None:
        """Lets the steps to come see the outputs inside of a container that is not walked again."""
        for inner in within(container):
            found = self._checkpoints.take(inner, position) if inner is not container else None
            if isinstance(found, Payload):
                self._context.memory.keep(found, (inner.id, position.path_text))
                scope.keep(inner.id, found)

    def _llm_context(
        self, step: LlmStep, offer: ToolOffer | None, tool_loop: ToolLoopState | None
    ) -> LlmContext:
        if tool_loop is not None:
            results = self._state.segment_spec.segment.results
            return LlmContext(offer=offer or tool_loop.offer, messages=[*tool_loop.messages, *results])
        if step is self._first_llm:
            spec = self._state.segment_spec.spec
            return LlmContext(history=spec.history, attachments=spec.attachments, offer=offer)
        return LlmContext(offer=offer)

    @cached_property
    def _containers(self) -> Containers:
        """Made once there is one to run."""
        return Containers(self._context, self._executor, self._state.checkpoints)

    @cached_property
    def _first_llm(self) -> LeafStep | None:
        """The first llm step of the flow; looked for once there is one to run."""
        return next(
            (leaf for leaf in leaves(self._state.segment_spec.spec.flow.steps) if isinstance(leaf, LlmStep)),
            None,
        )

    def _before(self, spec: RunSpec, segment: Segment) -> tuple[Scope, Payload]:
        """The scope and the data with which a segment begins: as if all before it had just been run."""
        scope, data = Scope(spec.inputs), Payload(spec.inputs)
        outputs = {**self._state.outputs, **segment.outputs}
        known = {step_id: Payload(output) for step_id, output in outputs.items()}
        for step in spec.flow.steps[: segment.first]:
            for inner in within(step):
                if inner.id in known:
                    if inner.id not in segment.outputs:
                        self._context.memory.keep(known[inner.id], (inner.id, ""))
                    scope.keep(inner.id, known[inner.id])
            data = known.get(step.id) or Payload(None)
        return scope, data
