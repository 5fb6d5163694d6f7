"""Walks a flow's tree of steps for one run.

Leaf steps do the work (`attempts.py`); the loops, conditions and parallel parts here only order it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

import msgspec

from runglass.engine.attempts import Attempts, StepLost, StepWaits
from runglass.engine.capture import Capture
from runglass.engine.payload import Payload
from runglass.engine.plan import Offer, Pause, Plan, Stretch, Turns, pause_checkpoint
from runglass.engine.recorder import Recorder
from runglass.engine.scope import Place, Scope
from runglass.engine.steps import Parts, Talk
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
from runglass.store.base import Checkpoint


class Walked(NamedTuple):
    """What a stretch came to: the run's result, or the pause in which it waits, and the outputs so far."""

    result: Payload | None
    pause: Pause | None
    outputs: dict[str, Any]


class Runner:
    """One stretch of one run of one flow."""

    def __init__(
        self,
        *,
        execution_id: str,
        recorder: Recorder,
        attempts: Attempts,
        capture: Capture,
        parts: Parts,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._id = execution_id
        self._is_cancelled = is_cancelled
        self._recorder = recorder
        self._attempts = attempts
        self._capture = capture
        self._sandbox = parts.sandbox
        self._templates = parts.templates
        self._talk = Talk()
        self._first_llm: str | None = None

    async def walk(
        self, plan: Plan, stretch: Stretch, *, turns: Turns | None = None, kept: Mapping[str, Any]
    ) -> Walked:
        """Runs top-level steps as the stretch says; `kept` are outputs by step id from earlier stretches.

        Raises StepLost, CreditsExhausted and StoreError.
        """
        steps = plan.flow.steps
        scope, data = _before(plan, stretch, kept)
        self._talk = Talk(history=plan.history, attachments=plan.attachments)
        self._first_llm = next((leaf.id for leaf in leaves(steps) if isinstance(leaf, LlmStep)), None)
        for index in range(stretch.first, len(steps)):
            step = steps[index]
            if index == stretch.first and stretch.input is not None:
                data = Payload({**(data.value or {}), **stretch.input})
            offer = stretch.offer if isinstance(step, LlmStep) and step.tools else None
            try:
                data = await self._step(step, data, scope, Place(index), offer, turns, stretch.results)
            except StepWaits as waiting:
                return self._wait_for_tools(waiting.turns, index, scope)
            turns = None
            if not isinstance(step, LeafStep):
                self._recorder.keep(Checkpoint(step.id, "", data.json))
            if index == stretch.last and index + 1 < len(steps):
                pause = Pause(cursor=index + 1, totals=self._attempts.totals)
                event = StepPaused(execution_id=self._id, step_index=index + 1)
                self._recorder.record(event, checkpoint=pause_checkpoint(pause))
                return Walked(None, pause, scope.outputs())
        return Walked(data, None, scope.outputs())

    def _wait_for_tools(self, turns: Turns, index: int, scope: Scope) -> Walked:
        pause = Pause(cursor=index, totals=self._attempts.totals, turns=turns)
        shown = Payload({"messages": turns.messages, "calls": turns.calls, "outputs": scope.outputs()})
        kept = self._capture.snapshot(shown).data
        content = msgspec.json.decode(kept) if kept is not None else {}
        event = StepPausedForToolCalls(
            execution_id=self._id,
            run_id=self._id,
            step_id=turns.step_id,
            step_index=index,
            iterations_used=turns.iterations_used,
            tool_call_messages=_objects(content.get("messages")),
            tool_calls=_objects(content.get("calls")),
            accumulated_outputs=content.get("outputs") or {},
            tokens=turns.tokens,
            cost_usd=turns.cost_usd,
            model_used=turns.model_used,
        )
        self._recorder.record(event, checkpoint=pause_checkpoint(pause), spent_usd=turns.last_cost_usd)
        return Walked(None, pause, scope.outputs())

    async def _sequence(self, steps: Sequence[Step], data: Payload, scope: Scope, place: Place) -> Payload:
        for step in steps:
            data = await self._step(step, data, scope, place)
        return data

    async def _step(
        self,
        step: Step,
        data: Payload,
        scope: Scope,
        place: Place,
        offer: Offer | None = None,
        turns: Turns | None = None,
        results: Sequence[dict[str, Any]] = (),
    ) -> Payload:
        try:
            match step:
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
        except StepLost:
            # Python 3.11's task group swallows a cancellation that comes while it cuts off its tasks.
            if self._is_cancelled():
                raise asyncio.CancelledError from None
            if step.on_error == "fail":
                raise
            output = Payload(None)
        scope.keep(step.id, output.value)
        return output

    def _talk_of(
        self, step: LeafStep, offer: Offer | None, turns: Turns | None, results: Sequence[dict[str, Any]]
    ) -> Talk:
        if turns is not None:
            return Talk(offer=offer or turns.offer, messages=[*turns.messages, *results])
        if step.id == self._first_llm:
            return msgspec.structs.replace(self._talk, offer=offer)
        return Talk(offer=offer)

    async def _loop(self, step: LoopStep, data: Payload, scope: Scope, place: Place) -> Payload:
        data = await self._own_input(step, data, scope, place)
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
        data = await self._own_input(step, data, scope, place)
        # In the sandbox, where a truth value can be had of what is no JSON, such as a set.
        holds = await self._evaluate(step, f"not not ({step.if_}\n)", data, scope, place)
        taken, left = (step.then, step.else_) if holds else (step.else_, step.then)
        for leaf in leaves(left):
            self._attempts.totals.skipped += 1
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
        return await self._sequence(taken, data, scope, place)

    async def _parallel(self, step: ParallelStep, data: Payload, scope: Scope, place: Place) -> Payload:
        data = await self._own_input(step, data, scope, place)
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

    async def _own_input(
        self, step: LoopStep | ConditionStep | ParallelStep, data: Payload, scope: Scope, place: Place
    ) -> Payload:
        if step.input is None:
            return data
        try:
            return Payload(await self._templates.render_input(step.input, scope.names(data)))
        except StepFailure as failure:
            self._attempts.fail(step, data, failure, place)


def _before(plan: Plan, stretch: Stretch, kept: Mapping[str, Any]) -> tuple[Scope, Payload]:
    """The scope and the data with which a stretch begins: as if all before it had just been run."""
    scope, data = Scope(plan.inputs), Payload(plan.inputs)
    known = {**kept, **stretch.outputs}
    for step in plan.flow.steps[: stretch.first]:
        for inner in within(step):
            if inner.id in known:
                scope.keep(inner.id, known[inner.id])
        data = Payload(known.get(step.id))
    return scope, data


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


def _objects(value: Any) -> list[dict[str, Any]]:
    # A cut list ends with a mark, which is no object.
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
