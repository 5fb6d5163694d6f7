"""The built-in model `echo` keeps what the flow file's documentation promises of it."""

import asyncio
import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.config.settings import Price, Settings
from runglass.engine.models.echo import STREAMED, WORDS_AT_ONCE, pieces_of, word_count
from runglass.engine.models.gateway import ModelAnswer, ModelGateway, ModelRequest
from runglass.errors import StepFailure
from runglass.limits import pace
from runglass.log.trace import TokenBreakdown
from tests.fakes import VirtualClock


def tool(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or {}}}


WEATHER = tool(
    "weather", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
)
TIME = tool("time")
PIECE_S = 0.002


async def ask(
    *messages: dict[str, Any], price: Price | None = None, **fields: Any
) -> tuple[ModelAnswer, list[str]]:
    pieces: list[str] = []
    request = ModelRequest(model="echo", messages=list(messages), **fields)
    models = ModelGateway(Settings(prices={} if price is None else {"echo": price}))
    return await models.complete(request, pieces.append), pieces


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("price", "cost_usd"),
    [(None, None), (Price(input_per_mtok=Decimal(1), output_per_mtok=Decimal(10)), Decimal("0.000037"))],
)
async def test_echo_says_the_last_user_text_and_counts_words_as_tokens(
    price: Price | None, cost_usd: Decimal | None
) -> None:
    said = [user("one"), {"role": "assistant", "content": "two"}, user("Say  this\nnow ")]
    answer, pieces = await ask(*said, system="be kind", price=price)
    assert answer.output == {"text": "Say  this\nnow "}
    assert pieces == ["Say  this\nnow "]
    response = answer.response
    assert response.tokens == TokenBreakdown(prompt=7, completion=3, total=10)
    assert (response.model_used, response.cost_usd) == ("echo", cost_usd)


async def test_with_a_schema_echo_makes_the_smallest_object_and_streams_its_json() -> None:
    schema = {
        "type": "object",
        "properties": {"grade": {"type": "integer", "minimum": 1}, "note": {"type": "string"}},
        "required": ["grade"],
    }
    answer, pieces = await ask(user("Grade this."), output_schema=schema)
    assert answer.output == {"grade": 1}
    assert json.loads("".join(pieces)) == answer.output


async def test_calls_have_valid_arguments_and_ids_that_differ_between_the_steps_of_a_run() -> None:
    steps: list[dict[str, Any]] = [
        {"system": "Be kind."},
        {"system": "Be strict."},
        {"settings": {"seed": 1}},
        {"output_schema": {"type": "object"}},
    ]
    answers = [(await ask(user("Hi"), tools=[WEATHER, TIME], **step))[0] for step in steps]
    again = await ask(user("Hi"), tools=[WEATHER, TIME], **steps[0])
    assert again == (answers[0], []), "they are the same again, and nothing is said meanwhile"
    calls = answers[0].response.tool_calls
    assert answers[0].output == {"text": ""}
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": ""}, {}]
    answers.append((await ask(user("Ho"), tools=[WEATHER, TIME]))[0])
    ids = [call["id"] for answer in answers for call in answer.response.tool_calls]
    assert len(set(ids)) == len(ids) == 2 * len(answers)
    assert all(re.fullmatch("call_[0-9a-f]{12}", call_id) for call_id in ids)


async def test_content_that_is_no_text_is_refused() -> None:
    with pytest.raises(StepFailure, match="must be text") as caught:
        await ask({"role": "user", "content": [{"type": "image_url"}]})
    assert caught.value.code == "INVALID_INPUT"


@given(st.lists(st.text(min_size=1), max_size=300).map(" ".join))
def test_a_long_text_is_said_in_pieces_of_so_many_words_that_join_to_exactly_the_text(text: str) -> None:
    *before, last = list(pieces_of(text)) or [""]
    assert "".join([*before, last]) == text
    assert {len(piece.split()) for piece in before} <= {WORDS_AT_ONCE}
    assert len(last.split()) <= WORDS_AT_ONCE


@given(st.text(alphabet=" \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x00a1\x7f\xa0é", max_size=40))
def test_words_are_counted_as_split_tells_them_apart(text: str) -> None:
    assert word_count(text) == len(text.split())


async def test_a_book_is_said_to_its_end_and_others_have_a_turn_after_each_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While another project is about, a rest as well."""
    text, pieces, turns, seen = "word " * 5_000, list[str](), 0, list[int]()
    clock = VirtualClock()
    monkeypatch.setattr(pace, "clock", clock)
    monkeypatch.setattr(pace, "last_seen", [(7, 0.0)])

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def hear(piece: str) -> None:
        pieces.append(piece)
        seen.append(turns)
        clock.set_back(-PIECE_S)

    task = asyncio.create_task(other())
    async with ModelGateway(Settings()) as models:
        await models.complete(ModelRequest(model="echo", messages=[user(text)]), hear)
    task.cancel()
    assert "".join(pieces) == text
    assert pieces[-1] == text[STREAMED:]
    assert len(set(seen)) == len(seen)
    assert clock.slept_s[: len(pieces) - 3] == [pytest.approx(pace.REST * PIECE_S)] * (len(pieces) - 3)
