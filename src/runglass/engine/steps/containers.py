"""Loops, conditions and parallel parts: in which order, and with which input, the steps inside them are run.

The steps inside are run by `walk`, which the interpreter hands in with each call: kept here, it would tie the
two together, and an ended run would be left to the garbage collector.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from runglass.engine.journal.checkpoints import (
    ENDED,
    CheckpointSet,
    StepPosition,
    decision_checkpoint,
)
from runglass.engine.payload import Payload
from runglass.engine.steps.concurrency import (
    LoopOutputs,
    LoopWorkers,
    joined_branches,
    side_by_side,
)
from runglass.engine.steps.executor import StepExecutor
from runglass.engine.steps.run_context import RunContext
from runglass.engine.steps.scope import Scope, names_for, needed_by
from runglass.errors import StepFailure
from runglass.flows.flow import ConditionStep, LoopStep, ParallelStep, Step, leaves
from runglass.limits.offload import LARGE_BYTES, offload, yield_to_others
from runglass.limits.pace import ITERATION_S, admit_paced
from runglass.log.events import LoopCompleted, LoopStarted, StepSkipped
from runglass.store.records import Checkpoint
from runglass.support.json_weight import weighs_more

MOST_JOINED = 5_000_000
"""Values that a container may join to one output: some 0.4 s to read."""
WalkSteps = Callable[[Sequence[Step], Payload, Scope, StepPosition], Awaitable[Payload]]
"""Runs steps one after the other; returns the last output."""
Container = LoopStep | ConditionStep | ParallelStep


class Containers:
    """The containers of one run."""

    def __init__(self, context: RunContext, executor: StepExecutor, checkpoints: CheckpointSet) -> None:
        self._context = context
        self._executor = executor
        self._checkpoints = checkpoints
        self._evaluate = context.dependencies.sandbox.evaluate
        self._render_input = context.dependencies.templates.render_input

    async def loop(
        self, step: LoopStep, data: Payload, scope: Scope, position: StepPosition, walk: WalkSteps
    ) -> Payload:
        """The items of a loop's iterations. Raises as `walk` does."""
        data = await self._own_input(step, data, scope, position)
        decided = self._checkpoints.take_decision(step, position)
        items: list[Any]
        if decided is not None:
            items = await offload(partial(_items, decided), size_bytes=len(decided))
            # It has begun under the limit that held then.
            self._context.usage.iterations += len(items)
        else:
            items = await self._items_of(step, data, scope, position)
        remaining = iter(range(len(items)))

        with LoopOutputs(self._context.memory, step.id, len(items)) as outputs:

            async def work() -> None:
                await self._turn()
                # Workers draw from one iterator: at most max_concurrency iterations exist at a time.
                for index in remaining:
                    workers.add()
                    item = items[index]
                    names = {
                        step.as_: msgspec.json.decode(item) if type(item) is msgspec.Raw else item,
                        "index": index,
                    }
                    output = await walk(
                        step.steps, Payload(names), scope.iteration(names), position.iteration(index)
                    )
                    outputs.add(index, output)

            workers = LoopWorkers(min(step.max_concurrency, len(items)), self._context.usage)
            try:
                await workers.run(work)
            except StepFailure as failure:
                # Here, where the other workers are cut off: each of them would let the loop fail once more.
                await self._executor.fail(step, data, failure, position)
            output = await outputs.joined()
        await self._require_values(step, data, output, position)
        if self._checkpoints.holds(step.id, position.loop_path):
            return output
        self._context.writer.record(
            LoopCompleted(
                execution_id=self._context.run_id,
                step_id=step.id,
                loop_index=position.loop_index,
                loop_path=position.loop_path,
                iterations=len(items),
            ),
            checkpoint=Checkpoint(step.id, position.path_text, ENDED),
        )
        if position.loop_path is not None:
            await self._executor.pace(step)
        return output

    async def _items_of(
        self, step: LoopStep, data: Payload, scope: Scope, position: StepPosition
    ) -> list[Any]:
        """The items of a loop that begins; many of them as JSON, each decoded in its iteration."""
        items = await self._with_names(self._evaluate, step.over, step, data, scope, position)
        try:
            if not isinstance(items, list):
                raise StepFailure(
                    "INVALID_INPUT",
                    f"`over: {step.over}` of loop {step.id!r} is of type {type(items).__name__}, not a list",
                )
            decision = msgspec.json.encode(items)
            self._context.usage.iterate(len(items), step_id=step.id)
            self._context.usage.keep(len(decision), step_id=step.id)
        except StepFailure as failure:
            await self._executor.fail(step, data, failure, position)
        self._context.writer.record_with_next(
            LoopStarted(
                execution_id=self._context.run_id,
                step_id=step.id,
                loop_index=position.loop_index,
                loop_path=position.loop_path,
                iterations=len(items),
                step_ids=[leaf.id for leaf in leaves(step.steps)],
            ),
            checkpoint=decision_checkpoint(step, position, decision),
        )
        return _items(decision) if len(decision) > LARGE_BYTES else items

    async def condition(
        self, step: ConditionStep, data: Payload, scope: Scope, position: StepPosition, walk: WalkSteps
    ) -> Payload:
        """The output of the branch that the condition takes. Raises as `walk` does."""
        data = await self._own_input(step, data, scope, position)
        decided = self._checkpoints.take_decision(step, position)
        holds = None if decided is None else msgspec.json.decode(decided)
        if holds is None:
            # In the sandbox, where values that are no JSON, such as a set, have a truth value too.
            truth = f"not not ({step.if_}\n)"
            holds = await self._with_names(self._evaluate, truth, step, data, scope, position)
            await self._skip(step, position, holds=holds)
        return await walk(step.then if holds else step.else_, data, scope, position)

    async def _skip(self, step: ConditionStep, position: StepPosition, *, holds: bool) -> None:
        """Records that the leaves of the branch that is not taken are skipped."""
        writer, next_attempt = self._context.writer, self._executor.next_attempt
        writer.add_checkpoint(decision_checkpoint(step, position, msgspec.json.encode(holds)))
        # In one append: a process that goes on from the decision skips nothing any more.
        writer.record(
            *(
                StepSkipped(
                    execution_id=self._context.run_id,
                    step_id=leaf.id,
                    attempt=next_attempt(leaf.id, position),
                    loop_index=position.loop_index,
                    loop_path=position.loop_path,
                    reason=f"condition {step.id!r} was {'true' if holds else 'false'}",
                )
                for leaf in leaves(step.else_ if holds else step.then)
            )
        )
        await self._executor.pace(step)

    async def parallel(
        self, step: ParallelStep, data: Payload, scope: Scope, position: StepPosition, walk: WalkSteps
    ) -> Payload:
        """The outputs of the branches, by name. Raises as `walk` does."""
        data = await self._own_input(step, data, scope, position)
        outputs = dict.fromkeys(step.branches, data)

        async def work(name: str, steps: Sequence[Step]) -> None:
            await self._turn()
            outputs[name] = await walk(steps, data, scope, position)

        await side_by_side([partial(work, name, steps) for name, steps in step.branches.items()])
        output = await joined_branches(outputs, self._context.memory)
        await self._require_values(step, data, output, position)
        return output

    async def _require_values(
        self, step: LoopStep | ParallelStep, data: Payload, output: Payload, position: StepPosition
    ) -> None:
        """Fails where the output, which is in memory, has too many values."""
        encoded = output.json
        weighs_too_much = partial(weighs_more, encoded, MOST_JOINED, between=yield_to_others)
        if await offload(weighs_too_much, size_bytes=len(encoded)):
            failure = StepFailure(
                "RUN_LIMIT",
                f"the outputs inside of step {step.id!r} take as long to be read"
                f" as more than {MOST_JOINED:,} values",
                may_retry=False,
                details={"limit": "values", "value": MOST_JOINED},
            )
            await self._executor.fail(step, data, failure, position)

    async def _own_input(
        self, step: Container, data: Payload, scope: Scope, position: StepPosition
    ) -> Payload:
        if step.input is not None:
            data = Payload(
                await self._with_names(self._render_input, step.input, step, data, scope, position)
            )
        return self._executor.overridden(step, data)

    async def _with_names(
        self,
        work: Callable[..., Awaitable[Any]],
        text: Any,
        step: Container,
        data: Payload,
        scope: Scope,
        position: StepPosition,
    ) -> Any:
        """What the sandbox or the templates make of a text, or an `input`, and the names that it sees."""
        async with self._context.memory.using(needed_by(step, data, scope)):
            try:
                names = await names_for(step, data, scope)
                return await work(text, names, project_id=self._context.project_id)
            except StepFailure as failure:
                await self._executor.fail(step, data, failure, position)

    async def _turn(self) -> None:
        """Returns when it is the run's turn to go on: no run may hold the event loop for long."""
        if self._context.store_turns.is_full:
            await self._context.store_turns.turn()
        await admit_paced(self._context.project_id, ITERATION_S)


def _items(decision: bytes) -> list[Any]:
    """The items that a loop has decided on, each as JSON where they are many."""
    if len(decision) <= LARGE_BYTES:
        items: list[Any] = msgspec.json.decode(decision)
        return items
    return msgspec.json.decode(decision, type=list[msgspec.Raw])
