"""Money: exact, one sum wherever it is asked for, written as plain decimals."""

import asyncio
import tempfile
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.config.settings import Price
from runglass.engine.journal.run_spec import ToolOffer
from runglass.engine.models.pricing import cost_of
from runglass.flows.flow import Flow, LeafStep, LlmStep, Retry
from runglass.log.events import decode_event
from runglass.log.fold import TraceFold
from runglass.log.money import ZERO, add_usd, format_usd
from runglass.log.trace import TokenBreakdown
from runglass.store.records import Project
from runglass.store.sqlite.store import SqliteStore
from tests.examples import examples
from tests.flows import ON_ERROR, flow_trees
from tests.laws.law import require
from tests.laws.stored import broken_in
from tests.unit.engine.conftest import Ran, open_harness, run_to_end
from tests.unit.engine.fake_models import DicedModels
from tests.unit.test_events import check_agreement_on

TOOL = {"type": "function", "function": {"name": "look"}}


def check_money(ran: Ran, models: DicedModels) -> None:
    """What the models charged is what the run cost; that all sums of it agree is a law of all runs."""
    totals = ran.totals
    costs = [each.cost_usd or ZERO for each in models.paid]
    assert Decimal(totals.cost_usd or 0) == reduce(add_usd, costs, ZERO)
    tokens = [each.tokens for each in models.paid if each.tokens is not None]
    assert (totals.tokens.prompt if totals.tokens else 0) == sum(each.prompt for each in tokens)
    assert (totals.tokens.completion if totals.tokens else 0) == sum(each.completion for each in tokens)
    assert set(totals.by_model) <= {"echo", "a:small", "b:large"}, "by the name in the flow"
    assert len(ran.calls) == models.calls, "no call is missing"
    for call in ran.calls:
        refused = call.error_code == "RATE_LIMITED"
        assert refused or (call.cost_usd is None) == (call.cost_unknown is not None), call


def check_budget(ran: Ran, models: DicedModels, project: Project) -> None:
    """What was charged is within the budget, and what nobody told is charged as it was reserved."""
    assert project.budget_usd is not None
    for call in ran.calls:
        assert call.cost_estimated == (call.cost_unknown is not None)
        is_free = call.error_code == "RATE_LIMITED" or call.note == "aborted before it was made"
        assert (call.cost_usd is None) == is_free, call
    assert project.reserved_usd == 0, "nothing is held when nothing goes on"
    assert models.charged <= project.spent_usd <= project.budget_usd
    is_refused = (ran.outcome.error or {}).get("code") == "CREDITS_EXHAUSTED"
    assert not is_refused or models.reserved >= project.budget_usd


def asking(step_id: str) -> st.SearchStrategy[LeafStep]:
    """Steps that ask models, with retries and failures that the flow outlives, or does not."""
    retries = st.builds(Retry, max_attempts=st.integers(1, 3), initial_delay_ms=st.just(0))
    return st.builds(
        LlmStep,
        id=st.just(step_id),
        model=st.sampled_from(["echo", "a:small", "b:large"]),
        prompt=st.just("Say {{ attempt }}"),
        on_error=ON_ERROR,
        retry=retries,
    )


@examples(30, of=150)
@given(flow=flow_trees(asking), seed=st.integers(0, 2**32), budget_usd=st.none() | st.integers(0, 30))
def test_attempts_run_models_stream_and_budget_are_one_sum(
    flow: Flow, seed: int, budget_usd: int | None
) -> None:
    async def run() -> None:
        models = DicedModels(Random(seed), most=5)
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(Path(folder) / "db", synchronous="NORMAL")
            async with open_harness(store, models=models) as house, asyncio.timeout(60):
                project = await store.ensure_project("acme", "demo")
                await store.set_budget(project.id, None if budget_usd is None else Decimal(budget_usd))
                ran = await run_to_end(house, flow, {"n": 1}, offer=ToolOffer(tools=[TOOL]))
                if budget_usd is None:
                    check_money(ran, models)
                else:
                    check_budget(ran, models, await store.ensure_project("acme", "demo"))
                check_agreement_on(ran.events)
                require(await broken_in(store, "acme", "demo"))

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


dollars = st.decimals(min_value=0, max_value=10_000, places=9)
tokens = st.integers(min_value=0, max_value=10**12)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.000045", "0.000045"),
        ("4.5E-5", "0.000045"),
        ("1E-18", "0.000000000000000001"),
        ("1.20", "1.2"),
        ("0.00", "0"),
        ("-0.0", "0"),
        ("0E+3", "0"),
        ("1E+3", "1000"),
        ("100", "100"),
        ("12.0", "12"),
    ],
)
def test_an_amount_is_written_without_exponent_and_without_trailing_zeros(amount: str, text: str) -> None:
    assert format_usd(Decimal(amount)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value="-1E+30", max_value="1E+30"))
def test_writing_an_amount_loses_no_digit(amount: Decimal) -> None:
    text = format_usd(amount)
    assert Decimal(text) == amount
    assert set(text) <= set("-.0123456789")


@pytest.mark.parametrize("amount", ["NaN", "Infinity"])
def test_what_is_no_amount_of_money_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="not an amount of money"):
        format_usd(Decimal(amount))


@given(dollars, dollars, st.none() | dollars, tokens, tokens, tokens)
def test_a_cost_is_exact(
    fresh_price: Decimal,
    output_price: Decimal,
    cached_price: Decimal | None,
    fresh: int,
    cached: int,
    completion: int,
) -> None:
    price = Price(
        input_per_mtok=fresh_price, output_per_mtok=output_price, cached_input_per_mtok=cached_price
    )
    # Without a price of its own, what was cached costs what input costs.
    of_cached = Fraction(fresh_price if cached_price is None else cached_price)
    exact = fresh * Fraction(fresh_price) + cached * of_cached + completion * Fraction(output_price)
    cost = cost_of(price, prompt=fresh + cached, completion=completion, cached=cached)
    assert Fraction(cost) == exact / 1_000_000
