"""Models that tests give to an engine: each answers, fails or falls silent as its test says."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import NoReturn

from msgspec.structs import replace

from runglass.engine.models.gateway import (
    AnswerRejected,
    ModelAnswer,
    ModelCallFailed,
    ModelGateway,
    ModelRequest,
)
from runglass.engine.models.model_types import ProviderResponse, RequestObserver
from runglass.errors import StepFailure
from runglass.log.money import ZERO, add_usd, scaled
from runglass.log.trace import TokenBreakdown
from tests.fakes import send

WAYS = ("ok", "ok", "length", "tools", "rejected", "refused", "broken", "unmetered", "unpriced")
"""How a call of diced models goes."""


ANSWER = ProviderResponse(
    model_used="fake",
    text="hi",
    tokens=TokenBreakdown(prompt=1, completion=1, total=2),
    cost_usd=Decimal(1),
)


Answer = ProviderResponse | StepFailure | asyncio.Future[ProviderResponse] | None


class FakeModels(ModelGateway):
    """Models of any name, always ready. A call costs a dollar at most.

    They give these answers, of which None never comes, and then are silent. `calls` are the requests that
    went out, and `asked` is set with each of them. One that is cut off cancels an answer that is to come.
    """

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.calls = 0
        self._answers = list(answers)

    async def ready(self, model: str) -> None:
        pass

    async def bounded(self, request: ModelRequest) -> tuple[ModelRequest, Decimal]:
        return request, Decimal(1)

    async def complete(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        *,
        observer: RequestObserver | None = None,
    ) -> ModelAnswer:
        self.calls += 1
        await send(request, observer)
        self.asked.set()
        response = await self.answer(request)
        on_text(response.text)
        return ModelAnswer(output={"text": response.text}, response=response)

    async def answer(self, request: ModelRequest) -> ProviderResponse:
        """What comes back for a request that is on its way."""
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, StepFailure):
            raise answer
        if isinstance(answer, asyncio.Future):
            return await answer
        return answer or await never()


class DicedModels(FakeModels):
    """Models whose bounds, prices, answers and failures are drawn. A call costs at most `most` dollars.

    `reserved` is the sum of all bounds, `charged` what was taken, told or not, and never more than that.
    `paid` are the responses that tell what they took.
    """

    def __init__(self, chance: Random, *, most: int = 1) -> None:
        super().__init__()
        self.charged = self.reserved = ZERO
        self.paid: list[ProviderResponse] = []
        self._chance = chance
        self._most = most

    async def bounded(self, request: ModelRequest) -> tuple[ModelRequest, Decimal]:
        most = self._chance.randint(1, self._most)
        self.reserved += most
        return replace(request, settings={"most": most}), Decimal(most)

    async def answer(self, request: ModelRequest) -> ProviderResponse:
        chance = self._chance
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        way = chance.choice(WAYS)
        if way == "refused":
            raise ModelCallFailed("RATE_LIMITED", "slow down", may_be_charged=False)
        # More digits than Python's decimals have by themselves, at very different sizes.
        digits = chance.randint(0, 10**34) * request.settings.get("most", 1)
        cost = scaled(digits, 34 - chance.randint(-10, 0))
        self.charged = add_usd(self.charged, cost)
        if way == "broken":
            raise ModelCallFailed("PROVIDER_UNAVAILABLE", "the line broke", may_be_charged=True)
        prompt, completion = chance.randrange(10**6), chance.randrange(10**6)
        tokens = TokenBreakdown(prompt=prompt, completion=completion, total=prompt + completion)
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        response = ProviderResponse(
            model_used=f"{request.model}-2026",
            text="some text",
            tool_calls=[call] if way == "tools" and request.tools else [],
            tokens=None if way == "unmetered" else tokens,
            cost_usd=None if way in ("unmetered", "unpriced") else cost,
            cost_unknown={"unmetered": "no_usage", "unpriced": "no_price"}.get(way),  # type: ignore[arg-type]
            finish_reason="length" if way == "length" else "stop",
        )
        self.paid.append(response)
        if way == "rejected":
            raise AnswerRejected("INVALID_OUTPUT", "of no use", response=response)
        return response


async def never() -> NoReturn:
    """Waits until it is cut off."""
    await asyncio.Event().wait()
    raise AssertionError
