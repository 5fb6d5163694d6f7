"""What a trace tells of each request to a model is what its provider got: a real server writes that down."""

import json
import socket
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from openai import AsyncOpenAI
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from runglass.config.settings import Settings
from runglass.engine.journal.run_spec import ToolOffer
from runglass.engine.models.answer_bounds import ProviderCall, current_call
from runglass.engine.models.gateway import ModelCallFailed, ModelRequest
from runglass.engine.models.provider_clients import ProviderClients
from runglass.engine.models.request_parser import as_sent
from runglass.engine.steps.call_recorder import HIDDEN
from runglass.wire.run_api import Attachment
from tests.unit.engine.bench import HELLO, Bench, bench_with, open_engine_bench
from tests.unit.engine.fake_provider import (
    CALL,
    COMPATIBLE,
    FAMILIES,
    KEY,
    LOOK,
    Family,
    Reply,
    error_reply,
    in_one,
)

bench = bench_with()
SCHEMA = {
    "type": "object",
    "properties": {"grade": {"type": "integer"}, "why": {"type": "string", "description": "A reason"}},
    "required": ["grade"],
}
OBJECT = '{"grade":1,"why":"so"}'
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the sea?"},
    {"role": "assistant", "content": "I look.", "toolCalls": [CALL]},
    {"role": "tool", "toolCallId": CALL["id"], "content": "blue"},
    {"role": "assistant", "content": "It is blue."},
]
# Google's library fetches images of any other address by itself, and sends their bytes.
IMAGE = "https://generativelanguage.googleapis.com/v1beta/files/cat"

GREETING = {"role": "user", "content": "Greet Ada"}
SAID: dict[str, list[dict[str, Any]]] = {
    "history": [*HISTORY, GREETING],
    "attachments": [GREETING | {"attachments": [{"url": IMAGE}]}],
}
"""The conversation in the words of OpenAI, to which its library adds nothing."""

NO_SCHEMA = error_reply(400, "response_format json_schema is not known here")

TALK = ("system", "systemInstruction", "instructions", "messages", "input", "contents")
"""Where the bodies of providers have what is said."""
ROLES = {
    "history": ["user", "assistant", "tool", "assistant", "user"],
    "tools": ["user", "assistant", "tool"],
}
"""Who speaks in the last request of a case; in the others the user alone does."""


def values(value: Any) -> Counter[str]:
    """Everything that a part of a request says, but of which kind each part is, and who says it."""
    if isinstance(value, dict):
        inner = [each for name, each in value.items() if name not in ("type", "role")]
        return sum(map(values, inner), Counter[str]())
    if isinstance(value, list):
        return sum(map(values, value), Counter[str]())
    if isinstance(value, str) and value.startswith("{"):
        # The arguments of a tool, which some providers are sent as text.
        return values(json.loads(value))
    if value is None:
        return Counter()
    # Some providers are sent texts one by one that others get as one.
    return Counter(value.split("\n\n") if isinstance(value, str) else [repr(value)])


def told_values(told: dict[str, Any]) -> list[Counter[str]]:
    """What a trace tells of a request: of what is said, of tools, of their choice, and the rest."""
    said, rest = [told.get("system"), told["messages"]], [told.get("settings"), told.get("outputSchema")]
    return [values(each) for each in (said, told.get("tools"), told.get("toolChoice"), rest)]


def sent_values(body: dict[str, Any]) -> list[Counter[str]]:
    """The same of the body that a provider got."""
    rest = dict(body)
    said = [rest.pop(name, None) for name in TALK]
    choice = [rest.pop(name, None) for name in ("tool_choice", "toolConfig")]
    return [values(each) for each in (said, rest.pop("tools", None), choice, rest)]


CASES: dict[str, Callable[[Family], list[Reply]]] = {
    "plain": lambda family: [family.reply()],
    "schema": lambda family: [family.reply(OBJECT)],
    "tools": lambda family: [
        # A server of one's own is asked in one piece until it has shown what it streams.
        family.reply(text, calls=not text, streamed=not family.model.startswith("local:"))
        for text in ("", "It is blue")
    ],
    "history": lambda family: [family.reply()],
    "attachments": lambda family: [family.reply()],
    "retry": lambda family: [error_reply(500, "an accident"), family.reply()],
    "stream declined": lambda family: [error_reply(400, "no stream here"), family.reply(streamed=False)],
    "stream passed over": lambda family: [
        family.reply("Hello" * 10_000, streamed=False),
        family.reply(streamed=False),
    ],
    "form declined": lambda family: [NO_SCHEMA, family.reply(OBJECT)],
}
# Mistral is asked for an object in one form only.
TRIED = [each for each in product(FAMILIES, CASES) if each != ("mistral", "form declined")]


@pytest.mark.parametrize(("family", "case"), TRIED)
async def test_what_is_told_of_a_request_is_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, case: str
) -> None:
    settings: dict[str, Any] = {"temperature": 0.5, "max_tokens": 300}
    # Mistral's library sends none.
    headers = {} if family == "mistral" else {"extra_headers": {"X-Title": "not to be told"}}
    step = {
        "id": "ask",
        "type": "llm",
        "model": FAMILIES[family].model,
        "system": "Be kind.",
        "prompt": "Greet {{ who }}",
        "settings": settings | headers,
        "retry": {"max_attempts": 2, "initial_delay_ms": 0},
    }
    if case in ("schema", "form declined"):
        step["output_schema"] = SCHEMA
    async with open_engine_bench(tmp_path, monkeypatch) as bench:
        ran = await bench.run(
            f"- {json.dumps(step)}",
            *CASES[case](FAMILIES[family]),
            inputs={"who": "Ada"},
            history=HISTORY if case == "history" else [],
            attachments=[Attachment(url=IMAGE, mime_type="image/png")] if case == "attachments" else [],
            offer=ToolOffer(tools=[LOOK], choice="auto") if case == "tools" else None,
        )
    fake = bench.fake
    assert all(KEY in "".join(sent.values()) for sent in fake.headers), "the key of the settings"
    told = [call.request for call in ran.calls]
    for request, body in zip(told, fake.requests, strict=True):
        assert request is not None
        assert request["settings"].pop("extra_headers", {}) == dict.fromkeys(headers and ["X-Title"], HIDDEN)
        assert told_values(request) == sent_values(body)
    last = told[-1] or {}
    # In words the form is asked for where the family's library puts them.
    if case != "form declined":
        assert "Be kind." in last["system"]
        assert [message["role"] for message in last["messages"]] == ROLES.get(case, ["user"])
    if family == "compatible" and case in SAID:
        assert last["messages"] == SAID[case]
    # Mistral is told the schema in words.
    if case == "schema" and family != "mistral":
        assert last["outputSchema"]["required"] == SCHEMA["required"]
    assert ran.outcome.status == "completed"
    assert not fake.replies


async def test_a_form_that_no_server_has_declined_is_kept_for_other_requests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: Any, *more: Any, **options: Any) -> Any:
        if host == "schema.invalid":
            raise socket.gaierror("no such name")
        return known(host, *more, **options)

    known, observer = socket.getaddrinfo, AsyncMock()
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    google = FAMILIES["google"]
    # Servers that do not know the form of the output say such words.
    image = {"url": "https://schema.invalid/a.png", "mimeType": "image/png"}
    messages = [HELLO[0] | {"attachments": [image]}]
    unfit = ModelRequest(model=google.model, messages=messages, output_schema=SCHEMA)
    with pytest.raises(ModelCallFailed, match=r"could not be asked.*schema\.invalid") as caught:
        await bench.models.complete(unfit, lambda text: None, observer=observer)
    assert (caught.value.code, observer.mock_calls, bench.fake.requests) == ("INVALID_INPUT", [], [])
    # Its library does not send tools and the form together.
    for tools in ([], [LOOK], []):
        await bench.ask(google.reply(OBJECT), model=google.model, output_schema=SCHEMA, tools=tools)
    forms = ["responseJsonSchema" in body["generationConfig"] for body in bench.fake.requests]
    assert forms == [True, False, True]


async def test_of_a_library_that_hides_its_requests_what_pydantic_ai_prepared_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"id": "ask", "type": "llm", "model": "local:tiny", "system": "Be kind.", "prompt": "Hi"}
    step_text = f"- {json.dumps(step | {'output_schema': SCHEMA})}"
    async with open_engine_bench(tmp_path, monkeypatch) as bench:
        fake = bench.fake
        hidden = AsyncOpenAI(base_url=fake.base_url, api_key=KEY)
        ordinary = ProviderClients(Settings(providers={"local": fake.base_url})).new_provider("local")
        profile = ordinary._configured_model_profile  # noqa: SLF001
        provider = OpenAICompatibleProvider("local", openai_client=hidden, profile=profile)
        monkeypatch.setattr(ProviderClients, "new_provider", lambda clients, name: provider)
        ran = await bench.run(step_text, NO_SCHEMA, COMPATIBLE.reply(OBJECT))
        await hidden.close()
    assert ran.outcome.status == "completed"
    for call, body in zip(ran.calls, fake.requests, strict=True):
        told = call.request or {}
        (system, *_), response_format = body["messages"], body["response_format"]
        assert "Always respond with a JSON object" in system["content"]
        assert told["system"].split() == system["content"].split()
        assert told.get("outputSchema") == response_format.get("json_schema", {}).get("schema")


async def test_a_login_that_is_renewed_on_the_way_is_told_to_nobody(bench: Bench) -> None:
    observer, fake = AsyncMock(), bench.fake
    token = current_call.set(ProviderCall("local:tiny", observer, is_streamed=False))
    clients = ProviderClients(Settings(providers={"local": fake.base_url}))
    library: AsyncOpenAI = (await clients.prepared("local:tiny")).model.provider.client  # type: ignore[union-attr]
    elsewhere = fake.base_url.replace("127.0.0.1", "localhost")
    for address in (elsewhere, fake.base_url):
        fake.replies.append(in_one({}))
        await library.post(f"{address}/token", cast_to=object, body={"refresh_token": KEY})
    await clients.aclose()
    current_call.reset(token)
    assert len(fake.requests) == 2
    ((heard, (read, _), _),) = observer.mock_calls
    told = {"messages": [], "settings": {"refresh_token": KEY}}
    assert (heard, read()) == ("sent", told), "at the model's address"


TEXT, CACHED = {"type": "text", "text": "Look"}, {"cache_control": {"type": "ephemeral"}}
REASONING = {"type": "reasoning", "id": "r1", "summary": []}
RESULT = {"type": "tool_result", "tool_use_id": "c"}
BYTES = {"data": "iVBO", "mimeType": "image/png"}
ANY = {"functionCallingConfig": {"mode": "ANY"}}
PNG: dict[str, Any] = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
}
NOT_OURS: dict[str, Any] = {
    "system": [TEXT | CACHED],
    "messages": [{"role": "user", "content": [TEXT | CACHED]}],
}
IN_ORDER: dict[str, Any] = {"role": "user", "content": [TEXT, PNG]}
OWN_ORDER: dict[str, Any] = {"role": "user", "content": [PNG, TEXT]}
BODIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "what is more than text stays as it was sent": (NOT_OURS, NOT_OURS),
    "parts in an order of their own stay as they were sent": (
        {"messages": [OWN_ORDER, IN_ORDER]},
        {"messages": [OWN_ORDER, {"role": "user", "content": "Look", "attachments": [PNG["source"]]}]},
    ),
    "results of tools are messages, and the rest around a schema is a setting": (
        {
            "messages": [{"role": "user", "content": [RESULT, TEXT]}],
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        },
        {
            "messages": [{"role": "tool", "toolCallId": "c"}, {"role": "user", "content": "Look"}],
            "settings": {"output_config": {"effort": "low", "format": {"type": "json_schema"}}},
            "outputSchema": SCHEMA,
        },
    ),
    "an image that Google's library has fetched": (
        {"contents": [{"role": "user", "parts": [{"inlineData": BYTES}]}], "toolConfig": ANY},
        {"messages": [{"role": "user", "attachments": [BYTES]}], "toolChoice": ANY},
    ),
    "an item of another kind": (
        {"input": [REASONING, {"role": "user", "content": "Hi"}]},
        {"messages": [REASONING, {"role": "user", "content": "Hi"}]},
    ),
    "a body of an unknown kind": (
        {"messages": "no list", "n": 1},
        {"settings": {"body": '{"messages": "no list", "n": 1}'}},
    ),
}


@pytest.mark.parametrize("what", BODIES)
def test_nothing_of_a_body_is_lost(what: str) -> None:
    body, told = BODIES[what]
    assert as_sent(json.dumps(body).encode()) == told
