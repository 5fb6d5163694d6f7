"""The model calls of every attempt: request and response, with what they took.

Money is exact, one sum wherever it is asked for, and written as plain decimals.
"""

import asyncio
import json
import tempfile
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.config.settings import Price
from runglass.engine.journal.run_spec import ToolOffer
from runglass.engine.models.gateway import AnswerRejected, ModelAnswer, ModelCallFailed
from runglass.engine.models.model_types import ProviderResponse
from runglass.engine.models.pricing import cost_of
from runglass.engine.steps.call_recorder import HIDDEN
from runglass.errors import StoreError
from runglass.flows.flow import Flow, LeafStep, LlmStep, Retry
from runglass.log.events import decode_event
from runglass.log.fold import TraceFold
from runglass.log.money import ZERO, add_usd, format_usd
from runglass.log.trace import StepTrace, TokenBreakdown
from runglass.store.records import Project
from runglass.store.sqlite.store import SqliteStore
from tests.examples import examples
from tests.faulty_store import FaultyStore
from tests.flows import ON_ERROR, flow_trees
from tests.laws.law import require
from tests.laws.stored import broken_in
from tests.records import there
from tests.unit.engine.conftest import Ran, end_in_next_life, open_harness
from tests.unit.engine.fake_models import Answer, DicedModels, FakeModels
from tests.unit.engine.fake_provider import CALL, LOOK
from tests.unit.test_events import check_agreement

SECRET = "sk-in-a-header"
ASK = """
- id: ask
  type: llm
  model: local:tiny
  system: Be kind to {{ who }}.
  prompt: "Greet {{ who }}"
  settings: {temperature: 0.5, extra_headers: {X-Api-Key: sk-in-a-header}}
"""
TOKENS = TokenBreakdown(prompt=10, completion=5, total=15)


def said(text: str, **more: Any) -> ProviderResponse:
    return ProviderResponse(
        model_used="tiny-1",
        text=text,
        tokens=TOKENS,
        cached_tokens=4,
        cost_unknown="no_price",
        finish_reason="stop",
        request_id="req-7",
        **more,
    )


async def ran(tmp_path: Path, flow: str, *answers: Answer, **more: Any) -> Ran:
    async with open_harness(tmp_path / "db", models=FakeModels(*answers)) as house:
        return await house.run_to_end(flow, {"who": "Ada"}, **more)


async def test_a_model_call_is_recorded_with_its_request_and_response(tmp_path: Path) -> None:
    step = (await ran(tmp_path, ASK, said("Hello, Ada"))).step("ask")
    (call,) = step.model_calls
    assert call.request == {
        "system": "Be kind to Ada.",
        "messages": [{"role": "user", "content": "Greet Ada"}],
        "settings": {"temperature": 0.5, "extra_headers": {"X-Api-Key": HIDDEN}},
    }
    assert call.response == {"role": "assistant", "content": "Hello, Ada"}
    assert (call.number, call.model, call.provider, call.model_used) == (1, "local:tiny", "local", "tiny-1")
    assert (call.tokens, call.cached_tokens, call.cost_unknown) == (TOKENS, 4, "no_price")
    assert (call.finish_reason, call.request_id, call.error_code) == ("stop", "req-7", None)
    assert call.started_at is not None
    assert call.duration_ms is not None
    assert call.time_to_first_token_ms is not None
    assert step.input_context == {"who": "Ada", "__rendered_prompt__": "Greet Ada"}
    assert step.input_size_bytes == len(b'{"who":"Ada"}'), "the size is that of the input itself"
    assert SECRET not in repr(step)


async def test_an_answer_is_a_call_though_nobody_saw_its_request(tmp_path: Path) -> None:
    models = FakeModels()
    FaultyStore(models).answer("complete", ModelAnswer(output={"text": "Hello"}, response=said("Hello")))
    async with open_harness(tmp_path / "db", models=models) as house:
        found = await house.run_to_end(ASK, {"who": "Ada"})
    (call,) = found.step("ask").model_calls
    assert (call.tokens, call.response) == (TOKENS, {"role": "assistant", "content": "Hello"})


async def test_the_log_has_the_input_before_the_model_is_asked(tmp_path: Path) -> None:
    models = FakeModels()
    async with open_harness(tmp_path / "db", models=models) as house:
        told = FaultyStore(house.store).hold(
            "append", when=lambda batch: b"step_input" in b"".join(batch.events)
        )
        started = await house.start(ASK, {"who": "Ada"})
        await told.reached()
        assert models.calls == 0
        told.let_go()
        await models.asked.wait()
        run = await house.run_of(started.id)
        (row,), _ = await house.store.open_steps(run.no)
        step = msgspec.json.decode(row.data, type=StepTrace)
        assert there(step.input_context)["__rendered_prompt__"] == "Greet Ada"
        house.engine.active.cancel(started.id, reason="enough")
        found = await house.read(started.id, await started.outcome())
    (call,) = found.step("ask").model_calls
    assert (call.error_code, call.cost_unknown) == ("CANCELLED", "no_usage")
    assert there(call.request)["messages"] == [{"role": "user", "content": "Greet Ada"}]


async def test_every_attempt_and_every_turn_has_its_calls(tmp_path: Path) -> None:
    rejected = AnswerRejected("PROVIDER_UNAVAILABLE", "of no use", response=said("half"))
    answers = (rejected, said("", tool_calls=[CALL]), said("It is blue"))
    flow = ASK + "  retry: {max_attempts: 2, initial_delay_ms: 0}\n"
    found = await ran(tmp_path, flow, *answers, offer=ToolOffer(tools=[LOOK], choice="auto"))
    first, second = found.attempts["ask"]
    (lost,) = first.model_calls
    assert (lost.error_code, lost.response) == (
        "PROVIDER_UNAVAILABLE",
        {"role": "assistant", "content": "half"},
    )
    asked, answered = second.model_calls
    assert (asked.number, answered.number) == (1, 2)
    assert there(asked.response)["toolCalls"] == [CALL]
    assert there(asked.request)["tools"] == [LOOK]
    assert there(asked.request)["toolChoice"] == "auto"
    roles = [message["role"] for message in there(answered.request)["messages"]]
    assert roles == ["user", "assistant", "tool"]
    assert there(answered.request)["messages"][2]["content"] == "7"
    assert second.tokens == TokenBreakdown(prompt=20, completion=10, total=30)
    totals = found.totals
    assert totals.tokens == TokenBreakdown(prompt=30, completion=15, total=45)
    assert totals.failed_tokens == TOKENS
    assert (totals.by_model["local:tiny"].calls, totals.unpriced_calls) == (3, 3)


async def test_a_large_answer_in_one_piece_is_cut_and_has_no_first_token(tmp_path: Path) -> None:
    (call,) = (await ran(tmp_path, ASK, said("x" * 5000, streamed=False))).step("ask").model_calls
    assert (call.truncated, call.streamed, call.time_to_first_token_ms) == (True, False, None)


async def test_a_call_that_takes_too_long_is_recorded_without_a_cost(tmp_path: Path) -> None:
    found = await ran(tmp_path, ASK + "  timeout_ms: 1\n", None)
    (call,) = found.step("ask").model_calls
    assert (call.error_code, call.cost_unknown, call.response) == ("STEP_TIMEOUT", "no_usage", None)
    totals = found.totals
    assert (totals.unmetered_calls, totals.unpriced_calls) == (1, 0)


async def test_a_call_of_a_branch_that_no_process_cut_off_is_told_as_lost(tmp_path: Path) -> None:
    """The process dies after one branch has failed, before the end of the other is stored."""
    flow = """
- id: both
  type: parallel
  branches:
    a: [{id: silent, type: llm, model: 'local:tiny', prompt: Hi}]
    b: [{id: bad, type: llm, model: 'local:tiny', prompt: Hi}]
"""
    refused = ModelCallFailed("PROVIDER_ERROR", "refused", may_be_charged=False, may_retry=False)
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    died = StoreError("the process has died")
    FaultyStore(store).fail("append", died, when=lambda batch: b'"CANCELLED"' in b"".join(batch.events))
    async with open_harness(store, models=FakeModels(None, refused)) as house:
        started = await house.start(flow)
        with pytest.raises(StoreError):
            await started.outcome()
    ran = await end_in_next_life(tmp_path / "db", started.id)
    assert [call.error_code for call in ran.step("bad").model_calls] == ["PROVIDER_ERROR"]
    (call,) = ran.step("silent").model_calls
    assert (call.error_code, call.cost_unknown) == ("WORKER_LOST", "no_usage")


async def test_a_large_request_is_cut_and_says_so(tmp_path: Path) -> None:
    flow = ASK.replace("Greet {{ who }}", f"Greet {{{{ who }}}} {'and others ' * 1000}")
    (call,) = (await ran(tmp_path, flow, said("Hello"))).step("ask").model_calls
    assert call.truncated
    assert len(msgspec.json.encode(call.request)) <= 4096


async def test_the_ledger_takes_no_call_that_gives_money_back(tmp_path: Path) -> None:
    gift = msgspec.structs.replace(said("Hello, Ada"), cost_usd=Decimal("-0.01"), cost_unknown=None)
    found = await ran(tmp_path, ASK, gift)
    assert found.error["code"] == "INTERNAL_ERROR"
    assert (found.step("ask").model_calls, found.totals.cost_usd) == ((), None)


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
async def test_attempts_run_models_stream_and_budget_are_one_sum(
    flow: Flow, seed: int, budget_usd: int | None
) -> None:
    models = DicedModels(Random(seed), most=5)
    with tempfile.TemporaryDirectory() as folder:
        async with open_harness(Path(folder) / "db", models=models) as house, asyncio.timeout(60):
            await house.set_budget(budget_usd)
            ran = await house.run_to_end(flow, {"n": 1}, offer=ToolOffer(tools=[LOOK]))
            if budget_usd is None:
                check_money(ran, models)
            else:
                check_budget(ran, models, await house.project())
            check_agreement([json.loads(msgspec.json.encode(event)) for event in ran.events])
            require(await broken_in(house.store, "acme", "demo"))


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
    totals = there(state.trace().flow_run.totals)
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
