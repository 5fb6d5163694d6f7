"""Flows by seed, what their steps do, and what a run must result in, told by another interpreter.

The code of a step is not Python here but `ID CHANCE`: how likely one attempt fails. An expression is a word
and a chance, too: `items 3 0.1`, `maybe 0.0`. A step takes virtual time, then ends as the seed says, with no
process or thread; an attempt of a code step does one thing outside, on its way, which `effect` hears of.

More than 300 lines: what is generated, done and expected is one language.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

import msgspec

from runglass.config.settings import Price, Settings
from runglass.engine.models.gateway import (
    AnswerRejected,
    ModelAnswer,
    ModelCallFailed,
    ModelGateway,
    ModelRequest,
)
from runglass.engine.models.model_types import ProviderResponse, RequestObserver
from runglass.engine.workers.sandbox import Sandbox
from runglass.engine.workers.templates import Templates
from runglass.errors import RETRY_AFTER, StepFailure
from runglass.flows.flow import (
    CodeStep,
    ConditionStep,
    Flow,
    LlmStep,
    LoopStep,
    ParallelStep,
    PassthroughStep,
    Retry,
    Step,
    WaitStep,
)
from runglass.log.fold import Address
from runglass.log.trace import TokenBreakdown
from tests.fakes import send

UNKNOWN = "{{ nowhere }}"
"""A template that fails: it names nothing that there is."""
PROMPT = "{{ initial.run }} asks"


LARGE = "large"
"""Ids that begin so are those of steps whose code returns more than memory is to hold of many."""
FILL = "x" * 17_000

LEAVES = ("code", "code", "code", "wait", "passthrough", "llm")


def make_flow(chance: Random, *, large: bool = False) -> Flow:
    maker = _Maker(chance, LEAVES, LARGE if large else "s")
    return Flow(slug="simulated", steps=maker.steps(chance.choice([0, 1, 2, 2, 3]), ()))


def make_asking_flow(chance: Random) -> Flow:
    """A flow that asks models from its first step on, some of them at the same time."""
    return Flow(slug="simulated", steps=_Maker(chance, ("llm",)).steps(chance.choice([0, 0, 1]), ()))


class _Maker:
    def __init__(self, chance: Random, leaves: Sequence[str], prefix: str = "s") -> None:
        self._chance = chance
        self._leaves = leaves
        self._ids = (f"{prefix}{number}" for number in itertools.count(1))
        self._fails = chance.choice([0.0, 0.05, 0.2])

    def steps(self, nesting: int, seen: tuple[str, ...]) -> list[Step]:
        """Some steps; `seen` are ids whose outputs they may name."""
        made: list[Step] = []
        for _ in range(self._chance.randint(1, 2 + (nesting > 1))):
            step = self._step(nesting, seen)
            made.append(step)
            seen = (*seen, *_always_run(step))
        return made

    def _step(self, nesting: int, seen: tuple[str, ...]) -> Step:
        chance = self._chance
        kind = chance.choice(["leaf", "leaf", "loop", "condition", "parallel"] if nesting else ["leaf"])
        if kind == "leaf":
            return self._leaf(seen)
        common: dict[str, Any] = {
            "id": next(self._ids),
            "on_error": chance.choice(["fail", "continue"]),
            "input": self._input(seen, 0.1),
        }
        if kind == "loop":
            over = f"{'text' if self._happens(0.2) else 'items'} {chance.randint(0, 4)} {self._fails * 0.5}"
            inner = self.steps(nesting - 1, seen)
            return LoopStep(over=over, max_concurrency=chance.randint(1, 3), steps=inner, **common)
        if kind == "condition":
            inner = self.steps(nesting - 1, seen)
            others = self.steps(nesting - 1, seen) if chance.random() < 0.6 else []
            if_ = f"{chance.choice(['yes', 'no', 'maybe'])} {self._fails * 0.5}"
            return ConditionStep(if_=if_, then=inner, else_=others, **common)
        names = "abc"[: chance.randint(1, 3)]
        return ParallelStep(branches={name: self.steps(nesting - 1, seen) for name in names}, **common)

    def _leaf(self, seen: tuple[str, ...]) -> Step:
        chance = self._chance
        common: dict[str, Any] = {
            "id": next(self._ids),
            "on_error": chance.choice(["fail", "fail", "continue"]),
            "input": self._input(seen, 0.3),
            "retry": self._retry(),
            "timeout_ms": chance.choice([None, None, 500, 3000]),
        }
        kind = chance.choice(self._leaves)
        if kind == "code":
            return CodeStep(code=f"{common['id']} {self._fails}", **common)
        if kind == "llm":
            return LlmStep(model="echo", prompt=PROMPT, settings={"fails": self._fails}, **common)
        if kind == "wait":
            return WaitStep(ms=chance.choice([0, 200, 2000, 20_000]), **{**common, "timeout_ms": None})
        return PassthroughStep(**common)

    def _retry(self) -> Retry | None:
        if self._chance.random() < 0.4:
            return None
        delay_ms = self._chance.choice([0, 0, 100, 2000, 60_000])
        return Retry(max_attempts=self._chance.randint(1, 3), initial_delay_ms=delay_ms, max_delay_ms=90_000)

    def _input(self, seen: tuple[str, ...], likely: float) -> dict[str, Any] | None:
        if self._chance.random() >= likely:
            return None
        if self._happens(0.2):
            return {"unknown": UNKNOWN}
        return {"from": f"{{{{ steps.{self._chance.choice(seen)} }}}}", "n": 1} if seen else {"n": 1}

    def _happens(self, likely: float) -> bool:
        return self._chance.random() < likely * min(1.0, self._fails * 5)


def _always_run(step: Step) -> list[str]:
    """The steps whose outputs are seen after this one, whatever happens inside of it."""
    if isinstance(step, ParallelStep) and step.on_error == "fail":
        inner = [name for steps in step.branches.values() for each in steps for name in _always_run(each)]
        return [*inner, step.id]
    return [step.id]


def output_of(step_id: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """What the code of a step returns: another object for each input, the same for the same."""
    given = {name: value for name, value in names.items() if name not in ("initial", "steps", "attempt")}
    digest = hashlib.sha256(msgspec.json.encode([step_id, given], order="sorted")).hexdigest()
    return {"v": digest[:12]} | ({"fill": FILL} if step_id.startswith(LARGE) else {})


class Told(NamedTuple):
    """What a log tells about a run: which steps were lost, and what its containers decided."""

    lost: frozenset[Address]
    decisions: Mapping[Address, Any]


class _Lost(Exception):
    pass


def result_of(flow: Flow, inputs: Mapping[str, Any], told: Told) -> dict[str, Any] | None:
    result: dict[str, Any] | None = _Interpreter(inputs, told).steps(flow.steps, dict(inputs), {}, {}, ())
    return result


class _Interpreter:
    def __init__(self, inputs: Mapping[str, Any], told: Told) -> None:
        self._inputs = inputs
        self._told = told

    def steps(
        self, steps: list[Step], data: Any, seen: dict[str, Any], loop: dict[str, Any], path: tuple[int, ...]
    ) -> Any:
        for step in steps:
            try:
                data = self._step(step, data, seen, loop, path)
            except _Lost:
                if step.on_error == "fail":
                    raise
                data = None
            seen[step.id] = data
        return data

    def _step(
        self, step: Step, data: Any, seen: dict[str, Any], loop: dict[str, Any], path: tuple[int, ...]
    ) -> Any:
        if Address(step.id, path or None) in self._told.lost:
            raise _Lost
        if step.input is not None:
            data = {**step.input}
            if "from" in data:
                data["from"] = seen[data["from"].removeprefix("{{ steps.").removesuffix(" }}")]
        decided: Any = self._told.decisions.get(Address(step.id, path or None))
        if decided is None and isinstance(step, LoopStep | ConditionStep):
            # It was cut off before it came to decide: something beside it was lost.
            raise _Lost
        match step:
            case LlmStep():
                return {"text": f"{self._inputs['run']} asks"}
            case CodeStep():
                return output_of(step.id, {**loop, **(data or {})})
            case LoopStep():
                items = []
                for index, item in enumerate(decided):
                    names = {step.as_: item, "index": index}
                    inner = (*path, index)
                    items.append(self.steps(step.steps, names, {**seen}, {**loop, **names}, inner))
                return {"items": items}
            case ConditionStep():
                return self.steps(step.then if decided else step.else_, data, seen, loop, path)
            case ParallelStep():
                return {
                    name: self.steps(branch, data, seen, loop, path) for name, branch in step.branches.items()
                }
        return data


Effect = Callable[[str, Address], None]
"""Hears in which run, by the name in its inputs, and for which step and iteration something was done."""

PRICE = Price(input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.6"))
REJECTED_USD = Decimal("0.00000123")
"""Less than is reserved for any call."""


class SimulatedSandbox(Sandbox):
    """Runs no code: what it is given is said above."""

    def __init__(self, chance: Random, effect: Effect) -> None:
        super().__init__()
        self._chance = chance
        self._effect = effect

    async def run(self, code: str, names: Mapping[str, Any], *, project_id: int = 0) -> Any:
        step_id, fails = code.split()
        path = tuple(names["item"]["path"]) if "item" in names else None
        await self._pass_time()
        self._effect(names["initial"]["run"], Address(step_id, path))
        await self._pass_time()
        if self._chance.random() < float(fails):
            raise StepFailure("CODE_ERROR", "the seed says so")
        if self._chance.random() < float(fails) / 10:
            return None
        return output_of(step_id, names)

    async def evaluate(self, expression: str, names: Mapping[str, Any], *, project_id: int = 0) -> Any:
        expression = expression.removeprefix("not not (").removesuffix("\n)")
        word, *count, fails = expression.split()
        await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.0, 0.5)))
        if self._chance.random() < float(fails):
            raise StepFailure("CODE_ERROR", "the seed says so")
        if word == "text":
            return "no list"
        if word != "items":
            return {"yes": True, "no": False}.get(word, self._chance.random() < 0.5)
        # As with a set: in another process the same expression has another order.
        keys = self._chance.sample(range(10), int(count[0]))
        outer = names["item"]["path"] if "item" in names else []
        return [{"path": [*outer, index], "key": key} for index, key in enumerate(keys)]

    async def _pass_time(self) -> None:
        await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.001, 0.3, self._chance.uniform(0, 4))))


class SimulatedTemplates(Templates):
    """Has no process to ask: what is not plain to see names nothing that there is."""

    async def _asked(self, template: str, *rest: object) -> Any:
        raise StepFailure("TEMPLATE_ERROR", f"{template!r} names nothing", may_retry=False)


class SimulatedModels(ModelGateway):
    """`echo`, which takes its time, is busy now and then, and gives answers that cannot be used."""

    def __init__(self, chance: Random) -> None:
        super().__init__(Settings(prices={"echo": PRICE}))
        self._chance = chance

    async def complete(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        *,
        observer: RequestObserver | None = None,
    ) -> ModelAnswer:
        fails = request.settings["fails"]
        await asyncio.sleep(self._chance.choice((0.0, 0.02, 0.4, self._chance.uniform(0, 4))))
        if self._chance.random() < fails:
            await send(request, observer)
            raise ModelCallFailed(
                "RATE_LIMITED",
                "the seed says so",
                may_be_charged=False,
                details={RETRY_AFTER: self._chance.choice((0, 700))},
            )
        if self._chance.random() < fails:
            await send(request, observer)
            tokens = TokenBreakdown(prompt=3, completion=4, total=7)
            response = ProviderResponse(model_used="echo", tokens=tokens, cost_usd=REJECTED_USD)
            raise AnswerRejected("INVALID_OUTPUT", "the seed says so", response=response)
        answer = await super().complete(request, on_text, observer=observer)
        await asyncio.sleep(self._chance.choice((0.0, 0.04, 0.2)))
        return answer
