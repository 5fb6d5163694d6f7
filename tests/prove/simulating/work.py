"""What steps do in the simulation: take virtual time, then end as the seed says. No process, no thread.

An attempt of a code step does one thing outside, somewhere on its way, which `effect` hears of.
"""

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from random import Random
from typing import Any

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
from runglass.log.fold import Address
from runglass.log.trace import TokenBreakdown
from tests.fakes import send
from tests.prove.simulating.flows import output_of

Effect = Callable[[str, Address], None]
"""Hears in which run, by the name in its inputs, and for which step and iteration something was done."""

PRICE = Price(input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.6"))
REJECTED_USD = Decimal("0.00000123")
"""Less than is reserved for any call."""


class SimulatedSandbox(Sandbox):
    """Runs no code: see `flows.py` for what it is given."""

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
