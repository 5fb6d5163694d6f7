"""Spans of every dialect are read into our words, their tokens add up, and nothing of them is lost."""

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from runglass.log.trace import ModelCall
from runglass.recording.dialects import interpret, interpret_log
from runglass.recording.dialects.messages import messages_of, response_of, system_of, tools_of, without_system
from runglass.recording.dialects.synonyms import INDEXED, SYNONYMS
from runglass.recording.otlp import Signal
from runglass.recording.received import ReceivedLog, ReceivedSpan, Refused, SpanLink
from tests.emitters import fixtures
from tests.otlp_standard import items_of
from tests.records import there
from tests.unit.recording.emitted import START_NS, log, span

Json = dict[str, Any]
CASES: dict[str, Json] = YAML(typ="safe").load(Path(__file__).with_name("dialects.yaml"))
del CASES["shared"]


def told(sent: ReceivedSpan | ReceivedLog) -> dict[str, Any]:
    """The state as it stands in the log."""
    state = interpret(sent) if isinstance(sent, ReceivedSpan) else interpret_log(sent)
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(state))
    return found


def as_sent(attributes: Json) -> Json:
    """With JSON texts in place of objects."""

    def is_object(value: Any) -> bool:
        return isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict))

    return {key: json.dumps(value) if is_object(value) else value for key, value in attributes.items()}


def call_of(attributes: Json, **about: Any) -> ModelCall:
    """The model call that a span with these attributes is."""
    return interpret(span(attributes, **about)).model_calls[0]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_span_is_read_into_our_words(case: Json) -> None:
    assert case.keys() <= {"sent", "span", "events", "log", "state", "call"}
    about = case.get("span", {})
    about["links"] = [SpanLink(*link) for link in about.get("links", ())]
    events = [(name, as_sent(attributes)) for name, attributes in case.get("events", ())]
    sent = log(**case["log"]) if "log" in case else span(as_sent(case["sent"]), *events, **about)
    state = told(sent)
    call = state.get("modelCalls", [{}])[0]
    assert {name: state.get(name) for name in case["state"]} == case["state"]
    assert {name: call.get(name) for name in case.get("call", {})} == case.get("call", {})


def sent_by(row: str) -> Iterator[tuple[str, ReceivedSpan | ReceivedLog]]:
    """All that a library has sent, each with the name of its case."""
    for case in fixtures.read(row).cases:
        for path, headers, body in case.exports:
            if not path.endswith("/metrics"):
                body = gzip.decompress(body) if "Content-Encoding" in headers else body
                signal: Signal = "logs" if path.endswith("/logs") else "traces"
                for item in items_of(body, signal, is_json="json" in headers.get("Content-Type", "")):
                    if not isinstance(item, Refused):
                        yield case.name, item


QUESTION = re.compile("What is the weather|weather of Oslo and Lima")
KEPT = {("genai-langchain", "gen_ai.prompt.variable.question")}
"""What has the question in it and is told beside the messages."""
PARTS = {
    ("google-adk", "tool"),
    ("strands", "tool"),
    ("strands-latest", "tool"),
    ("openinference-anthropic", "assistant"),
}
"""Whose messages have content that is more than a text."""


@pytest.mark.parametrize("row", fixtures.names())
def test_the_messages_of_every_library_are_read_into_one_shape(row: str) -> None:
    asked, tools = set(), []
    for case, sent in sent_by(row):
        state = told(sent)
        if state.get("kind") == "tool" and case == "tools" and "input" in state:
            tools.append((state["input"], state.get("output")))
        for call in state.get("modelCalls", ()):
            left = [
                (row, key)
                for key, value in state.get("attributes", {}).items()
                if QUESTION.search(str(value))
            ]
            assert {*left} <= KEPT
            response = call.get("response")
            given = call.get("request", {}).get("messages", [])
            asked |= {str(message.get("content")) for message in given if message["role"] == "user"}
            for message in [*given, *([response, *response.get("choices", ())] if response else ())]:
                role, content = message["role"], message.get("content")
                assert role in ("user", "assistant", "tool", "system", "tool-call", "tool-response")
                assert content is None or type(content) is str or (row, role) in PARTS
                for each in message.get("toolCalls", ()):
                    assert each.keys() == {"id", "type", "function"}
                    assert each["function"].keys() == {"name", "arguments"}
                    assert isinstance(json.loads(each["function"]["arguments"]), dict)
    assert any(map(QUESTION.search, asked)), "the question is in the request"
    for given, result in tools:
        assert (city := re.search("Oslo|Lima", str(given)))
        assert city[0] in str(result)


FORMS = {
    "the conventions": "gen_ai.usage.{} input_tokens output_tokens total_tokens cache_read.input_tokens"
    " cache_write.input_tokens reasoning.output_tokens",
    "the conventions, before": "gen_ai.usage.{} prompt_tokens completion_tokens total_tokens"
    " cache_read_input_tokens cache_creation_input_tokens reasoning_tokens",
    "OpenInference": "llm.token_count.{} prompt completion total prompt_details.cache_read"
    " prompt_details.cache_write completion_details.reasoning",
    "the AI SDK": "ai.usage.{} inputTokens outputTokens totalTokens cachedInputTokens"
    " inputTokenDetails.cacheWriteTokens reasoningTokens",
}


def usage(dialect: str, *counts: Any, model: str = "m", provider: str | None = None) -> Json:
    """Prompt, completion, total, cache read, cache write and reasoning, as far as they are not None."""
    form, *names = FORMS[dialect].split()
    sent = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model, "gen_ai.provider.name": provider}
    sent |= zip(map(form.format, names), counts, strict=False)
    return {name: value for name, value in sent.items() if value is not None}


@pytest.mark.parametrize("dialect", FORMS)
@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        # The input has the cached tokens in it, or it has not: the total shows it, or else the numbers.
        ((100, 20, 120, 40, 10, 5), (100, 40, 10, 20)),
        ((100, 20, None, 40, 10, 5), (100, 40, 10, 20)),
        ((100, 20, 170, 40, 10, 5), (150, 40, 10, 20)),
        ((7, 20, None, 16_399, 0), (16_406, 16_399, None, 20)),
        ((7, 20, 27, 16_399, 10), (16_416, 16_399, 10, 20)),
        ((100, 20), (100, None, None, 20)),
        ((100.0, 20), (100, None, None, 20)),
        # What is not told, and follows.
        ((100, None, 120), (100, None, None, 20)),
        ((None, 20, 120), (100, None, None, 20)),
        # Gemini has its reasoning beside the completion.
        ((100, 12, 120, None, None, 8), (100, None, None, 20)),
    ],
)
def test_the_parts_of_a_prompt_are_the_prompt(
    dialect: str, counts: tuple[Any, ...], tokens: tuple[int | None, ...]
) -> None:
    call = call_of(usage(dialect, *counts))
    read = there(call.tokens)
    assert (read.prompt, call.cached_tokens, call.cache_write_tokens, read.completion) == tokens
    assert read.total == read.prompt + read.completion
    assert call.note is None


@pytest.mark.parametrize("dialect", FORMS)
@pytest.mark.parametrize(
    ("counts", "note"),
    [
        ((-1, 20), "prompt tokens are -1"),
        ((1.5, 20), "prompt tokens are 1.5"),
        (("many", 20), "prompt tokens are 'many'"),
        ((True, 20), "prompt tokens are True"),
        ((10**30, 20), "prompt tokens are 1000000000000000000000000000000"),
        ((100, 20, None, None, None, 30), "30 reasoning of 20 completion tokens"),
        ((None, 20, 10), "a total of 10 tokens with 20"),
    ],
)
def test_numbers_that_cannot_be_right_are_said_and_not_booked(
    dialect: str, counts: tuple[Any, ...], note: str
) -> None:
    sent = usage(dialect, *counts)
    state = interpret(span(sent))
    call = state.model_calls[0]
    assert (call.tokens, call.cost_usd, call.cost_unknown, call.note) == (None, None, "bad_usage", note)
    assert state.tokens is None
    # They stay to be looked at.
    assert sent.items() - there(state.attributes).items() == {
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "m"),
    }


@pytest.mark.parametrize("dialect", FORMS)
def test_what_is_not_told_is_not_zero(dialect: str) -> None:
    nothing = call_of(usage(dialect))
    assert (nothing.tokens, nothing.cost_unknown, nothing.note) == (None, "no_usage", None)
    zeros = call_of(usage(dialect, 0, 0, 0))
    assert (zeros.tokens, zeros.cost_unknown) == (None, "no_usage")
    half = call_of(usage(dialect, 100))
    assert (half.tokens, half.cost_unknown) == (None, "no_usage")
    assert half.note == "of the tokens only 100 prompt are told"
    wrong = call_of(usage(dialect, 100, 20, 130))
    assert (there(wrong.tokens).total, wrong.note) == (120, "a total of 130 tokens is told, and 100 + 20")


def test_an_emitter_that_passes_numbers_through_is_known() -> None:
    sent = usage("the conventions, before", 100, 20, None, 40, 10, model="claude-sonnet-4-5")
    by_spec = call_of(sent, scope="opentelemetry.instrumentation.anthropic")
    raw = call_of(sent, scope="strands.telemetry.tracer")
    assert (there(by_spec.tokens).prompt, there(raw.tokens).prompt) == (100, 150)


def test_writes_for_an_hour_have_their_own_price() -> None:
    sent = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 0,
        "gen_ai.usage.cache_creation.ephemeral_5m_input_tokens": 300,
        "gen_ai.usage.cache_creation.ephemeral_1h_input_tokens": 600,
    }
    call = call_of(sent)
    # 100 x 3 + 300 x 3.75 + 600 x 6 for a million.
    assert (call.cache_write_tokens, call.cost_usd) == (900, "0.005025")


@pytest.mark.parametrize(
    ("provider", "price_id", "model"),
    [
        ("openai", "openai", "gpt-4o-mini"),
        ("azure.ai.openai", "azure", "gpt-4o"),
        ("aws.bedrock", "aws", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
        ("gcp.vertex_ai", "google", "gemini-2.5-pro"),
        ("gcp.gemini", "google", "gemini-2.5-flash"),
        ("mistral_ai", "mistral", "mistral-large-latest"),
        ("x_ai", "x-ai", "grok-4"),
        ("deepseek", "deepseek", "deepseek-chat"),
        ("groq", "groq", "llama-3.3-70b-versatile"),
        ("cohere", "cohere", "command-r-plus"),
        ("strands-agents", "anthropic", "claude-sonnet-4-5"),
        ("langchain", "openai", "gpt-4.1"),
    ],
)
@pytest.mark.parametrize("prompt", [1_000, 300_000])
def test_a_cost_is_that_of_the_list(provider: str, price_id: str, model: str, prompt: int) -> None:
    call = call_of(usage("the conventions", prompt, 50, None, 100, 200, model=model, provider=provider))
    counts = PricedUsage(input_tokens=prompt, output_tokens=50, cache_read_tokens=100, cache_write_tokens=200)
    # There are prices that change with the time of day.
    began = datetime.fromtimestamp(START_NS / 10**9, UTC)
    listed = calc_price(counts, model, provider_id=price_id, genai_request_timestamp=began)
    assert Decimal(there(call.cost_usd)) == listed.total_price


@pytest.mark.parametrize(
    ("sent", "cost"),
    [
        ({"gen_ai.usage.cost": 0.1}, "0.1"),
        ({"gen_ai.usage.cost": "0.000000000012"}, "0.000000000012"),
        ({"gen_ai.usage.cost": 1e-7}, "0.0000001"),
        ({"operation.cost": 2}, "2"),
        ({"llm.cost.prompt": 0.1, "llm.cost.completion": 0.2}, "0.3"),
        ({"langfuse.observation.cost_details": '{"input": 0.1, "output": 0.2, "total": 0.4}'}, "0.4"),
        ({"gen_ai.usage.cost.amount": 0.5, "gen_ai.usage.cost.currency": "USD"}, "0.5"),
        ({"gen_ai.usage.cost.amount": 0.5, "gen_ai.usage.cost.currency": "EUR"}, "0.000027"),
        # A sender that does not know the price.
        ({"gen_ai.usage.cost": 0}, "0.000027"),
        ({"gen_ai.usage.cost": float("nan")}, "0.000027"),
        ({"gen_ai.usage.cost": -1}, "0.000027"),
        ({"gen_ai.usage.cost": "1e999999"}, "0.000027"),
        ({"gen_ai.usage.cost": "much"}, "0.000027"),
    ],
)
def test_a_cost_that_is_told_is_taken_exactly(sent: dict[str, Any], cost: str) -> None:
    told_usage = usage("the conventions", 100, 20, model="gpt-4o-mini", provider="openai")
    state = interpret(span(told_usage | sent))
    call = state.model_calls[0]
    assert (call.cost_usd, state.cost_usd) == (cost, cost)
    assert call.list_cost_usd == (None if cost == "0.000027" else "0.000027")


def test_the_price_of_nothing_is_no_price() -> None:
    sent = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini", "operation.cost": 0.0}
    call = call_of(sent)
    assert (call.cost_usd, call.cost_unknown) == (None, "no_usage")
    local = call_of(usage("the conventions", 100, 20, provider="ollama") | {"operation.cost": 0})
    assert (local.cost_usd, local.cost_unknown) == ("0", None)


def test_a_model_without_a_price_says_so() -> None:
    for provider in ("ollama", "openai"):
        call = call_of(usage("the conventions", 100, 20, provider=provider))
        assert (call.cost_usd, call.cost_unknown) == (None, "no_price")


def test_what_is_odd_is_noted() -> None:
    state = interpret(span({}, end_ns=START_NS - 5, dropped=3))
    assert state.notes == (
        "the sender dropped 3 of the attributes, events and links",
        "the span ends 5 ns before it begins",
    )


def test_what_events_say_otherwise_is_kept_beside_it() -> None:
    details = "gen_ai.client.inference.operation.details"
    said = [{"gen_ai.request.model": f"m{n}", "custom": n} for n in range(3)]
    state = interpret(span({"gen_ai.operation.name": "chat"}, *[(details, each) for each in said]))
    assert state.model_calls[0].model == "m0"
    assert state.attributes == {
        "custom": 0,
        "custom.2": 1,
        "custom.3": 2,
        "gen_ai.request.model": "m1",
        "gen_ai.request.model.2": "m2",
    }


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * 100_000,
        "[" * 500 + "]" * 500,
        '{"a":' * 300 + "1" + "}" * 300,
        "[1e999]",
        '["\\ud800"]',
        "[NaN]",
        "{" * 50,
    ],
)
def test_hostile_json_stays_an_attribute(hostile: str) -> None:
    state = interpret(span({"gen_ai.operation.name": "chat", "gen_ai.input.messages": hostile}))
    assert state.attributes == {"gen_ai.input.messages": hostile}


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


KEYS = st.sampled_from(
    [
        *SYNONYMS,
        *(
            f"{family}.{rest}"
            for family in INDEXED
            for rest in ("0", "0.role", "0.message.role", "1.message.content")
        ),
        *(
            f"{family}.0.{rest}"
            for family in INDEXED
            for rest in ("message.contents.0.message_content.text", "x.1.y")
        ),
        "llm.input_messages.0.message.tool_calls.0.tool_call.function.arguments",
        "logfire.span_type",
        "logfire.pending_parent_id",
        "gen_ai.unknown",
        "http.method",
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            words(
                "role content parts type text tool_calls function name id arguments kwargs lc toolUse message"
                " choices messages generations usage_metadata contents input total finish_reason image x"
                " tool_call tool-result output"
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
VALUES = (
    JSON
    | JSON.map(json.dumps)
    | st.sampled_from(
        ["chat", "pending_span", "LLM", "invoke_agent", "execute_tool", "retrieval", "USD", "text"]
    )
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=12)
EVENTS = st.lists(
    st.tuples(
        words(
            "gen_ai.user.message gen_ai.tool.message gen_ai.choice exception x"
            " gen_ai.client.inference.operation.details"
        ),
        st.dictionaries(
            st.sampled_from(
                ["content", "message", "id", "role", "index", "finish_reason", "gen_ai.input.messages"]
            ),
            VALUES,
            max_size=3,
        ),
    ),
    max_size=3,
)


@given(
    attributes=ATTRIBUTES,
    events=EVENTS,
    status=st.integers(-1, 4),
    times=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    model=st.none() | words("gpt-4o-mini deepseek-chat claude-sonnet-4-5"),
)
def test_any_span_is_read(
    attributes: dict[str, Any], events: Any, status: int, times: tuple[int, int], model: str | None
) -> None:
    attributes |= {} if model is None else {"gen_ai.request.model": model}
    sent = span(attributes, *events, status=status, start_ns=times[0], end_ns=times[1])
    before = json.dumps(sent)
    state = told(sent)
    assert json.dumps(sent) == before, "the same attributes may be read by others"
    for call in state.get("modelCalls", []):
        if "tokens" in call:
            assert call["tokens"]["prompt"] >= call.get("cachedTokens", 0) + call.get("cacheWriteTokens", 0)
            assert call["tokens"]["completion"] >= call.get("reasoningTokens", 0)


@given(
    name=st.sampled_from(["gen_ai.user.message", "gen_ai.tool.message", "gen_ai.choice", "exception", ""])
    | st.just("gen_ai.client.inference.operation.details"),
    body=JSON,
    attributes=ATTRIBUTES,
)
def test_any_log_is_read(name: str, body: Any, attributes: dict[str, Any]) -> None:
    assert "name" not in told(log(name, body, attributes))


@given(sent=st.lists(JSON, max_size=4), role=words("user assistant tool"))
def test_any_message_is_read(sent: list[Any], role: str) -> None:
    read = messages_of(sent, role)
    assert all("role" in message for message in read)
    msgspec.json.encode([read, response_of(sent), system_of(sent), tools_of(sent), without_system(read)])


MEASURE = re.compile("token|cost|cache|^(prompt|completion|total)$")
"""The slots of numbers that are added up, or put into another unit."""
MARKED = st.dictionaries(
    KEYS.filter(lambda key: not key.startswith("logfire.")),
    st.sampled_from(["text", "json", "messages", "object", "number"]),
    min_size=1,
    max_size=12,
)


@given(
    forms=MARKED,
    kind=words("chat invoke_agent execute_tool retrieval embeddings x"),
    events=st.lists(
        words("gen_ai.user.message gen_ai.system.message gen_ai.tool.message gen_ai.choice exception"),
        max_size=3,
    ),
)
def test_nothing_that_was_sent_is_lost(forms: dict[str, str], kind: str, events: list[str]) -> None:
    """Each value has a mark of its own; wherever it is put, the mark is in the state."""
    sent: dict[str, Any] = {}
    for n, (key, form) in enumerate(forms.items()):
        mark = f"mark{n}mark"
        sent[key] = {
            "text": mark,
            "json": json.dumps([mark]),
            "messages": json.dumps([{"role": "user", "content": mark, "name": f"{mark}+"}]),
            "object": json.dumps({"model": mark, "x": [f"{mark}+"]}),
            "number": 7_000_000_000 + n,
        }[form]
    said = [
        (name, {"message" if name == "gen_ai.choice" else "content": f"said{n}"})
        for n, name in enumerate(events)
    ]
    state = json.dumps(told(span({"gen_ai.operation.name": kind} | sent, *said)), ensure_ascii=False)
    for n, name in enumerate(events):
        assert f"said{n}" in state, name
    for n, (key, form) in enumerate(forms.items()):
        if key == "gen_ai.operation.name":
            continue
        if form != "number":
            assert f"mark{n}mark" in state, key
        elif SYNONYMS.get(key) is None or not MEASURE.search(SYNONYMS[key].slot):
            assert str(7_000_000_000 + n) in state, key
