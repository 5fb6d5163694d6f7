"""Models of providers, over a real socket: answers, usage, money, and every way in which a provider fails."""

import asyncio
import re
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from functools import partial
from typing import Any

import msgspec
import pytest

from runglass.config.settings import Price, Settings
from runglass.engine.models.gateway import AnswerRejected, ModelGateway
from runglass.engine.models.provider_clients import ProviderClients
from runglass.engine.models.provider_errors import setup_failure
from runglass.errors import StepFailure
from runglass.log.trace import TokenBreakdown
from tests.emitters.ledger import Usage
from tests.unit.engine.bench import Bench, bench_with
from tests.unit.engine.fake_provider import COMPATIBLE, DONE, KEY, LOOK, USAGE, Reply, chunk, error_reply, put

COUNTED = TokenBreakdown(prompt=800, completion=20, total=820)
GRADE = {"type": "object", "properties": {"grade": {"type": "integer", "minimum": 1}}, "required": ["grade"]}
PRICE = Price(
    input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.6"), cached_input_per_mtok=Decimal("0.075")
)
PAID = Decimal("0.000102")
REPLY = partial(COMPATIBLE.reply, usage=Usage(800, 20, cached=400))
WHOLE = partial(REPLY, streamed=False)
UNMETERED = Reply(body=chunk({"content": "Hi"}) + chunk({}, finish="stop") + DONE)

bench = bench_with(prices={"local:priced": PRICE})


async def test_text_streams_in_pieces_and_is_the_answer(bench: Bench) -> None:
    answer = await bench.ask(REPLY("Good ", "mor", "ning"), system="Be kind.")
    assert answer.output == {"text": "Good morning"}
    response = answer.response
    assert (response.model_used, response.text, response.tool_calls) == ("tiny-1", "Good morning", [])
    assert (response.tokens, response.cached_tokens) == (COUNTED, 400)
    assert (response.cost_usd, response.cost_unknown) == (None, "no_price")
    assert (response.finish_reason, response.streamed, response.note) == ("stop", True, None)
    assert bench.pieces == ["Good ", "mor", "ning"]
    assert bench.fake.requests[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ]
    assert bench.fake.requests[0]["stream_options"] == {"include_usage": True}
    assert bench.fake.headers[0]["authorization"] == f"bearer {KEY}"


async def test_a_stream_whose_choice_is_counted_up_is_one_answer(bench: Bench) -> None:
    """As some servers have it that number the chunks of the one choice."""
    frames = [chunk({"content": "I "}), chunk({"content": "am "}), chunk({"content": "here"}, finish="stop")]
    numbered = [
        frame.replace(b'"index": 0', b'"index": %d' % number) for number, frame in enumerate(frames, 1)
    ]
    answer = await bench.ask(Reply(body=b"".join(numbered) + DONE))
    assert (answer.response.text, answer.response.finish_reason) == ("I am here", "stop")


async def test_settings_reach_the_provider(bench: Bench) -> None:
    settings = {
        "temperature": 0,
        "max_tokens": 9,
        "top_p": 0.5,
        "seed": 7,
        "stop": "END",
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "openai_user": "someone",
        "extra_body": {"mirostat": 2},
    }
    await bench.ask(REPLY("Hi"), settings=settings)
    sent = bench.fake.requests[0]
    wanted = settings | {"stop": ["END"], "mirostat": 2, "user": "someone"}
    del wanted["extra_body"], wanted["openai_user"]
    assert {name: sent[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"settings": {"temprature": 1}}, "INVALID_INPUT", "unknown field `temprature`"),
        ({"settings": {"temperature": "hot"}}, "INVALID_INPUT", r"got `str` - at `\$.temperature`"),
        ({"settings": {"max_tokens": 0}}, "INVALID_INPUT", r"at `\$.max_tokens`"),
        ({"messages": []}, "INVALID_INPUT", ""),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "INVALID_INPUT", ""),
        ({"messages": [{"role": "tool", "content": "a result of nothing"}]}, "INVALID_INPUT", ""),
        ({"model": "gpt-4o-mini"}, "MODEL_NOT_SUPPORTED", "PROVIDER:MODEL"),
        ({"model": "openai:"}, "MODEL_NOT_SUPPORTED", "PROVIDER:MODEL"),
        ({"model": "openai:http://elsewhere"}, "MODEL_NOT_SUPPORTED", "is an address"),
        ({"model": "nobody:knows"}, "MODEL_NOT_SUPPORTED", "Unknown provider: nobody.*`providers`"),
        ({"model": "ollama:tiny"}, "MODEL_NOT_SUPPORTED", "OLLAMA_BASE_URL"),
    ],
)
async def test_a_request_that_cannot_be_sent_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], code: str, said: str
) -> None:
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)
    failure = await bench.failure(**fields)
    assert (failure.code, failure.may_retry, bench.fake.requests) == (code, False, [])
    assert re.search(said, str(failure))


@pytest.mark.parametrize(
    "text", ['```json\n{"grade": 3}\n```', 'Here it is: {"grade": 3}. Enjoy!', '{"grade": 3, "why": "a\nb"}']
)
async def test_an_object_in_a_fence_in_prose_or_with_raw_line_breaks_is_read(bench: Bench, text: str) -> None:
    answer = await bench.ask(REPLY(text), output_schema=GRADE)
    assert answer.output["grade"] == 3


@pytest.mark.parametrize(
    ("status", "code"), [(400, "PROVIDER_ERROR"), (422, "PROVIDER_ERROR"), (500, "PROVIDER_UNAVAILABLE")]
)
async def test_a_form_that_a_server_does_not_know_is_tried_once_and_words_come_last(
    bench: Bench, status: int, code: str
) -> None:
    refusal = error_reply(status, "response_format.type: Input should be 'text' or 'json_object'")
    good = REPLY('{"gra', 'de": 3}')
    for _ in range(2):
        assert (await bench.ask(refusal, good, output_schema=GRADE)).output == {"grade": 3}
    await bench.ask(refusal, refusal, good, output_schema=GRADE, model="local:other")
    assert (await bench.failure(refusal, output_schema=GRADE)).code == code
    formats = [sent["response_format"] for sent in bench.fake.requests]
    assert formats[0]["json_schema"]["schema"]["required"] == ["grade"]
    by_schema, words = {"type": "json_object", "schema": GRADE}, {"type": "json_object"}
    assert [formats[0]["type"], formats[4]["type"]] == ["json_schema"] * 2
    assert formats[1:4] + formats[5:] == [by_schema, by_schema, words, by_schema, words, words]
    said = [sent["messages"][0]["content"] for sent in bench.fake.requests]
    assert all('"grade"' in system for system in said)


@pytest.mark.parametrize(
    ("text", "finish", "said"),
    [
        ('{"grade": "good"}', "stop", r"against `output_schema`: `grade`: expected an integer, found 'good'"),
        ('{"grade": 0}', "stop", "`grade`: 0 is less than the minimum of 1"),
        ("Well done!", "stop", "no JSON object"),
        ("[3]", "stop", "no JSON object"),
        ('{"grade": NaN}', "stop", "no JSON object"),
        ('{"grade": 1e999}', "stop", "no JSON object"),
        ('{"grade": ', "length", "truncated at the token limit"),
    ],
)
async def test_a_bad_answer_is_rejected_and_says_what_it_cost(
    bench: Bench, text: str, finish: str, said: str
) -> None:
    with pytest.raises(AnswerRejected, match=said) as caught:
        await bench.ask(
            REPLY(text, change=put(finish, "finish_reason")), model="local:priced", output_schema=GRADE
        )
    rejected = caught.value
    assert rejected.code == "INVALID_OUTPUT"
    assert rejected.may_retry
    response = rejected.response
    assert (response.tokens, response.cost_usd, response.model_used) == (COUNTED, PAID, "tiny-1")
    assert rejected.details["answer"] == text


@pytest.mark.parametrize("reply", [REPLY("x" * 100_000), error_reply(400, "x" * 100_000)])
async def test_of_a_long_answer_or_error_an_excerpt_is_told(bench: Bench, reply: Reply) -> None:
    failure = await bench.failure(reply, output_schema=GRADE)
    assert len(msgspec.json.encode([failure.message, failure.details])) < 3_000


@pytest.mark.parametrize(
    ("reply", "code", "may_retry", "is_paid"),
    [
        (REPLY(""), "INVALID_OUTPUT", True, True),
        (REPLY("I wo", change=put("content_filter", "finish_reason")), "PROVIDER_ERROR", False, True),
        (Reply(body=b"", cut=True), "PROVIDER_UNAVAILABLE", True, False),
    ],
    ids=["empty", "filtered", "none"],
)
async def test_what_is_no_answer_is_never_taken_for_one(
    bench: Bench, reply: Reply, code: str, may_retry: bool, is_paid: bool
) -> None:
    failure = await bench.failure(reply)
    assert (failure.code, failure.may_retry) == (code, may_retry)
    assert isinstance(failure, AnswerRejected) is is_paid


async def test_a_wait_that_a_provider_asks_for_may_be_a_date_and_is_a_week_at_most(bench: Bench) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=100)
    headers = {"retry-after": format_datetime(soon, usegmt=True)}
    by_date = await bench.failure(error_reply(429, "slow", headers=headers))
    left_s = (soon - datetime.now(UTC)).total_seconds()
    assert left_s - 1 < by_date.details["retryAfterMs"] / 1000 <= 100
    for_ever = await bench.failure(error_reply(429, "slow", headers={"retry-after": "9" * 308}))
    assert for_ever.details["retryAfterMs"] == 7 * 24 * 3600 * 1000


async def test_an_address_is_told_without_what_is_secret_in_it(bench: Bench) -> None:
    base_url = bench.fake.base_url.replace("//", "//user:pass-word@") + "?key=in-the-query"
    async with ModelGateway(Settings(providers={"local": base_url})) as models:
        failure = await Bench(bench.fake, models).failure(error_reply(400, "no"))
    assert failure.details["address"] == bench.fake.base_url
    assert not re.search("user|pass-word|in-the-query", str(failure))


async def test_leaving_the_models_closes_their_connections(bench: Bench) -> None:
    await bench.ask(REPLY("Hi"))
    assert bench.fake.opened
    await bench.models.__aexit__(None, None, None)
    await bench.fake.until_all_left()


async def test_tool_calls_are_handed_over_in_the_wire_format(bench: Bench) -> None:
    parts = [
        {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"word": '}},
        {"index": 0, "function": {"arguments": '"tide"}'}},
    ]
    body = b"".join(chunk({"tool_calls": [part]}) for part in parts)
    reply = Reply(body=body + chunk({}, finish="tool_calls") + chunk(usage=USAGE) + DONE)
    answer = await bench.ask(reply, tools=[LOOK], output_schema=GRADE)
    assert answer.response.tool_calls == [
        {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"word": "tide"}'}}
    ]
    assert answer.output == {"text": ""}
    assert answer.response.tokens == TokenBreakdown(prompt=5, completion=2, total=7)
    sent = bench.fake.requests[0]["tools"]
    assert [tool["function"]["name"] for tool in sent] == ["look"]


async def test_a_server_that_streams_no_usage_is_asked_in_one_piece_from_then_on(bench: Bench) -> None:
    first = await bench.ask(UNMETERED, settings={})
    second = await bench.ask(WHOLE("Hi again"), settings={}, model="local:tiny")
    assert [sent.get("stream", False) for sent in bench.fake.requests] == [True, False]
    assert (first.response.tokens, first.response.cost_unknown) == (None, "no_usage")
    assert (second.response.tokens, second.output) == (COUNTED, {"text": "Hi again"})
    assert (second.response.streamed, second.response.note) == (
        False,
        "asked without streaming: the server reports no usage while it streams",
    )
    assert bench.pieces == ["Hi", "Hi again"]
    third = await bench.ask(REPLY("as told"), settings={"stream": True})
    assert (third.response.streamed, third.response.note) == (True, None), "the step decides"
    await bench.ask(COMPATIBLE.reply(streamed=False, change=put(None, "usage")), settings={})
    for _ in range(2):
        again = await bench.ask(UNMETERED, settings={})
        assert again.response.streamed, "nothing is gained where no usage is told in one piece either"


async def test_tools_are_offered_in_one_piece_until_a_server_has_shown_what_it_streams(bench: Bench) -> None:
    answer = await bench.ask(WHOLE(calls=True), tools=[LOOK], settings={})
    assert [call["function"]["name"] for call in answer.response.tool_calls] == ["look"]
    assert (answer.response.streamed, answer.response.finish_reason) == (False, "tool_call")
    assert (
        answer.response.note
        == "asked without streaming: the server may not report tool calls while it streams"
    )
    assert bench.fake.requests[0].get("stream", False) is False
    await bench.ask(REPLY("Hi"), settings={})
    again = await bench.ask(REPLY("Hi"), tools=[LOOK], settings={})
    assert (again.response.streamed, again.response.note) == (True, None)


NO_STREAM = "no stream came, but an answer in one piece"


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (error_reply(400, "stream is not supported"), "PROVIDER_ERROR", "stream is not supported"),
        (WHOLE("xx"), "PROVIDER_UNAVAILABLE", NO_STREAM),
        (WHOLE("x" * 100_000), "PROVIDER_UNAVAILABLE", NO_STREAM),
    ],
    ids=["it declines", "it passes over the wish", "it does so at length"],
)
async def test_a_server_that_does_not_stream_is_asked_in_one_piece_unless_the_step_decides(
    bench: Bench, reply: Reply, code: str, said: str
) -> None:
    answer = await bench.ask(reply, WHOLE("Hi"), settings={})
    assert answer.output == {"text": "Hi"}
    assert answer.response.note == "asked without streaming: the server does not stream"
    await bench.ask(WHOLE("Hi"), settings={})
    assert [sent.get("stream", False) for sent in bench.fake.requests] == [True, False, False]
    failure = await bench.failure(reply, settings={"stream": True})
    assert (failure.code, str(failure).endswith(said)) == (code, True)


async def test_a_step_may_ask_for_its_answer_in_one_piece(bench: Bench) -> None:
    answer = await bench.ask(
        WHOLE("Well, and then", change=put("length", "finish_reason")),
        model="local:priced",
        settings={"stream": False, "max_tokens": 30},
    )
    assert (answer.response.streamed, answer.response.note) == (False, None)
    assert (answer.response.finish_reason, answer.response.cost_usd) == ("length", PAID)
    assert answer.response.request_id == "c1"
    assert bench.fake.requests[0]["max_tokens"] == 30
    assert bench.fake.requests[0].get("stream", False) is False


async def test_the_tool_choice_reaches_the_provider(bench: Bench) -> None:
    for choice in (None, "auto", "required", {"function": {"name": "look"}}):
        await bench.ask(REPLY("Hi"), tools=[LOOK], tool_choice=choice)
    sent = [request.get("tool_choice", "auto") for request in bench.fake.requests]
    assert sent == ["auto", "auto", "required", "required"]


async def test_a_character_that_a_provider_cut_in_two_comes_whole(bench: Bench) -> None:
    answer = await bench.ask(REPLY("so \ud83d", "\ude00 glad", "\ud83d"))
    assert answer.output == {"text": "so 😀 glad�"}
    assert bench.pieces == ["so ", "😀 glad", "�"]


async def test_half_a_character_in_an_object_or_a_tool_call_is_replaced(bench: Bench) -> None:
    answer = await bench.ask(REPLY('{"grade": 3, "why": "\\ud83d"}'), output_schema=GRADE)
    assert answer.output == {"grade": 3, "why": "�"}
    reply = COMPATIBLE.reply(calls=True, change=put('"\ud83d"', "arguments"))
    answer = await bench.ask(reply, tools=[LOOK])
    assert answer.response.tool_calls[0]["function"]["arguments"] == '"�"'
    assert msgspec.json.encode(answer.response.tool_calls)


def test_a_key_that_a_provider_s_client_complains_of_is_struck_out() -> None:
    failure = setup_failure(ValueError(f"bad key {KEY}"), model="x:y", secrets=[KEY])
    assert KEY not in str(failure)


async def test_a_call_cut_off_while_its_client_is_made_leaves_one_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that makes a client goes on; the next call takes what it made, and no other waits for it."""
    made: list[str] = []
    begun, slow = threading.Event(), threading.Event()
    new_provider = ProviderClients.new_provider

    def making(self: ProviderClients, name: str) -> Any:
        made.append(name)
        if name == "slow":
            begun.set()
            slow.wait(60)
        return new_provider(self, name)

    monkeypatch.setattr(ProviderClients, "new_provider", making)
    addresses = dict.fromkeys(["slow", "quick"], "http://127.0.0.1:9/v1")
    clients = ProviderClients(Settings(providers=addresses))
    first = asyncio.create_task(clients.prepared("slow:a"))
    await asyncio.to_thread(begun.wait, 60)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    others = [asyncio.create_task(clients.prepared(model)) for model in ("slow:a", "slow:b")]
    assert (await clients.prepared("quick:a")).model.model_name == "a"
    slow.set()
    prepared = await asyncio.gather(*others)
    assert made == ["slow", "quick"]
    assert prepared[0].model.provider is prepared[1].model.provider
    assert await clients.prepared("slow:a") is prepared[0]
    await clients.aclose()


async def test_a_client_that_could_not_be_made_is_made_for_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clients = ProviderClients(Settings(providers={"local": "http://127.0.0.1:9/v1"}))
    with monkeypatch.context() as patch:
        patch.setattr(ProviderClients, "new_provider", lambda *_: 1 / 0)
        with pytest.raises(StepFailure, match="division by zero"):
            await clients.prepared("local:a")
    assert (await clients.prepared("local:a")).model.model_name == "a"
    await clients.aclose()


def test_a_missing_package_is_named() -> None:
    missing = ImportError('use the `x` optional group — `pip install "pydantic-ai-slim[some-extra]"`')
    failure = setup_failure(missing, model="some:model")
    assert (failure.code, failure.may_retry) == ("MODEL_NOT_SUPPORTED", False)
    assert '"pydantic-ai-slim[some-extra]"' in str(failure)
