"""Whatever a provider sends is the provider's doing: an answer, or a failure that is told as its own."""

from decimal import Decimal
from functools import partial
from itertools import product
from typing import Any
from unittest.mock import Mock

import pytest

from runglass.engine.models.gateway import AnswerRejected, ModelCallFailed, ModelRequest
from runglass.errors import StepFailure
from runglass.log.money import format_usd
from tests.unit.engine.bench import HELLO, Bench, bench_with
from tests.unit.engine.fake_provider import (
    CALL,
    COMPATIBLE,
    FAMILIES,
    LOOK,
    Reply,
    places,
    put,
    with_odd,
)

bench = bench_with()
# Libraries warn of types and go on.
pytestmark = pytest.mark.filterwarnings("ignore")

WAYS = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "in one piece"])
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
VALUES: list[Any] = [None, 10**20, "odd", [], [7], {"a": 1}, DEEP]
"""What stands in the place of each value of an answer."""


SLOW = pytest.mark.slow
OTHERS = [name for name in FAMILIES if name != "anthropic"]


@WAYS
@pytest.mark.parametrize("calls", [True, False], ids=["calls", "text"])
@pytest.mark.parametrize("family", ["anthropic", *(pytest.param(name, marks=SLOW) for name in OTHERS)])
async def test_no_value_of_an_answer_is_a_fault_of_ours(
    bench: Bench, family: str, calls: bool, streamed: bool
) -> None:
    model, reply_of = FAMILIES[family].model, partial(FAMILIES[family].reply, streamed=streamed, calls=calls)
    frames: list[Any] = []
    reply_of(change=frames.append)
    asked = partial(bench.ask, model=model, settings={"stream": streamed}, tools=[LOOK] if calls else [])
    failures: list[tuple[Any, StepFailure]] = []
    for place, odd in product(places(frames), VALUES):
        if len(place) == 1:
            continue
        bench.fake.replies.clear()
        try:
            await asked(reply_of(change=Mock(side_effect=with_odd(frames, place, odd))))
        except (ModelCallFailed, AnswerRejected) as error:
            failures.append(((place, odd), error))
    assert failures
    host = bench.fake.base_url.removesuffix("/v1")
    for what, failure in failures:
        assert failure.code in ("PROVIDER_UNAVAILABLE", "INVALID_OUTPUT"), what
        assert failure.details["address"].startswith(host), what
        assert host in failure.message, what
        assert model in failure.message, what


OTHER = {"type": "function", "function": {"name": "listen"}}


@WAYS
@pytest.mark.parametrize("tools", [[], [OTHER]], ids=["none", "another"])
async def test_a_tool_that_nobody_offered_is_not_called(
    bench: Bench, streamed: bool, tools: list[dict[str, Any]]
) -> None:
    reply = COMPATIBLE.reply(streamed=streamed, calls=True)
    failure = await bench.failure(reply, settings={"stream": streamed}, tools=tools)
    assert isinstance(failure, AnswerRejected), "it is to be paid for"
    assert (failure.code, failure.response.tokens is not None) == ("PROVIDER_UNAVAILABLE", True)
    assert failure.message == (
        f"model 'local:tiny' at {failure.details['address']} called the tool 'look', which was not offered"
    )


async def test_two_tool_calls_with_one_id_could_not_be_answered(bench: Bench) -> None:
    twice = COMPATIBLE.reply(streamed=False, calls=True, change=put([CALL, CALL], "tool_calls"))
    failure = await bench.failure(twice, settings={"stream": False}, tools=[LOOK])
    assert failure.code == "PROVIDER_UNAVAILABLE"
    assert failure.message.endswith("/v1 made two tool calls with one id")


SAID = {
    "an error": (
        b'{"error": {"message": "the model is not loaded", "code": 404}}',
        "the model is not loaded",
    ),
    "a text as error": (b'{"error": "Unexpected endpoint"}', "Unexpected endpoint"),
    "a page": (b"<html>busy</html>", "<html>busy</html>"),
    # What begins as JSON may be words of the model.
    "an object": (b' \n{"choices": [{"message": {"content": "secret', None),
    "a list": (b'\n["secret', None),
    "deep nesting": (b'{"secret":' + b"[" * 5_000, None),
}
"""What comes with status 200 in the place of an answer, and what is told of it."""


@WAYS
@pytest.mark.parametrize("what", SAID)
async def test_what_a_provider_says_in_the_place_of_an_answer_is_told(
    bench: Bench, what: str, streamed: bool
) -> None:
    body, said = SAID[what]
    reply = Reply(body=body, headers={"content-type": "application/json"})
    failure = await bench.failure(reply, settings={"stream": streamed})
    assert failure.code == "PROVIDER_UNAVAILABLE"
    assert "secret" not in f"{failure} {failure.details}"
    if said is not None:
        assert failure.details["providerMessage"] == said
        told = f"sent an incomplete or garbled answer (model 'local:tiny'): {said}"
        assert failure.message.endswith(told)


@pytest.mark.parametrize("odd", [{"a": 1}, {"message": ["x"]}], ids=["no words", "a list as words"])
async def test_an_error_without_words_in_an_answer_is_the_provider_s(
    bench: Bench, odd: dict[str, Any]
) -> None:
    family = FAMILIES["openai responses"]
    reply = family.reply(streamed=False, change=lambda answer: answer | {"error": odd})
    failure = await bench.failure(reply, model=family.model, settings={"stream": False})
    assert failure.code == "PROVIDER_UNAVAILABLE"


async def test_an_object_that_is_nested_too_deeply_is_no_output(bench: Bench) -> None:
    # Deeper than the limit of recursion that a type checker in the process of the tests has left.
    deep = COMPATIBLE.reply('{"a":' * 20_000 + "1" + "}" * 20_000)
    assert (await bench.failure(deep, output_schema={"type": "object"})).code == "INVALID_OUTPUT"


async def test_a_fault_of_ours_while_an_answer_comes_is_not_the_provider_s(bench: Bench) -> None:
    def hear(text: str) -> None:
        format_usd(Decimal("NaN"))

    bench.fake.replies.append(COMPATIBLE.reply())
    request = ModelRequest(model="local:tiny", messages=HELLO)
    with pytest.raises(ValueError, match="not an amount of money"):
        await bench.models.complete(request, hear)
