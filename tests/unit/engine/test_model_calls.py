"""The model calls of every attempt: request and response, with what they took."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runglass.engine.journal.run_spec import ToolOffer
from runglass.engine.models.gateway import AnswerRejected, ModelAnswer, ModelCallFailed
from runglass.engine.models.model_types import ProviderResponse
from runglass.engine.steps.call_recorder import HIDDEN
from runglass.errors import StoreError
from runglass.log.trace import StepTrace, TokenBreakdown
from runglass.store.sqlite.store import SqliteStore
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import Ran, end_in_next_life, open_harness, read, run_of, run_to_end, start
from tests.unit.engine.fake_models import Answer, FakeModels
from tests.unit.engine.fake_provider import LOOK

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


async def ran(tmp_path: Path, flow: str, *answers: Answer) -> Ran:
    async with open_harness(tmp_path / "db", models=FakeModels(*answers)) as house:
        return await run_to_end(house, flow, {"who": "Ada"})


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
        found = await run_to_end(house, ASK, {"who": "Ada"})
    (call,) = found.step("ask").model_calls
    assert (call.tokens, call.response) == (TOKENS, {"role": "assistant", "content": "Hello"})


async def test_the_log_has_the_input_before_the_model_is_asked(tmp_path: Path) -> None:
    models = FakeModels()
    async with open_harness(tmp_path / "db", models=models) as house:
        started = await start(house, ASK, {"who": "Ada"})
        await models.asked.wait()
        run = await run_of(house, started.id)
        (row,), _ = await house.store.open_steps(run.no)
        step = msgspec.json.decode(row.data, type=StepTrace)
        assert (step.input_context or {})["__rendered_prompt__"] == "Greet Ada"
        house.engine.active.cancel(started.id, reason="enough")
        found = await read(house, started.id, await started.outcome())
    (call,) = found.step("ask").model_calls
    assert (call.error_code, call.cost_unknown) == ("CANCELLED", "no_usage")
    assert (call.request or {})["messages"] == [{"role": "user", "content": "Greet Ada"}]


async def test_every_attempt_and_every_turn_has_its_calls(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}
    rejected = AnswerRejected("PROVIDER_UNAVAILABLE", "of no use", response=said("half"))
    models = FakeModels(rejected, said("", tool_calls=[call]), said("It is blue"))
    flow = ASK + "  retry: {max_attempts: 2, initial_delay_ms: 0}\n"
    async with open_harness(tmp_path / "db", models=models) as house:
        offer = ToolOffer(tools=[LOOK], choice="auto")
        found = await run_to_end(house, flow, {"who": "Ada"}, offer=offer)
    first, second = found.attempts["ask"]
    (lost,) = first.model_calls
    assert (lost.error_code, lost.response) == (
        "PROVIDER_UNAVAILABLE",
        {"role": "assistant", "content": "half"},
    )
    asked, answered = second.model_calls
    assert (asked.number, answered.number) == (1, 2)
    assert (asked.response or {})["toolCalls"] == [call]
    assert (asked.request or {})["tools"] == [LOOK]
    assert (asked.request or {})["toolChoice"] == "auto"
    roles = [message["role"] for message in (answered.request or {})["messages"]]
    assert roles == ["user", "assistant", "tool"]
    assert (answered.request or {})["messages"][2]["content"] == "7"
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
        started = await start(house, flow)
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
    totals = found.totals
    assert (found.step("ask").model_calls, totals.cost_usd) == ((), None)
