"""Usage that cannot be right: what is booked of it, and what the trace says."""

from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.usage import RequestUsage

from runglass.config.settings import Price
from runglass.engine.models.gateway import ModelRequest
from runglass.engine.models.usage import Usage, read_usage
from runglass.log.money import ZERO, format_usd
from runglass.log.trace import ModelCall, RunTotals, TokenBreakdown
from runglass.store.records import Project
from runglass.store.sqlite.store import SqliteStore
from tests.unit.engine.conftest import EngineHarness, open_harness, run_to_end
from tests.unit.engine.fake_provider import DONE, FakeProvider, Reply, chunk
from tests.unit.engine.provider_families import (
    FAMILIES,
    USAGE,
    changed,
    every_provider,
    places,
    put,
    with_odd,
)

# Libraries warn of usage that they cannot read.
pytestmark = pytest.mark.filterwarnings("ignore")

VALUES: dict[str, Any] = {
    "-1": -1,
    "0.5": 0.5,
    "1e308": 1e308,
    "2^63": 2**63,
    "true": True,
    "null": None,
    "text": "many",
}
CHAT = {
    "prompt_tokens": 50,
    "completion_tokens": 40,
    "total_tokens": 90,
    "prompt_tokens_details": {"cached_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 10},
}
RESPONSES = {
    name.replace("prompt", "input").replace("completion", "output"): count for name, count in CHAT.items()
}
# Here the prompt is told without what the cache has, and thoughts beside what was said.
ANTHROPIC = {
    "input_tokens": 20,
    "output_tokens": 40,
    "cache_read_input_tokens": 20,
    "cache_creation_input_tokens": 10,
    "output_tokens_details": {"thinking_tokens": 10},
}
GOOGLE = {
    "promptTokenCount": 50,
    "candidatesTokenCount": 30,
    "totalTokenCount": 90,
    "cachedContentTokenCount": 20,
    "thoughtsTokenCount": 10,
}
HONEST = dict.fromkeys(FAMILIES, CHAT) | {
    "openai responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "google": GOOGLE,
}
PRICE = Price(input_per_mtok=Decimal(1000), output_per_mtok=Decimal(2000), cached_input_per_mtok=Decimal(100))
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


def reply_with(family: str, usage: Any, *, streamed: bool) -> Reply:
    def change(frame: Any) -> Any:
        frame = put(usage, "usage", "usageMetadata")(frame)
        if family == "groq" and streamed and frame.get("usage"):
            # While it streams, Groq tells usage in a place of its own.
            frame["x_groq"] = {"id": "g1", "usage": frame.pop("usage")}
        return frame

    return changed(family, change, streamed=streamed)


class Booked(NamedTuple):
    call: ModelCall
    totals: RunTotals
    spent_usd: Decimal
    project: Project


async def booked(house: EngineHarness, fake: FakeProvider, usage: Any, *, streamed: bool) -> Booked:
    """What a run with one call has booked."""
    project = await house.store.ensure_project("acme", "demo")
    before = project.spent_usd
    fake.replies[:] = [reply_with("compatible", usage, streamed=streamed)]
    settings = f"settings: {{stream: {str(streamed).lower()}, max_tokens: {MAX_TOKENS}}}"
    step = (
        f"- {{id: ask, type: llm, model: 'local:tiny', prompt: Hi, {settings}, retry: {{max_attempts: 1}}}}"
    )
    ran = await run_to_end(house, step)
    (call,) = ran.step("ask").model_calls
    totals, after = ran.trace.flow_run.totals, await house.store.project(project.id)
    assert totals is not None
    assert after is not None
    assert after.reserved_usd == ZERO
    assert Decimal(totals.cost_usd or 0) == after.spent_usd - before
    return Booked(call, totals, after.spent_usd - before, after)


@pytest.mark.parametrize("on_budget", [False, True], ids=["no budget", "budget"])
@pytest.mark.parametrize("way", TABLES)
async def test_each_number_of_usage_is_booked_as_the_table_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, on_budget: bool
) -> None:
    names = list(VALUES)
    store = SqliteStore(tmp_path / "db", synchronous="NORMAL")
    async with (
        every_provider(monkeypatch, {"local:tiny": PRICE}) as (fake, models),
        open_harness(store, models=models) as house,
    ):
        if on_budget:
            project = await house.store.ensure_project("acme", "demo")
            await house.store.set_budget(project.id, Decimal(1000))
        rows: dict[str, list[str]] = {}
        for place in places(CHAT):
            if isinstance(place[-1], str) and not place[-1].endswith("details"):
                for value in VALUES.values():
                    cell = await booked(house, fake, with_odd(CHAT, place, value), streamed=way == "streamed")
                    rows.setdefault(place[-1], []).append(told(cell, on_budget=on_budget))
    found = [names, *([field, *cells] for field, cells in rows.items())]
    assert found == [line.split() for line in TABLES[way].strip().splitlines()]


def told(cell: Booked, *, on_budget: bool) -> str:
    """The cell of the table; all that a call tells must agree with it."""
    call, totals, spent_usd, _ = cell
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


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "in one piece"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_the_usage_of_each_provider_is_booked_as_it_is_meant(
    monkeypatch: pytest.MonkeyPatch, family: str, streamed: bool
) -> None:
    model = FAMILIES[family].model
    settings = {"stream": streamed, "max_tokens": MAX_TOKENS}
    request = ModelRequest(model=model, messages=ASKED.messages, settings=settings)
    async with every_provider(monkeypatch, {model: PRICE}) as (fake, models):
        fake.replies.append(reply_with(family, HONEST[family], streamed=streamed))
        told = (await models.complete(request, lambda text: None)).response
    assert told.tokens == TokenBreakdown(prompt=50, completion=40, total=90)
    assert (told.cached_tokens, told.reasoning_tokens) == (20, 10)
    assert (told.cost_usd, told.cost_unknown) == (HONEST_USD, None)


@pytest.mark.parametrize("family", ["openai chat", "compatible", "mistral", "groq"])
async def test_of_usage_that_comes_with_each_part_of_an_answer_the_last_one_holds(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Perplexity, and Google behind OpenAI's protocol, tell each time what was used so far."""

    def change(frame: Any) -> Any:
        usage = frame.pop("usage") or USAGE | {"completion_tokens": 1}
        return frame | ({"x_groq": {"id": "g1", "usage": usage}} if family == "groq" else {"usage": usage})

    model = FAMILIES[family].model
    request = ModelRequest(model=model, messages=ASKED.messages, settings={"stream": True})
    async with every_provider(monkeypatch) as (fake, models):
        body = changed(family, change, streamed=True).body
        fake.replies.append(Reply(body=body.replace(DONE, chunk(usage=dict.fromkeys(USAGE, 0)) + DONE)))
        response = (await models.complete(request, lambda text: None)).response
    assert response.tokens == TokenBreakdown(prompt=5, completion=2, total=7)


@pytest.mark.parametrize("is_told_again", [False, True], ids=["zero", "told again"])
async def test_tokens_of_a_prompt_that_come_first_are_kept(
    monkeypatch: pytest.MonkeyPatch, is_told_again: bool
) -> None:
    first = {"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100}
    last = {"prompt_tokens": 100 * is_told_again, "completion_tokens": 7, "total_tokens": 7}
    body = chunk({"content": "Hi"}, usage=first) + chunk({}, finish="stop", usage=last) + DONE
    async with every_provider(monkeypatch) as (fake, models):
        fake.replies.append(Reply(body=body))
        response = (await models.complete(ASKED, lambda text: None)).response
    assert response.tokens == TokenBreakdown(prompt=100, completion=7, total=107)


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
    ("told", "cost_usd", "unknown"),
    [
        ("0.002", Decimal("0.002"), None),
        ("1e30", None, "bad_usage"),
        ("1e-999999", None, "bad_usage"),
        # The library takes these for none.
        ("-1", None, "no_price"),
        ("NaN", None, "no_price"),
    ],
)
async def test_a_cost_that_a_provider_tells_is_judged_too(
    monkeypatch: pytest.MonkeyPatch, told: str, cost_usd: Decimal | None, unknown: str | None
) -> None:
    usage = CHAT | {"pydantic_ai_gateway": {"cost_estimate": told}}
    async with every_provider(monkeypatch) as (fake, models):
        fake.replies.append(reply_with("compatible", usage, streamed=True))
        request = ModelRequest(model="local:tiny", messages=ASKED.messages, settings={"stream": True})
        response = (await models.complete(request, lambda text: None)).response
    assert (response.cost_usd, response.cost_unknown) == (cost_usd, unknown)
