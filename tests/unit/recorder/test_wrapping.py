"""Wrapped clients of the real libraries: the recorded runs agree with the ledger of a model server."""

import asyncio
import gc
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple, assert_type

import anthropic
import httpx2
import openai
import pytest

from runglass.recorder.recorder import Recorder
from runglass.testing import RunningServer
from tests.emitters.comparison import Shortfall, compare
from tests.emitters.model_server import ModelServer, model_server
from tests.emitters.readback import Api, Told
from tests.servers import server_with

ROWS = Path(__file__).parents[2] / "emitters" / "rows"
OPENAI_MODEL, ANTHROPIC_MODEL = "gpt-5-mini", "claude-of-a-test"
QUESTION: Any = [{"role": "user", "content": "What is the weather?"}]
LONG: Any = [{"role": "user", "content": "Tell a tale. [long]"}]
STREAMED: Any = {"model": OPENAI_MODEL, "messages": QUESTION, "stream_options": {"include_usage": True}}


server = server_with(capture="full")


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


class Recording(NamedTuple):
    """A recorder with a flow of its own, and what the server says of that."""

    recorder: Recorder
    api: Api

    def told(self) -> Told:
        assert self.recorder.flush(60)
        return self.api.told(self.recorder.flow)

    def steps(self) -> list[dict[str, Any]]:
        """Those of all runs."""
        assert self.recorder.flush(60)
        return [step for trace in self.api.traces(self.recorder.flow) for step in trace["steps"]]

    def call(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The one step, and its model call."""
        (step,) = self.steps()
        return step, step["modelCalls"][0]


@pytest.fixture
def recordings(server: RunningServer) -> Iterator[Callable[[str], Recording]]:
    with ExitStack() as recorders:

        def record(flow: str) -> Recording:
            made = Recorder(flow, api_key=server.key, base_url=server.base_url, spool=None)
            return Recording(recorders.enter_context(made), Api(server.address, server.key))

        yield record


@pytest.fixture
def recording(recordings: Callable[[str], Recording], request: pytest.FixtureRequest) -> Recording:
    return recordings(request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower())


class Clients:
    """Clients of the model server, closed when the test ends; the caller closes those on asyncio."""

    def __init__(self, models: ModelServer, stack: ExitStack) -> None:
        self._url, self._stack = models.url, stack

    def of_openai(self) -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self._url}/v1", api_key="none", max_retries=0)
        return self._stack.enter_context(client)

    def of_anthropic(self) -> anthropic.Anthropic:
        client = anthropic.Anthropic(base_url=self._url, api_key="none", max_retries=0)
        return self._stack.enter_context(client)

    def async_openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self._url}/v1", api_key="none", max_retries=0)

    def async_anthropic(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self._url, api_key="none", max_retries=0)


@pytest.fixture
def clients(models: ModelServer) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(models, stack)


class Blocks:
    """What a program of `tests/emitters` takes for its tracer."""

    def __init__(self) -> None:
        self.recorder: Recorder

    def start_as_current_span(self, name: str, **_: object) -> AbstractContextManager[Any]:
        return self.recorder.run(name)

    def session(self, name: str) -> AbstractContextManager[Any]:
        return self.recorder.run("turn", session=name)


@pytest.mark.filterwarnings("ignore:The model 'claude:DeprecationWarning")
@pytest.mark.parametrize("library", ["openai", "anthropic"])
def test_the_totals_of_every_case_are_those_of_the_ledger(
    recordings: Callable[[str], Recording],
    models: ModelServer,
    clients: Clients,
    library: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain, streamed, left early, parallel tools, errors and retries, cached tokens, fan-out, sessions."""
    blocks = Blocks()
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.syspath_prepend(ROWS)
    module: Any = importlib.import_module(f"{library}_cases")
    for name in ("cases", module.__name__):
        monkeypatch.delitem(sys.modules, name)
    client: Any = clients.of_openai() if library == "openai" else clients.of_anthropic()
    async_client: Any = clients.async_openai() if library == "openai" else clients.async_anthropic()
    wrong: list[str] = []
    with asyncio.Runner() as runner:
        for number, name in enumerate(case.__name__ for case in module.cases()):
            models.case = name
            recording = recordings(f"{library}-{number}")
            blocks.recorder = recorder = recording.recorder
            # A copy of its own: each has another recorder.
            own, own_async = recorder.wrap(client.copy()), recorder.wrap(async_client.copy())
            if library == "openai":
                cases = module.cases(blocks.session, own, own_async, blocks)
            else:
                module.client, module.async_client, module.tracer = own, own_async, blocks
                cases = module.cases(blocks.session)
            result = cases[number]()
            if asyncio.iscoroutine(result):
                runner.run(result)
            gc.collect()
            calls = [call for call in models.calls if call.case == name]
            # Anthropic's first event has one token of output: if the stream is left, the usage is unknown.
            is_short = (library, name) == ("anthropic", "stream_left")
            known = Shortfall(library, name, "left", untold=1) if is_short else None
            wrong += [f"{name}: {each}" for each in compare(name, calls, [], recording.told(), known)]
        runner.run(async_client.close())
    assert not wrong, "\n".join(wrong)


def test_a_call_has_what_was_asked_and_answered_and_is_a_run_by_itself(
    recording: Recording, clients: Clients
) -> None:
    client = recording.recorder.wrap(clients.of_openai())
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    answer = client.chat.completions.create(
        model=OPENAI_MODEL,
        messages=[{"role": "system", "content": "Be brief."}, *QUESTION],
        temperature=0.5,
        tools=tools,
    )
    assert type(answer) is openai.types.chat.ChatCompletion
    step, call = recording.call()
    assert (step["kind"], step["name"], step["status"]) == ("llm", f"chat {OPENAI_MODEL}", "completed")
    assert (call["model"], call["requestId"], call["finishReason"]) == (
        f"openai:{OPENAI_MODEL}",
        answer.id,
        "stop",
    )
    assert call["request"]["system"] == "Be brief."
    assert call["request"]["messages"] == QUESTION
    assert call["request"]["tools"] == tools
    assert call["request"]["settings"]["temperature"] == 0.5
    assert call["response"]["content"] == answer.choices[0].message.content


def test_what_anthropic_caches_for_an_hour_has_its_own_price(recording: Recording) -> None:
    usage = {
        "input_tokens": 1000,
        "output_tokens": 100,
        "cache_creation_input_tokens": 10_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 10_000},
    }
    text = [{"type": "text", "text": "Rain."}]
    body = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": text}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=body | {"usage": usage}))
    with httpx2.Client(transport=transport) as http:
        client = recording.recorder.wrap(anthropic.Anthropic(api_key="none", http_client=http))
        client.messages.create(model=ANTHROPIC_MODEL, max_tokens=9, messages=QUESTION)
    _, call = recording.call()
    # 3 dollars for a million tokens, 6 for those written for an hour, 15 for the answer's.
    assert (call["tokens"]["prompt"], call["costUsd"]) == (11_000, "0.0645")


def test_each_api_says_what_was_asked(recordings: Callable[[str], Recording], clients: Clients) -> None:
    def asked(flow: str, client: Any, ask: Callable[[Any], Any]) -> dict[str, Any]:
        recording = recordings(flow)
        ask(recording.recorder.wrap(client))
        _, call = recording.call()
        request: dict[str, Any] = call["request"]
        return request

    given: Any = {"model": OPENAI_MODEL, "input": "Rain?", "instructions": "Be brief."}
    request = asked("responses", clients.of_openai(), lambda client: client.responses.create(**given))
    assert (request["system"], request["messages"]) == ("Be brief.", [{"role": "user", "content": "Rain?"}])
    given = {"model": ANTHROPIC_MODEL, "max_tokens": 9, "system": "Be brief.", "messages": QUESTION}
    request = asked("messages", clients.of_anthropic(), lambda client: client.messages.create(**given))
    assert (request["system"], request["messages"]) == ("Be brief.", QUESTION)
    assert request["settings"] == {"max_tokens": 9}
    given = {"model": "small", "input": ["rain", "sun"]}
    request = asked("embeddings", clients.of_openai(), lambda client: client.embeddings.create(**given))
    assert [message["content"] for message in request["messages"]] == ["rain", "sun"]


def chunks_of_openai(client: Any) -> list[Any]:
    stream = client.chat.completions.create(**STREAMED, stream=True)
    assert type(stream) is openai.Stream
    return [*stream]


def events_of_openai(client: Any) -> list[Any]:
    with client.chat.completions.stream(**STREAMED) as events:
        return [*events, events.get_final_completion()]


def events_of_responses(client: Any) -> list[Any]:
    with client.responses.stream(model=OPENAI_MODEL, input="Rain?") as events:
        return [*events, events.get_final_response()]


def raw_chunks_of_openai(client: Any) -> list[Any]:
    return [*client.chat.completions.with_raw_response.create(**STREAMED, stream=True).parse()]


def raw_events_of_responses(client: Any) -> list[Any]:
    """As OpenAI Agents reads them."""
    with client.responses.with_streaming_response.create(
        model=OPENAI_MODEL, input=QUESTION, stream=True
    ) as raw:
        assert raw.parse() is raw.parse()
        return [*raw.parse()]


def events_of_anthropic(client: Any) -> list[Any]:
    with client.messages.stream(model=ANTHROPIC_MODEL, max_tokens=9, messages=QUESTION) as events:
        return [*events, events.get_final_message()]


async def async_chunks_of_openai(client: Any) -> list[Any]:
    async with client:
        chunks = await client.chat.completions.create(**STREAMED, stream=True)
        return [chunk async for chunk in chunks]


async def async_events_of_anthropic(client: Any) -> list[Any]:
    asked = client.messages.stream(model=ANTHROPIC_MODEL, max_tokens=9, messages=QUESTION)
    async with client, asked as events:
        return [*[event async for event in events], await events.get_final_message()]


async def async_raw_events_of_responses(client: Any) -> list[Any]:
    asked = client.responses.with_streaming_response.create(model=OPENAI_MODEL, input=QUESTION, stream=True)
    async with client, asked as raw:
        return [event async for event in await raw.parse()]


@pytest.mark.parametrize(
    ("read", "library"),
    [
        (chunks_of_openai, "of_openai"),
        (events_of_openai, "of_openai"),
        (events_of_responses, "of_openai"),
        (events_of_anthropic, "of_anthropic"),
        (raw_chunks_of_openai, "of_openai"),
        (raw_events_of_responses, "of_openai"),
        (async_chunks_of_openai, "async_openai"),
        (async_events_of_anthropic, "async_anthropic"),
        (async_raw_events_of_responses, "async_openai"),
    ],
)
def test_a_stream_gives_what_it_gave_before(
    recording: Recording, models: ModelServer, clients: Clients, read: Callable[[Any], Any], library: str
) -> None:
    make = getattr(clients, library)

    def chunks_of(client: Any) -> list[tuple[type, str]]:
        chunks = read(client)
        chunks = asyncio.run(chunks) if asyncio.iscoroutine(chunks) else chunks
        call_id = models.calls[-1].id
        return [(type(chunk), chunk.model_dump_json(warnings=False).replace(call_id, "")) for chunk in chunks]

    before, after = chunks_of(make()), chunks_of(recording.recorder.wrap(make()))
    # Each call of the server has other numbers of tokens.
    strip = str.maketrans("", "", "0123456789")
    assert [(kind, text.translate(strip)) for kind, text in after] == [
        (kind, text.translate(strip)) for kind, text in before
    ]
    told, call = recording.told(), models.calls[-1]
    assert (told.usage.input, told.usage.output, told.unmetered) == (call.usage.input, call.usage.output, 0)
    _, recorded = recording.call()
    assert recorded["response"]["content"] == "Bergen has rain, Lima has sun."
    assert recorded["timeToFirstTokenMs"] >= 0


def leave_by_dropping(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=OPENAI_MODEL, messages=LONG, stream=True)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    del stream, chunk
    gc.collect()


def leave_a_block(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=OPENAI_MODEL, messages=LONG) as events:
        for event in events:
            if event.type == "content.delta" and event.delta:
                break


async def leave_on_asyncio(client: openai.AsyncOpenAI) -> None:
    async with (
        client,
        await client.chat.completions.create(model=OPENAI_MODEL, messages=LONG, stream=True) as stream,
    ):
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break


@pytest.mark.parametrize("leave", [leave_by_dropping, leave_a_block, leave_on_asyncio])
def test_a_stream_that_is_left_ends_its_step_with_what_came_and_unknown_usage(
    recording: Recording, clients: Clients, leave: Callable[[Any], Any]
) -> None:
    if asyncio.iscoroutinefunction(leave):
        asyncio.run(leave(recording.recorder.wrap(clients.async_openai())))
    else:
        leave(recording.recorder.wrap(clients.of_openai()))
    told = recording.told()
    assert (told.usage.input, told.usage.output, told.unmetered) == (0, 0, 1)
    step, call = recording.call()
    assert step["status"] == "completed"
    assert call["response"]["content"] == "Bergen has "
    assert any("left" in note for note in step["notes"])


def test_a_dropped_stream_of_anthropic_is_left_at_once(recording: Recording, clients: Clients) -> None:
    """Its library takes care that no garbage collection is needed; neither is it for a watched stream."""
    client = recording.recorder.wrap(clients.of_anthropic())
    gc.collect()
    gc.disable()
    try:
        events = client.messages.create(model=ANTHROPIC_MODEL, max_tokens=9, messages=LONG, stream=True)
        response = events.response
        next(events)
        del events
        assert response.is_closed
    finally:
        gc.enable()
    assert recording.told().unmetered == 1
    assert any("left" in note for note in recording.call()[0]["notes"])


class OwnStream(openai.Stream[Any]):
    """A stream without the parts that the library's own have."""

    def __init__(self, *, response: httpx2.Response, **_: object) -> None:
        self.response = response

    def __iter__(self) -> Iterator[str]:
        yield from self.response.iter_lines()


def test_a_stream_of_an_unknown_shape_is_a_call_of_unknown_usage(
    recording: Recording, clients: Clients
) -> None:
    client = recording.recorder.wrap(clients.of_openai())
    body = {"model": OPENAI_MODEL, "messages": QUESTION, "stream": True}
    lines = client.post("/chat/completions", body=body, cast_to=object, stream=True, stream_cls=OwnStream)
    assert "data: [DONE]" in list(lines)
    step, _ = recording.call()
    assert (step["status"], step["name"]) == ("completed", f"chat {OPENAI_MODEL}")
    assert recording.told().unmetered == 1


def test_an_error_passes_as_it_is_and_is_told_with_its_status(recording: Recording, clients: Clients) -> None:
    client = recording.recorder.wrap(clients.of_openai())
    failing: Any = [{"role": "user", "content": "The weather? [fail-429]"}]
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model=OPENAI_MODEL, messages=failing)
    assert raised.value.status_code == 429
    step, _ = recording.call()
    assert (step["status"], step["errorContext"]["code"]) == ("failed", "RateLimitError")
    assert "not this time" in step["errorContext"]["message"]
    assert step["attributes"]["http.response.status_code"] == 429


def cut_off() -> Iterator[bytes]:
    """The body of a stream whose connection breaks."""
    choice = {"index": 0, "delta": {"content": "Bergen"}}
    chunk = {"id": "cut", "model": OPENAI_MODEL, "choices": [choice]}
    yield f"data: {json.dumps(chunk)}\n\n".encode()
    raise httpx2.ReadError("the connection was cut")


def test_an_error_in_the_midst_of_a_stream_is_the_users_and_the_steps(recording: Recording) -> None:
    headers = {"Content-Type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=cut_off()))
    with httpx2.Client(transport=transport) as http:
        client = recording.recorder.wrap(openai.OpenAI(api_key="none", http_client=http))
        stream = client.chat.completions.create(model=OPENAI_MODEL, messages=QUESTION, stream=True)
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    step, call = recording.call()
    assert (step["status"], step["errorContext"]["code"]) == ("failed", "APIConnectionError")
    assert call["response"]["content"] == "Bergen"
    assert recording.told().unmetered == 1


async def test_a_cancelled_call_and_a_cancelled_stream_are_cancelled(
    recordings: Callable[[str], Recording], clients: Clients
) -> None:
    recording = recordings("cancelled-call")
    sent = asyncio.Event()

    async def never(_: object) -> None:
        sent.set()
        await asyncio.Event().wait()

    http = httpx2.AsyncClient(event_hooks={"request": [never]})
    client = recording.recorder.wrap(openai.AsyncOpenAI(api_key="none", http_client=http))
    task = asyncio.ensure_future(client.chat.completions.create(model=OPENAI_MODEL, messages=QUESTION))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.close()
    step, _ = await asyncio.to_thread(recording.call)
    assert (step["status"], step["errorContext"]["code"]) == ("failed", "CANCELLED")

    recording = recordings("cancelled-stream")
    client = recording.recorder.wrap(clients.async_openai())
    told = asyncio.Event()

    async def read() -> None:
        stream = await client.chat.completions.create(model=OPENAI_MODEL, messages=LONG, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                told.set()

    reading = asyncio.ensure_future(read())
    await told.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gc.collect()
    await client.close()
    step, call = await asyncio.to_thread(recording.call)
    assert call["response"]["content"].startswith("Bergen has ")
    assert (step["status"], step["errorContext"]["code"]) == ("failed", "CANCELLED")


def test_calls_are_in_the_step_around_them(recording: Recording, clients: Clients) -> None:
    client = recording.recorder.wrap(clients.of_openai())
    with recording.recorder.run("answer"), recording.recorder.step("ask"):
        stream = client.chat.completions.create(model=OPENAI_MODEL, messages=QUESTION, stream=True)
        for _ in stream:
            # The call is not the current step here.
            client.embeddings.create(model="small", input="rain")
            break
        stream.close()
    steps = {step["name"]: step for step in recording.steps()}
    for name in (f"chat {OPENAI_MODEL}", "embeddings small"):
        assert steps[name]["parentSpanId"] == steps["ask"]["spanId"]


def test_raw_responses_pass_untouched(recording: Recording, models: ModelServer, clients: Clients) -> None:
    client = recording.recorder.wrap(clients.of_openai())
    raw = client.chat.completions.with_raw_response.create(model=OPENAI_MODEL, messages=QUESTION)
    assert raw.parse().id == models.calls[-1].id
    with client.chat.completions.with_streaming_response.create(
        model=OPENAI_MODEL, messages=QUESTION
    ) as body:
        assert json.loads(body.read())["id"] == models.calls[-1].id
    with client.chat.completions.with_streaming_response.create(
        model=OPENAI_MODEL, messages=QUESTION, stream=True
    ) as body:
        assert "data: [DONE]" in list(body.iter_lines())
    told = recording.told()
    # Only the first was read already when its call ended.
    assert (told.usage.input, told.unmetered) == (models.calls[0].usage.input, 2)
    assert not any(step.get("notes") for step in recording.steps())


def test_a_client_is_wrapped_once_and_so_are_its_copies(recording: Recording, clients: Clients) -> None:
    client = clients.of_openai()
    # A resource that is held already is in it, too.
    completions = client.chat.completions
    wrapped = recording.recorder.wrap(recording.recorder.wrap(client))
    assert_type(wrapped, openai.OpenAI)
    assert wrapped is client
    copy = client.with_options(timeout=5).copy()
    assert recording.recorder.wrap(copy) is copy
    completions.create(model=OPENAI_MODEL, messages=QUESTION)
    copy.chat.completions.create(model=OPENAI_MODEL, messages=QUESTION)
    told = recording.told()
    assert (told.runs, told.spans) == (2, 2)
    assert clients.of_openai().request.__qualname__ == "SyncAPIClient.request"


def test_what_is_no_client_is_refused_where_it_is_wrapped(recording: Recording) -> None:
    class Client:
        pass

    for odd in (Client(), None, openai):
        with pytest.raises(TypeError, match="`wrap` takes a client of the library openai or anthropic"):
            recording.recorder.wrap(odd)


def test_without_a_key_a_wrapped_client_works_as_before(
    models: ModelServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNGLASS_API_KEY", raising=False)
    client = Recorder("nothing").wrap(clients.of_openai())
    assert client.chat.completions.create(model=OPENAI_MODEL, messages=QUESTION).id == models.calls[0].id
