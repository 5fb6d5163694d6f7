"""Money: one sum, wherever it is asked for, to the last decimal."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runglass.engine.journal.run_spec import Segment, ToolOffer
from runglass.engine.models.gateway import (
    AnswerRejected,
    ModelAnswer,
    ModelCallFailed,
    ModelGateway,
    ModelRequest,
)
from runglass.engine.models.model_types import ProviderResponse, RequestObserver
from runglass.flows.flow import Flow
from runglass.flows.parser import parse_flow
from runglass.log.events import decode_event
from runglass.log.fold import TraceFold
from runglass.log.money import add_usd
from runglass.log.trace import TokenBreakdown
from runglass.store.sqlite.store import SqliteStore
from tests.examples import examples
from tests.fakes import send
from tests.laws.law import require
from tests.laws.stored import broken_in
from tests.unit.engine.conftest import EngineHarness, Ran, open_harness, read, resume, start
from tests.unit.test_reference_fold import check_agreement_on

TOOL = {"type": "function", "function": {"name": "look"}}
WAYS = ("ok", "ok", "length", "tools", "rejected", "refused", "broken", "unmetered", "unpriced")


class DicedModels(ModelGateway):
    """Models whose answers, prices and failures are drawn; `paid` is what they charged, call by call."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self.paid: list[ProviderResponse] = []
        self.calls = 0

    async def ready(self, model: str) -> None:
        pass

    async def complete(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None],
        *,
        observer: RequestObserver | None = None,
    ) -> ModelAnswer:
        self.calls += 1
        await send(request, observer)
        way = self._chance.choice(WAYS)
        if way == "refused":
            raise ModelCallFailed("RATE_LIMITED", "slow down", may_be_charged=False)
        if way == "broken":
            raise ModelCallFailed("PROVIDER_UNAVAILABLE", "the line broke", may_be_charged=True)
        response = self._response(request, way)
        self.paid.append(response)
        if way == "rejected":
            raise AnswerRejected("INVALID_OUTPUT", "of no use", response=response)
        on_text(response.text)
        return ModelAnswer(output={"text": response.text}, response=response)

    def _response(self, request: ModelRequest, way: str) -> ProviderResponse:
        chance = self._chance
        prompt, completion = chance.randrange(10**6), chance.randrange(10**6)
        tokens = TokenBreakdown(prompt=prompt, completion=completion, total=prompt + completion)
        # More digits than Python's decimals have by themselves, at very different sizes.
        cost = Decimal(chance.randrange(10**34)).scaleb(-chance.randrange(45))
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        return ProviderResponse(
            model_used=f"{request.model}-2026",
            text="some text",
            tool_calls=[call] if way == "tools" and request.tools else [],
            tokens=None if way == "unmetered" else tokens,
            cost_usd=None if way in ("unmetered", "unpriced") else cost,
            cost_unknown={"unmetered": "no_usage", "unpriced": "no_price"}.get(way),  # type: ignore[arg-type]
            finish_reason="length" if way == "length" else "stop",
        )


class Spent(NamedTuple):
    """A sum of calls."""

    usd: Decimal = Decimal(0)
    prompt: int = 0
    completion: int = 0

    def plus(self, cost_usd: str | Decimal | None, tokens: TokenBreakdown | None) -> "Spent":
        return Spent(
            add_usd(self.usd, Decimal(cost_usd or 0)),
            self.prompt + (tokens.prompt if tokens else 0),
            self.completion + (tokens.completion if tokens else 0),
        )


def sum_of(parts: Sequence[tuple[str | Decimal | None, TokenBreakdown | None]]) -> Spent:
    spent = Spent()
    for cost_usd, tokens in parts:
        spent = spent.plus(cost_usd, tokens)
    return spent


def check_money(ran: Ran, models: DicedModels) -> None:
    """What the models charged is what the run cost; that all sums of it agree is a law of all runs."""
    paid = sum_of([(response.cost_usd, response.tokens) for response in models.paid])
    totals = ran.totals
    assert sum_of([(totals.cost_usd, totals.tokens)]) == paid, "the run"
    assert set(totals.by_model) <= {"echo", "a:small", "b:large"}, "by the name in the flow"
    assert len(ran.calls) == models.calls, "no call is missing"
    for call in ran.calls:
        refused = call.error_code == "RATE_LIMITED"
        assert refused or (call.cost_usd is None) == (call.cost_unknown is not None), call


@st.composite
def flows_of_llm_steps(draw: st.DrawFn) -> Flow:
    """A tree of steps that ask models, with retries and failures that the flow outlives, or does not."""
    numbers = iter(range(1000))

    def step(depth: int) -> dict[str, Any]:
        name = f"s{next(numbers)}"
        kind = draw(st.sampled_from(["llm", "llm", "llm", *(["loop", "parallel"] if depth < 2 else [])]))
        on_error = draw(st.sampled_from(["fail", "continue", "continue"]))
        if kind == "loop":
            inner = [step(depth + 1)]
            return {"id": name, "type": "loop", "over": "[1, 2]", "on_error": on_error, "steps": inner}
        if kind == "parallel":
            branches = {"a": [step(depth + 1)], "b": [step(depth + 1)]}
            return {"id": name, "type": "parallel", "on_error": on_error, "branches": branches}
        model = draw(st.sampled_from(["echo", "a:small", "b:large"]))
        retry = {"max_attempts": draw(st.integers(1, 3)), "initial_delay_ms": 0}
        return {
            "id": name,
            "type": "llm",
            "model": model,
            "prompt": "Say {{ attempt }}",
            "on_error": on_error,
            "retry": retry,
        }

    steps = [step(0) for _ in range(draw(st.integers(1, 3)))]
    return parse_flow(msgspec.json.encode({"slug": "test", "steps": steps}))


async def walk(house: EngineHarness, flow: Flow) -> Ran:
    """The run to its end, with the result of every tool call that a model asks for."""
    segment = Segment(offer=ToolOffer(tools=[TOOL]))
    started = await start(house, flow, {"n": 1}, capture="full", segment=segment)
    outcome = await started.outcome()
    while outcome.pause is not None:
        tool_loop = outcome.pause.tool_loop
        assert tool_loop is not None
        results = [{"role": "tool", "toolCallId": call["id"], "content": "7"} for call in tool_loop.calls]
        segment = Segment(first=outcome.pause.cursor, results=results, offer=tool_loop.offer)
        started = await resume(house, started.id, segment)
        outcome = await started.outcome()
    return await read(house, started.id, outcome)


@examples(25, of=150)
@given(flow=flows_of_llm_steps(), seed=st.integers(0, 2**32))
def test_attempts_run_models_stream_and_budget_are_one_sum(flow: Flow, seed: int) -> None:
    async def run() -> None:
        models = DicedModels(Random(seed))
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(Path(folder) / "db", synchronous="NORMAL")
            async with open_harness(store, models=models) as house, asyncio.timeout(60):
                ran = await walk(house, flow)
                check_money(ran, models)
                check_agreement_on(ran.events)
                require(await broken_in(house.store, "acme", "demo"))

    asyncio.run(run())


def test_a_log_in_which_calls_do_not_stand_one_by_one_adds_up_by_attempts() -> None:
    """As logs of the version before have it: what an attempt cost is told with its end alone."""
    where = '"executionId":"r","at":"2026-01-01T00:00:00.000Z","stepId":"a","stepIndex":0'
    paid = '"tokens":{"prompt":1,"completion":2,"total":3},"costUsd":"0.5","modelUsed":"m"'
    lines = [
        f'{{"eventType":"step_started",{where},"attempt":1}}',
        f'{{"eventType":"step_retrying",{where},"attempt":1,"error":{{}},"nextAttempt":2,"delayMs":0,{paid}}}',
        f'{{"eventType":"step_started",{where},"attempt":2}}',
        f'{{"eventType":"step_completed",{where},"attempt":2,"durationMs":1,{paid}}}',
    ]
    state = TraceFold()
    for line in lines:
        state.apply(decode_event(line.encode()))
    totals = state.trace().flow_run.totals
    assert totals is not None
    assert (totals.cost_usd, totals.failed_cost_usd, totals.by_model["m"].cost_usd) == ("1", "0.5", "1")
    assert totals.tokens == TokenBreakdown(prompt=2, completion=4, total=6)
