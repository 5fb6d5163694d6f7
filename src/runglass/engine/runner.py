"""Walks a flow's tree of steps for one run.

Leaf steps do the work (`attempts.py`); the loops, conditions and parallel parts here only order it.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, assert_never

from runglass.engine import templates
from runglass.engine.attempts import Attempts, StepLost
from runglass.engine.payload import Payload
from runglass.engine.recorder import Recorder
from runglass.engine.sandbox import Sandbox
from runglass.engine.scope import Place, Scope
from runglass.errors import StepFailure
from runglass.events import LoopCompleted, StepSkipped
from runglass.flow import (
    CodeStep,
    ConditionStep,
    LlmStep,
    LoopStep,
    ParallelStep,
    PassthroughStep,
    Step,
    WaitStep,
    leaves,
)


class Runner:
    """One run of one flow, from its inputs to its result."""

    def __init__(
        self, *, execution_id: str, recorder: Recorder, attempts: Attempts, sandbox: Sandbox
    ) -> None:
        self._id = execution_id
        self._recorder = recorder
        self._attempts = attempts
        self._sandbox = sandbox

    async def walk(self, steps: Sequence[Step], inputs: dict[str, Any]) -> Payload:
        """Runs the top-level steps; returns the last one's output. Raises StepLost and StoreError."""
        data = Payload(inputs)
        scope = Scope(inputs)
        for index, step in enumerate(steps):
            data = await self._step(step, data, scope, Place(index))
        return data

    async def _sequence(self, steps: Sequence[Step], data: Payload, scope: Scope, place: Place) -> Payload:
        for step in steps:
            data = await self._step(step, data, scope, place)
        return data

    async def _step(self, step: Step, data: Payload, scope: Scope, place: Place) -> Payload:
        try:
            match step:
                case LlmStep() | CodeStep() | WaitStep() | PassthroughStep():
                    output = await self._attempts.run(step, data, scope, place)
                case LoopStep():
                    output = await self._loop(step, data, scope, place)
                case ConditionStep():
                    output = await self._condition(step, data, scope, place)
                case ParallelStep():
                    output = await self._parallel(step, data, scope, place)
                case _:
                    assert_never(step)
        except StepLost:
            if step.on_error == "fail":
                raise
            output = Payload(None)
        scope.keep(step.id, output.value)
        return output

    async def _loop(self, step: LoopStep, data: Payload, scope: Scope, place: Place) -> Payload:
        data = self._own_input(step, data, scope, place)
        items = await self._evaluate(step, step.over, data, scope, place)
        if not isinstance(items, list):
            failure = StepFailure(
                "INVALID_INPUT",
                f"`over: {step.over}` of loop {step.id!r} is a {type(items).__name__}, not a list",
            )
            self._attempts.fail(step, data, failure, place)
        outputs: list[Any] = [None] * len(items)
        remaining = iter(range(len(items)))

        async def work() -> None:
            # Workers draw from one iterator: at most max_concurrency iterations exist at a time.
            for index in remaining:
                names = {step.as_: items[index], "index": index}
                output = await self._sequence(
                    step.steps, Payload(names), scope.iteration(names), place.iteration(index)
                )
                outputs[index] = output.value

        await _together([work() for _ in range(min(step.max_concurrency, len(items)))])
        self._recorder.record(
            LoopCompleted(
                execution_id=self._id,
                step_id=step.id,
                loop_index=place.loop_index,
                loop_path=place.loop_path,
                iterations=len(items),
            )
        )
        return Payload({"items": outputs})

    async def _condition(self, step: ConditionStep, data: Payload, scope: Scope, place: Place) -> Payload:
        data = self._own_input(step, data, scope, place)
        holds = bool(await self._evaluate(step, step.if_, data, scope, place))
        taken, left = (step.then, step.else_) if holds else (step.else_, step.then)
        for leaf in leaves(left):
            self._attempts.totals.skipped += 1
            self._recorder.record(
                StepSkipped(
                    execution_id=self._id,
                    step_id=leaf.id,
                    loop_index=place.loop_index,
                    loop_path=place.loop_path,
                    reason=f"condition {step.id!r} was {'true' if holds else 'false'}",
                )
            )
        return await self._sequence(taken, data, scope, place)

    async def _parallel(self, step: ParallelStep, data: Payload, scope: Scope, place: Place) -> Payload:
        data = self._own_input(step, data, scope, place)
        outputs: dict[str, Any] = dict.fromkeys(step.branches)

        async def work(name: str, steps: Sequence[Step]) -> None:
            outputs[name] = (await self._sequence(steps, data, scope, place)).value

        await _together([work(name, steps) for name, steps in step.branches.items()])
        return Payload(outputs)

    async def _evaluate(
        self, step: LoopStep | ConditionStep, expression: str, data: Payload, scope: Scope, place: Place
    ) -> Any:
        try:
            return await self._sandbox.evaluate(expression, scope.names(data))
        except StepFailure as failure:
            self._attempts.fail(step, data, failure, place)

    def _own_input(
        self, step: LoopStep | ConditionStep | ParallelStep, data: Payload, scope: Scope, place: Place
    ) -> Payload:
        if step.input is None:
            return data
        try:
            return Payload(templates.render_input(step.input, scope.names(data)))
        except StepFailure as failure:
            self._attempts.fail(step, data, failure, place)


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Awaits all; the first failure cuts the others off and is raised as itself."""
    if len(work) == 1:
        await work[0]
        return
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in work:
                group.create_task(coroutine)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
