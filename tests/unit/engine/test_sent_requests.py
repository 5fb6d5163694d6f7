"""What a trace tells of each request to a model is what its provider got: a real server writes that down."""

import json
import socket
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from runglass.config.settings import Settings
from runglass.engine.journal.run_spec import Segment, ToolOffer
from runglass.engine.models.answer_bounds import ProviderCall, current_call
from runglass.engine.models.gateway import ModelCallFailed, ModelGateway, ModelRequest
from runglass.engine.models.provider_clients import ProviderClients
from runglass.engine.models.request_parser import as_sent
from runglass.engine.steps.call_recorder import HIDDEN
from runglass.flows.parser import parse_flow
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.run_api import Attachment
from tests.unit.engine.conftest import Ran, open_harness, read, resume, start
from tests.unit.engine.fake_provider import LOOK, FakeProvider, error_reply
from tests.unit.engine.provider_families import CALL, FAMILIES, KEY, addressed, chat_stream, in_one

SCHEMA = {
    "type": "object",
    "properties": {"grade": {"type": "integer"}, "why": {"type": "string", "description": "A reason"}},
    "required": ["grade"],
}
OBJECT = '{"grade":1,"why":"so"}'
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the sea?"},
    {"role": "assistant", "content": "I look.", "toolCalls": [CALL]},
    {"role": "tool", "toolCallId": "abcdefgh1", "name": "look", "content": "blue"},
    {"role": "assistant", "content": "It is blue."},
]
# Google's library fetches images of any other address by itself, and sends their bytes.
IMAGE = "https://generativelanguage.googleapis.com/v1beta/files/cat"

Fact = tuple[Any, ...]
"""A place in a request, neutral between providers, and the value that is there."""


def leaves(value: Any, *place: Any) -> Iterator[Fact]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, *place, name)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from leaves(inner, *place, at)
    else:
        yield (*place, value)


def told_facts(request: dict[str, Any]) -> Iterator[Fact]:
    """What a trace tells of a request."""
    yield from leaves(request.get("system", []), "system")
    for message in request["messages"]:
        yield from message_facts(**message)
    for name in ("tools", "toolChoice", "outputSchema", "settings"):
        yield from leaves(request.get(name, {}), name)


def message_facts(
    role: str,
    content: Any = None,
    toolCalls: Any = (),
    toolCallId: Any = None,
    attachments: Any = (),
    **more: Any,
) -> Iterator[Fact]:
    if toolCallId is not None:
        yield (role, "answers", toolCallId)
    if content is not None:
        yield from leaves(content, role, "text")
    for image in attachments:
        yield from leaves(image, role, "image")
    for call in toolCalls:
        function = call["function"]
        yield (role, "call", call["id"], function["name"], json.loads(function["arguments"]))
        more_of_call = {name: call[name] for name in call.keys() - {"id", "type", "function"}}
        yield from leaves(more_of_call, role, "call")
    yield from leaves(more, role)


def pop(body: dict[str, Any], *path: str) -> Any:
    """Takes out what is at the path; None where nothing is."""
    for name in path[:-1]:
        inner = body.get(name)
        if not isinstance(inner, dict):
            return None
        body = inner
    return body.pop(path[-1], None)


def rest_facts(
    body: dict[str, Any], *schemas: tuple[str, ...], choice: str = "tool_choice"
) -> Iterator[Fact]:
    yield from leaves(pop(body, "tools") or {}, "tools")
    found = pop(body, choice)
    yield from leaves({} if found is None else found, "toolChoice")
    for path in schemas:
        yield from leaves(pop(body, *path) or {}, "outputSchema")
    yield from leaves(body, "settings")


def chat_facts(body: dict[str, Any]) -> Iterator[Fact]:
    """OpenAI chat, Groq, Mistral, and everything compatible."""
    system = [message["content"] for message in body["messages"] if message["role"] == "system"]
    yield ("system", "\n\n".join(system))
    for message in body.pop("messages")[len(system) :]:
        rest = dict(message)
        role, content, calls = rest.pop("role"), rest.pop("content", None), rest.pop("tool_calls", None) or []
        if "tool_call_id" in rest:
            yield (role, "answers", rest.pop("tool_call_id"))
        if isinstance(content, str):
            yield (role, "text", content)
        for part in content if isinstance(content, list) else []:
            if part.pop("type") == "text":
                yield from leaves(part.pop("text"), role, "text")
            else:
                image = part.pop("image_url")
                yield from leaves({"url": image} if isinstance(image, str) else image, role, "image")
            assert not part
        for call in calls:
            function = call["function"]
            yield (role, "call", call.pop("id"), function["name"], json.loads(function["arguments"]))
            yield from leaves({name: call[name] for name in call.keys() - {"type", "function"}}, role, "call")
        yield from leaves(rest, role)
    yield from rest_facts(body, ("response_format", "json_schema", "schema"), ("response_format", "schema"))


def responses_facts(body: dict[str, Any]) -> Iterator[Fact]:
    """OpenAI responses."""
    yield from leaves(body.pop("instructions", []), "system")
    for item in body.pop("input"):
        match item:
            case {"type": "function_call"}:
                arguments = json.loads(item["arguments"])
                yield ("assistant", "call", item["call_id"], item["name"], arguments)
            case {"type": "function_call_output"}:
                yield ("tool", "answers", item["call_id"])
                yield ("tool", "text", item["output"])
            case {"role": role, "content": str(text)}:
                yield (role, "text", text)
            case {"role": role, "content": parts}:
                for part in parts:
                    if part.pop("type") in ("input_text", "output_text"):
                        yield (role, "text", part.pop("text"))
                    else:
                        yield (role, "image", "url", part.pop("image_url"))
                        yield from leaves(part, role, "image")
    yield from rest_facts(body, ("text", "format", "schema"))


def anthropic_facts(body: dict[str, Any]) -> Iterator[Fact]:
    yield ("system", "\n\n".join(part["text"] for part in body.pop("system")))
    for message in body.pop("messages"):
        role, content = message["role"], message["content"]
        parts: list[dict[str, Any]] = (
            content if isinstance(content, list) else [{"type": "text", "text": content}]
        )
        for part in parts:
            match part:
                case {"type": "text"}:
                    yield (role, "text", part["text"])
                case {"type": "image"}:
                    yield from leaves(part["source"], role, "image")
                case {"type": "tool_use"}:
                    yield (role, "call", part["id"], part["name"], part["input"])
                case {"type": "tool_result"}:
                    yield ("tool", "answers", part["tool_use_id"])
                    yield ("tool", "text", "\n\n".join(block["text"] for block in part["content"]))
                    yield ("tool", "is_error", part["is_error"])
    yield from rest_facts(body, ("output_config", "format", "schema"), ("output_format", "schema"))


def google_facts(body: dict[str, Any]) -> Iterator[Fact]:
    yield ("system", "\n\n".join(part["text"] for part in pop(body, "systemInstruction", "parts")))
    for content in body.pop("contents"):
        role = {"model": "assistant"}.get(content["role"], content["role"])
        for part in content["parts"]:
            match part:
                case {"text": text}:
                    yield (role, "text", text)
                case {"fileData": data}:
                    yield (role, "image", "url", data["file_uri"])
                    yield (role, "image", "mimeType", data["mime_type"])
                case {"functionCall": call, **rest}:
                    yield (role, "call", call["id"], call["name"], call["args"])
                    yield from leaves(rest, role, "call")
                case {"functionResponse": answer}:
                    yield ("tool", "answers", answer["id"])
                    yield from leaves(answer["response"], "tool", "text")
                    yield ("tool", "name", answer["name"])
    yield from rest_facts(
        body,
        ("generationConfig", "responseJsonSchema"),
        ("generationConfig", "responseSchema"),
        choice="toolConfig",
    )


READ: dict[str, Callable[[dict[str, Any]], Iterator[Fact]]] = {
    "openai chat": chat_facts,
    "openai responses": responses_facts,
    "compatible": chat_facts,
    "anthropic": anthropic_facts,
    "google": google_facts,
    "mistral": chat_facts,
    "groq": chat_facts,
}
"""How the test reads what the provider got."""
CASES = (
    "plain",
    "schema",
    "tools",
    "history",
    "attachments",
    "retry",
    "stream declined",
    "stream passed over",
    "form declined",
)
# Mistral is asked for an object in one form only.
TRIED = [each for each in product(FAMILIES, CASES) if each != ("mistral", "form declined")]


@pytest.mark.parametrize(("family", "case"), TRIED)
async def test_what_is_told_of_a_request_is_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, case: str
) -> None:
    model, stream, whole = FAMILIES[family]
    facts = READ[family]
    settings: dict[str, Any] = {"temperature": 0.5, "max_tokens": 300}
    # Mistral's library sends none.
    headers = {} if family == "mistral" else {"extra_headers": {"X-Title": "not to be told"}}
    step = {
        "id": "ask",
        "type": "llm",
        "model": model,
        "system": "Be kind.",
        "prompt": "Greet {{ who }}",
        "settings": settings | headers,
        "retry": {"max_attempts": 2, "initial_delay_ms": 0},
    }
    replies = [stream("Hello", False)]
    if case in ("schema", "form declined"):
        step["output_schema"] = SCHEMA
        replies = [stream(OBJECT, False)]
    if case == "tools":
        # A server of one's own is asked in one piece until it has shown what it streams.
        way = whole if family == "compatible" else stream
        replies = [way("", True), way("It is blue", False)]
    if case == "retry":
        replies.insert(0, error_reply(500, "an accident"))
    if case == "stream declined":
        replies = [error_reply(400, "no stream here"), whole("Hello", False)]
    if case == "stream passed over":
        replies = [whole("Hello" * 10_000, False), whole("Hello", False)]
    if case == "form declined":
        replies.insert(0, error_reply(400, "response_format json_schema is not known here"))
    async with FakeProvider.serving() as fake:
        fake.replies.extend(replies)
        models = ModelGateway(Settings(**addressed(fake, monkeypatch)))
        ran = await run(
            tmp_path,
            models,
            step,
            history=HISTORY if case == "history" else [],
            attachments=[Attachment(url=IMAGE, mime_type="image/png")] if case == "attachments" else [],
            offer=ToolOffer(tools=[LOOK], choice="auto") if case == "tools" else None,
        )
    calls = ran.calls
    told = [call.request for call in calls]
    assert len(told) == len(fake.requests)
    for request, body in zip(told, fake.requests, strict=True):
        assert request is not None
        assert request["settings"].pop("extra_headers", {}) == dict.fromkeys(headers and ["X-Title"], HIDDEN)
        assert list(told_facts(request)) == list(facts(body))
    assert ran.outcome.status == "completed"
    assert not fake.replies


async def run(
    tmp_path: Path,
    models: ModelGateway,
    step: dict[str, Any],
    *,
    offer: ToolOffer | None = None,
    **more: Any,
) -> Ran:
    flow = parse_flow(json.dumps({"slug": "test", "steps": [step]}))
    async with open_harness(SqliteStore(tmp_path / "db", synchronous="NORMAL"), models=models) as house:
        started = await start(house, flow, {"who": "Ada"}, segment=Segment(offer=offer), **more)
        outcome = await started.outcome()
        if offer is not None:
            results = [{"role": "tool", "toolCallId": CALL["id"], "name": "look", "content": "blue"}]
            outcome = await (await resume(house, started.id, Segment(results=results))).outcome()
        return await read(house, started.id, outcome)


async def test_an_image_that_google_s_library_cannot_fetch_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Attachment(url="https://127.0.0.1/cat.png", mime_type="image/png")
    step = {"id": "ask", "type": "llm", "model": FAMILIES["google"].model, "prompt": "Hi"}
    async with FakeProvider.serving() as fake:
        models = ModelGateway(Settings(**addressed(fake, monkeypatch)))
        ran = await run(tmp_path, models, step, attachments=[image])
    assert (ran.error["code"], ran.calls, fake.requests) == ("INVALID_INPUT", [], [])
    assert "could not be asked" in ran.error["message"]
    assert "127.0.0.1" in ran.error["message"]


async def test_a_form_that_no_server_has_declined_is_kept_for_other_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(host: Any, *more: Any, **options: Any) -> Any:
        if host == "schema.invalid":
            raise socket.gaierror("no such name")
        return known(host, *more, **options)

    known = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    model, stream, _ = FAMILIES["google"]
    # Servers that do not know the form of the output say such words.
    image = {"url": "https://schema.invalid/a.png", "mimeType": "image/png"}
    asked = {"role": "user", "content": "Hi"}

    def request(**more: Any) -> ModelRequest:
        return ModelRequest(**{"model": model, "messages": [asked], "output_schema": SCHEMA} | more)

    async with (
        FakeProvider.serving() as fake,
        ModelGateway(Settings(**addressed(fake, monkeypatch))) as models,
    ):
        fake.replies += [stream(OBJECT, False)] * 3
        with pytest.raises(ModelCallFailed, match=r"could not be asked.*schema\.invalid"):
            await models.complete(request(messages=[asked | {"attachments": [image]}]), lambda text: None)
        assert not fake.requests
        await models.complete(request(), lambda text: None)
        # Its library does not send the two together.
        await models.complete(request(tools=[LOOK]), lambda text: None)
        await models.complete(request(), lambda text: None)
    forms = ["responseJsonSchema" in body["generationConfig"] for body in fake.requests]
    assert forms == [True, False, True]


PROMPT = "My mail is ada@ada.org"
ASK = {"id": "ask", "type": "llm", "model": "local:tiny", "system": "Be kind.", "prompt": PROMPT}


async def test_of_a_library_that_hides_its_requests_what_pydantic_ai_prepared_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeProvider.serving() as fake:
        hidden = AsyncOpenAI(base_url=fake.base_url, api_key=KEY)
        ordinary = ProviderClients(Settings(providers={"local": fake.base_url})).new_provider("local")
        provider = OpenAICompatibleProvider(
            "local", openai_client=hidden, profile=ordinary._configured_model_profile
        )
        monkeypatch.setattr(ProviderClients, "new_provider", lambda clients, name: provider)
        declined = error_reply(400, "response_format json_schema is not known here")
        fake.replies.extend([declined, chat_stream(OBJECT, False)])
        models = ModelGateway(Settings(providers={"local": fake.base_url}))
        ran = await run(tmp_path, models, ASK | {"output_schema": SCHEMA})
        await hidden.close()
    assert ran.outcome.status == "completed"
    for call, body in zip(ran.calls, fake.requests, strict=True):
        told = call.request or {}
        (system, *_), response_format = body["messages"], body["response_format"]
        assert "Always respond with a JSON object" in system["content"]
        assert told["system"].split() == system["content"].split()
        assert told.get("outputSchema") == response_format.get("json_schema", {}).get("schema")


class Heard:
    """The requests that an observer hears of."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    async def sent(self, read: Callable[[], dict[str, Any]], size_bytes: int) -> None:
        self.requests.append(read())

    async def declined(self, failure: ModelCallFailed) -> None:
        raise AssertionError


async def test_a_login_that_is_renewed_on_the_way_is_told_to_nobody() -> None:
    heard = Heard()
    token = current_call.set(ProviderCall("local:tiny", heard, is_streamed=False))
    async with FakeProvider.serving() as fake:
        clients = ProviderClients(Settings(providers={"local": fake.base_url}))
        library: AsyncOpenAI = (await clients.prepared("local:tiny")).model.provider.client  # type: ignore[union-attr]
        elsewhere = fake.base_url.replace("127.0.0.1", "localhost")
        for address in (elsewhere, fake.base_url):
            fake.replies.append(in_one({}))
            await library.post(f"{address}/token", cast_to=object, body={"refresh_token": KEY})
        await clients.aclose()
    current_call.reset(token)
    assert len(fake.requests) == 2
    assert heard.requests == [{"messages": [], "settings": {"refresh_token": KEY}}], "at the model's address"


TEXT, CACHED = {"type": "text", "text": "Look"}, {"cache_control": {"type": "ephemeral"}}
REASONING = {"type": "reasoning", "id": "r1", "summary": []}
RESULT = {"type": "tool_result", "tool_use_id": "c"}
BYTES = {"data": "iVBO", "mimeType": "image/png"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(
            {"system": [TEXT | CACHED], "messages": [{"role": "user", "content": [TEXT | CACHED]}]},
            {"system": [TEXT | CACHED], "messages": [{"role": "user", "content": [TEXT | CACHED]}]},
            id="what is more than text stays as it was sent",
        ),
        pytest.param(
            {
                "messages": [
                    {"role": "user", "content": [PNG, TEXT]},
                    {"role": "user", "content": [TEXT, PNG]},
                ]
            },
            {
                "messages": [
                    {"role": "user", "content": [PNG, TEXT]},
                    {"role": "user", "content": "Look", "attachments": [PNG["source"]]},
                ]
            },
            id="parts in an order of their own stay as they were sent",
        ),
        pytest.param(
            {
                "messages": [{"role": "user", "content": [RESULT, TEXT]}],
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
            },
            {
                "messages": [{"role": "tool", "toolCallId": "c"}, {"role": "user", "content": "Look"}],
                "settings": {"output_config": {"effort": "low", "format": {"type": "json_schema"}}},
                "outputSchema": SCHEMA,
            },
            id="results of tools are messages, and the rest around a schema is a setting",
        ),
        pytest.param(
            {
                "contents": [{"role": "user", "parts": [{"inlineData": BYTES}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
            },
            {
                "messages": [{"role": "user", "attachments": [BYTES]}],
                "toolChoice": {"functionCallingConfig": {"mode": "ANY"}},
            },
            id="an image that Google's library has fetched",
        ),
        pytest.param(
            {"input": [REASONING, {"role": "user", "content": "Hi"}]},
            {
                "messages": [
                    {"type": "reasoning", "id": "r1", "summary": []},
                    {"role": "user", "content": "Hi"},
                ]
            },
            id="an item of another kind",
        ),
        pytest.param(
            {"messages": "no list", "n": 1},
            {"settings": {"body": '{"messages": "no list", "n": 1}'}},
            id="a body of an unknown kind",
        ),
    ],
)
def test_nothing_of_a_body_is_lost(body: dict[str, Any], told: dict[str, Any]) -> None:
    assert as_sent(json.dumps(body).encode()) == told
