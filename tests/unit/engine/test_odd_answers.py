"""Whatever a provider sends is the provider's doing: an answer, or a failure that is told as its own."""

import json
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from runglass.engine.models.gateway import AnswerRejected, ModelCallFailed, ModelRequest
from runglass.errors import StepFailure
from runglass.log.money import format_usd
from runglass.store.sqlite.store import SqliteStore
from tests.unit.engine.conftest import open_harness, run_to_end
from tests.unit.engine.fake_provider import LOOK, Reply
from tests.unit.engine.provider_families import (
    CALL,
    FAMILIES,
    Change,
    changed,
    every_provider,
    places,
    put,
    with_odd,
)

# Libraries warn of types and go on.
pytestmark = pytest.mark.filterwarnings("ignore")

WAYS = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "in one piece"])
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
VALUES: list[Any] = [None, 10**20, "odd", [], {"a": 1}, DEEP]
"""What stands in the place of each value of an answer."""


def one_by_one(frames: list[Any]) -> Change:
    """Puts the next of these in the place of each frame."""
    left = iter(frames)
    return lambda _: next(left)


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize("calls", [True, False], ids=["calls", "text"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_no_value_of_an_answer_is_a_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, family: str, calls: bool, streamed: bool
) -> None:
    frames: list[Any] = []
    changed(family, frames.append, streamed=streamed, calls=calls)
    request = ModelRequest(
        model=FAMILIES[family].model,
        messages=[{"role": "user", "content": "Hi"}],
        settings={"stream": streamed},
        tools=[LOOK] if calls else [],
    )
    failures: list[tuple[Any, StepFailure]] = []
    async with every_provider(monkeypatch) as (fake, models):
        for place, odd in product(places(frames), VALUES):
            if len(place) == 1:
                continue
            in_order = one_by_one(with_odd(frames, place, odd))
            fake.replies[:] = [changed(family, in_order, streamed=streamed, calls=calls)]
            try:
                await models.complete(request, lambda text: None)
            except (ModelCallFailed, AnswerRejected) as error:
                failures.append(((place, odd), error))
    assert failures
    host = fake.base_url.removesuffix("/v1")
    for what, failure in failures:
        assert failure.code in ("PROVIDER_UNAVAILABLE", "INVALID_OUTPUT"), what
        assert failure.details["address"].startswith(host), what
        assert host in failure.message, what


ODD = {
    "no choices": ("compatible", put(None, "choices")),
    "a text as time": ("openai responses", put("noon", "created_at")),
    "a number as part": ("google", put([7], "parts")),
    "no content": ("anthropic", put(7, "content", "delta")),
    "deep nesting": ("mistral", put(DEEP, "choices")),
}
"""Oddities that an answer has either way, with a family whose library met them with an exception."""


@WAYS
@pytest.mark.parametrize("what", ODD)
async def test_an_odd_answer_is_told_with_model_and_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, streamed: bool
) -> None:
    family, change = ODD[what]
    model = FAMILIES[family].model
    step: dict[str, Any] = {"id": "ask", "type": "llm", "model": model, "prompt": "Hi"}
    step |= {"settings": {"stream": streamed}, "retry": {"max_attempts": 1}}
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    async with every_provider(monkeypatch) as (fake, models), open_harness(store, models=models) as house:
        fake.replies.append(changed(family, change, streamed=streamed))
        ran = await run_to_end(house, f"- {json.dumps(step)}")
    error = ran.outcome.error
    assert error is not None
    assert error["code"] in ("PROVIDER_UNAVAILABLE", "INVALID_OUTPUT")
    assert fake.base_url.removesuffix("/v1") in error["message"]
    assert model in error["message"]
    (call,) = ran.step("ask").model_calls
    assert call.error_code == error["code"]


async def failure_of(
    monkeypatch: pytest.MonkeyPatch, reply: Reply, family: str = "compatible", **more: Any
) -> StepFailure:
    model = FAMILIES[family].model
    request = ModelRequest(model=model, messages=[{"role": "user", "content": "Hi"}], **more)
    async with every_provider(monkeypatch) as (fake, models):
        fake.replies.append(reply)
        with pytest.raises(StepFailure) as caught:
            await models.complete(request, lambda text: None)
    return caught.value


OTHER = {"type": "function", "function": {"name": "listen"}}


@WAYS
@pytest.mark.parametrize("tools", [[], [OTHER]], ids=["none", "another"])
async def test_a_tool_that_nobody_offered_is_not_called(
    monkeypatch: pytest.MonkeyPatch, streamed: bool, tools: list[dict[str, Any]]
) -> None:
    reply = changed("compatible", lambda frame: frame, streamed=streamed, calls=True)
    failure = await failure_of(monkeypatch, reply, settings={"stream": streamed}, tools=tools)
    assert isinstance(failure, AnswerRejected), "it is to be paid for"
    assert (failure.code, failure.response.tokens is not None) == ("PROVIDER_UNAVAILABLE", True)
    assert failure.message == (
        f"model 'local:tiny' at {failure.details['address']} called the tool 'look', which was not offered"
    )


async def test_two_tool_calls_with_one_id_could_not_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = changed("compatible", put([CALL, CALL], "tool_calls"), streamed=False, calls=True)
    failure = await failure_of(monkeypatch, twice, settings={"stream": False}, tools=[LOOK])
    assert (failure.code, failure.message.rpartition(" at ")[2].partition(" ")[2]) == (
        "PROVIDER_UNAVAILABLE",
        "made two tool calls with one id",
    )


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
    monkeypatch: pytest.MonkeyPatch, what: str, streamed: bool
) -> None:
    body, said = SAID[what]
    reply = Reply(body=body, headers={"content-type": "application/json"})
    failure = await failure_of(monkeypatch, reply, settings={"stream": streamed})
    assert failure.code == "PROVIDER_UNAVAILABLE"
    assert "secret" not in f"{failure} {failure.details}"
    if said is not None:
        assert failure.details["providerMessage"] == said
        told = f"sent an incomplete or garbled answer (model 'local:tiny'): {said}"
        assert failure.message.endswith(told)


@pytest.mark.parametrize("odd", [{"a": 1}, {"message": ["x"]}], ids=["no words", "a list as words"])
async def test_an_error_without_words_in_an_answer_is_the_provider_s(
    monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any]
) -> None:
    reply = changed("openai responses", lambda answer: answer | {"error": odd}, streamed=False)
    failure = await failure_of(monkeypatch, reply, "openai responses", settings={"stream": False})
    assert failure.code == "PROVIDER_UNAVAILABLE"


async def test_an_object_that_is_nested_too_deeply_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    # Deeper than the limit of recursion that a type checker in the process of the tests has left.
    deep = changed("compatible", put('{"a":' * 20_000 + "1" + "}" * 20_000, "content"), streamed=False)
    schema = {"type": "object"}
    failure = await failure_of(monkeypatch, deep, settings={"stream": False}, output_schema=schema)
    assert failure.code == "INVALID_OUTPUT"


async def test_a_fault_of_ours_while_an_answer_comes_is_not_the_provider_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hear(text: str) -> None:
        format_usd(Decimal("NaN"))

    request = ModelRequest(model="local:tiny", messages=[{"role": "user", "content": "Hi"}])
    async with every_provider(monkeypatch) as (fake, models):
        fake.replies.append(changed("compatible", lambda frame: frame, streamed=True))
        with pytest.raises(ValueError, match="not an amount of money"):
            await models.complete(request, hear)
