"""Whatever a provider sends is the provider's doing: an answer, or a failure that is told as its own.

Of its usage what can be right is booked, and the trace says of the rest that it is not.
"""

from decimal import Decimal
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.usage import RequestUsage

from runglass.config.settings import Price
from runglass.engine.models.gateway import AnswerRejected, ModelCallFailed, ModelRequest
from runglass.engine.models.usage import Usage, read_usage
from runglass.errors import StepFailure
from runglass.log.money import ZERO, format_usd
from runglass.log.trace import TokenBreakdown
from tests.emitters import ledger
from tests.unit.engine.bench import HELLO, Bench, EngineBench, bench_with, open_bench, open_engine_bench
from tests.unit.engine.fake_provider import (
    CALL,
    COMPATIBLE,
    DONE,
    FAMILIES,
    LOOK,
    USAGE,
    Reply,
    chunk,
    places,
    put,
    with_odd,
)

bench = bench_with()
# Libraries warn of types, and of usage that they cannot read, and go on.
pytestmark = pytest.mark.filterwarnings("ignore")

WAYS = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "in one piece"])
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
ODD: list[Any] = [None, 10**20, "odd", [], [7], {"a": 1}, DEEP]
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
    for place, odd in product(places(frames), ODD):
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
    address = failure.details["address"]
    assert failure.message == f"model 'local:tiny' at {address} called the tool 'look', which was not offered"


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


ODD_NUMBERS: list[Any] = [-1, 0.5, 1e308, 2**63, True, None, "many"]
CHAT = {
    "prompt_tokens": 50,
    "completion_tokens": 40,
    "total_tokens": 90,
    "prompt_tokens_details": {"cached_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 10},
}
PRICE = Price(input_per_mtok=Decimal(1000), output_per_mtok=Decimal(2000), cached_input_per_mtok=Decimal(100))
HONEST = ledger.Usage(50, 40, cached=20, cache_write=10, reasoning=10)
HONEST_USD = Decimal("0.112")
"""30 tokens of a prompt, 20 cached ones, and 40 of an answer."""
MAX_TOKENS = 100

TABLES = {
    "streamed": """
                        -1     0.5    1e308  2^63   true   null   text
      prompt_tokens     bad    bad    bad    bad    bad    bad    bad
      completion_tokens bad    bad    bad    bad    bad    bad    bad
      total_tokens      0.112  0.112  0.112  0.112  0.112  0.112  0.112
      cached_tokens     bad    bad    bad    bad    0.1291 0.13   0.13
      reasoning_tokens  bad    bad    bad    bad    0.112  0.112  0.112
    """,
    "in one piece": """
                        -1     0.5    1e308  2^63   true   null   text
      prompt_tokens     bad    failed failed bad    bad    failed failed
      completion_tokens bad    failed failed bad    bad    failed failed
      total_tokens      0.112  failed failed 0.112  0.112  failed failed
      cached_tokens     bad    failed failed bad    0.1291 0.13   failed
      reasoning_tokens  bad    failed failed bad    0.112  0.112  failed
    """,
}
"""What a call costs with one number of its usage in the place of an honest one, in US dollars.

`bad`: nothing is booked, as the usage cannot be right. `failed`: the library has refused the whole answer.
The total is not looked at. The library reads `true` as 1, and leaves out parts of tokens that it cannot read.
"""


@pytest.mark.parametrize("on_budget", [False, True], ids=["no budget", "budget"])
@pytest.mark.parametrize("way", TABLES)
async def test_each_number_of_usage_is_booked_as_the_table_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, on_budget: bool
) -> None:
    settings = f"{{stream: {way == 'streamed'}, max_tokens: {MAX_TOKENS}}}"
    step = f"- {{id: a, type: llm, model: 'local:tiny', retry: {{max_attempts: 1}}, settings: {settings}}}"
    async with open_engine_bench(tmp_path, monkeypatch, prices={"local:tiny": PRICE}) as bench:
        if on_budget:
            await bench.house.set_budget(1000)
        rows: dict[str, list[str]] = {}
        for place in places(CHAT):
            if isinstance(place[-1], str) and not place[-1].endswith("details"):
                for value in ODD_NUMBERS:
                    usage = with_odd(CHAT, place, value)
                    reply = COMPATIBLE.reply(streamed=way == "streamed", change=put(usage, "usage"))
                    cell = await booked(bench, step, reply, on_budget=on_budget)
                    rows.setdefault(place[-1], []).append(cell)
    _, *table = TABLES[way].strip().splitlines()
    assert [[field, *cells] for field, cells in rows.items()] == [line.split() for line in table]


async def booked(bench: EngineBench, step: str, reply: Reply, *, on_budget: bool) -> str:
    """The cell of the table for a run with one call; all that it tells must agree with that."""
    before = await bench.house.project()
    ran = await bench.run(step, reply, inputs={"message": "Hi"})
    (call,), totals, after = ran.calls, ran.totals, await bench.house.project()
    spent_usd = after.spent_usd - before.spent_usd
    assert (after.reserved_usd, Decimal(totals.cost_usd or 0)) == (ZERO, spent_usd)
    if call.cost_unknown is None:
        assert (call.note, totals.unmetered_calls, call.cost_estimated) == (None, 0, False)
        return format_usd(spent_usd)
    assert (call.tokens, totals.tokens, totals.unmetered_calls) == (None, None, 1)
    assert call.cost_estimated == on_budget
    # On a budget it costs what was reserved: the most that it can have cost.
    assert (spent_usd > HONEST_USD) if on_budget else (call.cost_usd is None)
    if call.error_code is not None:
        assert (call.error_code, call.cost_unknown) == ("PROVIDER_UNAVAILABLE", "no_usage")
        return "failed"
    assert call.cost_unknown == "bad_usage"
    assert (call.note or "").startswith("usage that cannot be right is not booked: ")
    return "bad"


def in_x_groq(frame: Any) -> Any:
    """While it streams, Groq tells usage in a place of its own."""
    return frame | {"x_groq": {"id": "g1", "usage": frame.pop("usage")}} if frame.get("usage") else frame


@SLOW
@WAYS
@pytest.mark.parametrize("family", FAMILIES)
async def test_the_usage_of_each_provider_is_booked_as_it_is_meant(
    monkeypatch: pytest.MonkeyPatch, family: str, streamed: bool
) -> None:
    """Anthropic tells the prompt without what the cache has, and Google thoughts beside what was said."""
    model = FAMILIES[family].model
    change = in_x_groq if family == "groq" and streamed else dict
    reply = FAMILIES[family].reply(streamed=streamed, usage=HONEST, change=change)
    settings = {"stream": streamed, "max_tokens": MAX_TOKENS}
    async with open_bench(monkeypatch, prices={model: PRICE}) as bench:
        told = (await bench.ask(reply, model=model, settings=settings)).response
    assert told.tokens == TokenBreakdown(prompt=50, completion=40, total=90)
    assert (told.cached_tokens, told.reasoning_tokens) == (20, 10)
    assert (told.cost_usd, told.cost_unknown) == (HONEST_USD, None)


@pytest.mark.parametrize("family", ["openai chat", "compatible", "mistral", "groq"])
async def test_of_usage_that_comes_with_each_part_of_an_answer_the_largest_counts_hold(
    bench: Bench, family: str
) -> None:
    """Perplexity, and Google behind OpenAI's protocol, tell each time what was used so far.

    Others tell the tokens of the prompt first, and none of them in the end.
    """

    def change(frame: Any) -> Any:
        so_far = USAGE | {"completion_tokens": 1}
        frame["usage"] = frame["usage"] | {"prompt_tokens": 0} if frame["usage"] else so_far
        return in_x_groq(frame) if family == "groq" else frame

    body = FAMILIES[family].reply(change=change).body
    reply = Reply(body=body.replace(DONE, chunk(usage=dict.fromkeys(USAGE, 0)) + DONE))
    response = (await bench.ask(reply, model=FAMILIES[family].model)).response
    assert response.tokens == TokenBreakdown(prompt=5, completion=2, total=7)


ASKED = ModelRequest(
    model="local:m", messages=[{"role": "user", "content": "Hi"}], settings={"max_tokens": 100}
)
PROBLEMS: list[tuple[dict[str, Any], str | None]] = [
    ({"cache_read_tokens": 51}, "51 cached of 50 prompt tokens"),
    ({"cache_write_tokens": 51}, "51 cached of 50 prompt tokens"),
    ({"output_reasoning_tokens": 41}, "41 reasoning of 40 completion tokens"),
    ({"details": {"reasoning_tokens": 41}}, "41 reasoning of 40 completion tokens"),
    ({"details": {"reasoning_tokens": "many"}}, "reasoning_tokens is a str, not a whole number"),
    ({"output_tokens": 201}, "201 completion tokens where `max_tokens` is 100"),
    ({"input_tokens": 10**6}, "1000000 prompt tokens where the request has 489 at most"),
    ({"input_tokens": 0}, "0 prompt and 40 completion tokens"),
    ({"output_tokens": 0}, "50 prompt and 0 completion tokens"),
    ({"input_tokens": 10**12}, "input_tokens is over 100,000,000"),
    ({"web_searches": -1}, "web_searches is negative"),
    ({"cost": Decimal("-1")}, "a cost of $-1 for 90 tokens"),
    ({"cost": Decimal("1e999999")}, "a cost of $1e+999999 for 90 tokens"),
    ({"cost": Decimal("1e-999999")}, "a cost of $1e-999999 for 90 tokens"),
    ({"cost": Decimal("NaN")}, "a cost of $NaN for 90 tokens"),
    # Odd, and maybe right.
    ({"output_tokens": 200}, None),
    ({"input_tokens": 978}, None),
    ({"cost": Decimal("1.5")}, None),
]


@pytest.mark.parametrize(("numbers", "problem"), PROBLEMS)
def test_usage_that_cannot_be_right_is_told_and_not_booked(
    numbers: dict[str, Any], problem: str | None
) -> None:
    usage = RequestUsage(**{"input_tokens": 50, "output_tokens": 40} | numbers)
    given = ModelResponse(parts=[TextPart(content="Hi")], usage=usage)
    found = read_usage(ASKED, given, price=None, image_tokens=0)
    if problem is None:
        assert (found.problem, found.tokens is None) == (None, False)
        assert found.cost_usd == numbers.get("cost")
    else:
        assert found == Usage(cost_unknown="bad_usage", problem=problem)


@pytest.mark.parametrize(
    ("address", "model", "cost"),
    [
        ("https://api.openai.com/v1/", "gpt-4o-mini-2024-07-18", Decimal("0.000102")),
        ("https://api.openai.com/v1/", "gpt-no-such-model", None),
        ("http://127.0.0.1:9000/v1", "gpt-4o-mini-2024-07-18", None),
    ],
)
def test_the_list_price_goes_by_the_address_that_answered(
    address: str, model: str, cost: Decimal | None
) -> None:
    usage = RequestUsage(input_tokens=800, cache_read_tokens=400, output_tokens=20)
    given = ModelResponse(parts=[], usage=usage, model_name=model, provider_url=address)
    assert read_usage(ASKED, given, price=None, image_tokens=0).cost_usd == cost


@pytest.mark.parametrize("odd", [None, "1e30", "-1"])
async def test_a_cost_that_a_provider_tells_is_booked_unless_it_cannot_be_right(
    bench: Bench, odd: str | None
) -> None:
    usage = CHAT | {"pydantic_ai_gateway": {"cost_estimate": odd or "0.002"}}
    # The last word on usage has no cost.
    body = COMPATIBLE.reply(change=put(usage, "usage")).body.replace(DONE, chunk(usage=USAGE) + DONE)
    response = (await bench.ask(Reply(body=body))).response
    assert response.cost_usd == (None if odd else Decimal("0.002"))
    assert (response.cost_unknown is None) == (odd is None)
