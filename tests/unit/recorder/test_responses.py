"""What is read of a model's response, whole or as a stream: as the libraries give it, as dicts, or broken."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from anthropic import types as anthropic_types
from openai import types as openai_types
from openai.types import chat as chat_types
from openai.types import responses as response_types
from pydantic import BaseModel, TypeAdapter

from runglass.recorder.responses import Answer, StreamedAnswer, ToolCallAnswer, Usage, read_response
from tests.emitters import answers, ledger

TEXT = "".join(answers.TEXT)
OPENAI_TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"city": {}}}},
}
ANTHROPIC_TOOL = {"name": "weather", "input_schema": {"properties": {"city": {}}}}
RESPONSES_TOOL = {"type": "function", "name": "weather", "parameters": {"properties": {"city": {}}}}
APIS: dict[str, tuple[Callable[..., answers.Answer], dict[str, Any]]] = {
    "chat": (answers.chat, OPENAI_TOOL),
    "responses": (answers.responses, RESPONSES_TOOL),
    "messages": (answers.anthropic, ANTHROPIC_TOOL),
}


def ask(api: str, text: str) -> answers.Answer:
    """What the API answers, which takes of this what is its own."""
    answer, tool = APIS[api]
    messages = [{"role": "user", "content": text}]
    asked: dict[str, Any] = {"model": "a-model", "input": text, "messages": messages, "tools": [tool]}
    return answer(asked | {"stream_options": {"include_usage": True}})


def a_call(api: str) -> ledger.Call:
    # Anthropic's API tells no reasoning here.
    usage = ledger.Usage(1000, 90, 512, 128, 0 if api == "messages" else 16)
    return ledger.Call("case", "answer-1", api, "a-model", usage, is_stream=True)


def frames(answer: answers.Answer, call: ledger.Call) -> Iterator[Any]:
    for frame in answer.frames(call):
        if frame.data != "[DONE]":
            yield json.loads(frame.data)


WHOLE: dict[str, Any] = {
    "chat": chat_types.ChatCompletion,
    "responses": response_types.Response,
    "messages": anthropic_types.Message,
}
CHUNKS: dict[str, Any] = {
    "chat": chat_types.ChatCompletionChunk,
    "responses": response_types.ResponseStreamEvent,
    "messages": anthropic_types.RawMessageStreamEvent,
}
FINISH = {
    "chat": ("stop", "tool_calls"),
    "responses": ("stop", "tool_calls"),
    "messages": ("end_turn", "tool_use"),
}


@pytest.mark.parametrize("as_objects", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("api", WHOLE)
def test_an_answer_says_the_same_whole_and_streamed_as_objects_and_as_dicts(
    api: str, streamed: bool, as_objects: bool
) -> None:
    call = a_call(api)
    kinds = CHUNKS if streamed else WHOLE
    shape = TypeAdapter(kinds[api] if as_objects else Any).validate_python

    def read(answer: answers.Answer) -> Answer:
        if not streamed:
            return read_response(shape(answer.whole(call)))
        stream = StreamedAnswer()
        for frame in frames(answer, call):
            stream.add(shape(frame))
        return stream.answer(is_ended=True)

    said = read(ask(api, "The weather?"))
    reasoning = None if api == "messages" else 16
    usage = Usage(1000, 90, cached=512, cache_write=128, reasoning=reasoning)
    finish, finish_with_tools = FINISH[api]
    assert said == Answer(model="a-model", id="answer-1", text=TEXT, finish_reason=finish, usage=usage)

    asking = read(ask(api, "[tools]"))
    assert (asking.text, asking.finish_reason, asking.usage) == (None, finish_with_tools, usage)
    assert [(each.name, json.loads(each.arguments)) for each in asking.tool_calls] == [
        ("weather", {"city": "Oslo"}),
        ("weather", {"city": "Lima"}),
    ]
    assert len({each.id for each in asking.tool_calls} - {None}) == 2


def test_usage_that_came_before_a_stream_was_left_is_known() -> None:
    stream = StreamedAnswer()
    # Some servers tell in each chunk what was used by then: that is not the usage of the call.
    stream.add(
        {"choices": [{"delta": {"content": "Bergen"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    )
    assert stream.answer(is_ended=False).usage is None
    stream.add({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    stream.add({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    assert stream.answer(is_ended=False).usage == Usage(9, 2)


def test_a_response_whose_stream_was_left_has_its_text_and_asks_for_no_tool() -> None:
    stream = StreamedAnswer()
    *begun, _ = frames(ask("responses", "The weather?"), a_call("responses"))
    for frame in begun:
        stream.add(frame)
    assert stream.answer(is_ended=False) == Answer(model="a-model", id="answer-1", text=TEXT)


def test_other_shapes_of_the_same_apis_are_read() -> None:
    embeddings = answers.embeddings({"model": "small", "input": ["rain"]}).whole(a_call("embeddings"))
    vectors = openai_types.CreateEmbeddingResponse.model_validate(embeddings)
    assert read_response(vectors) == Answer(model="a-model", usage=Usage(1000, 0))
    legacy = {"model": "m", "choices": [{"text": "rain", "finish_reason": "length"}]}
    assert read_response(legacy) == Answer(model="m", text="rain", finish_reason="length")
    function = {"message": {"content": None, "function_call": {"name": "weather", "arguments": "{}"}}}
    assert read_response({"choices": [function]}).tool_calls == [ToolCallAnswer(None, "weather", "{}")]
    refused = {"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}
    assert read_response({"choices": [refused]}).text == "No."
    parts = {"message": {"content": [{"type": "text", "text": "rain"}, {"type": "text", "text": ", sun"}]}}
    assert read_response({"choices": [parts]}).text == "rain, sun"
    thinking = {
        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Rain."}],
        "usage": {"input_tokens": 4, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 2}},
    }
    answer = read_response(thinking)
    assert (answer.reasoning, answer.text, answer.usage) == ("Hm.", "Rain.", Usage(4, 3, reasoning=2))
    cut = {"output": [], "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert read_response(cut) == Answer(finish_reason="length")
    assert read_response("rain") == Answer(text="rain")
    # DeepSeek, and what answers in its shape.
    reasoned = {
        "choices": [{"message": {"content": "Rain.", "reasoning_content": "Hm."}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 5},
    }
    answer = read_response(reasoned)
    assert (answer.reasoning, answer.usage) == ("Hm.", Usage(9, 2, cached=5))


def test_input_of_anthropic_has_the_cached_tokens_added() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 40,
    }
    assert read_response({"content": [], "usage": usage}).usage == Usage(650, 5, 600, 40)
    # LiteLLM tells both names, and has added them up.
    usage |= {"prompt_tokens": 650, "completion_tokens": 5}
    assert read_response({"usage": usage}).usage == Usage(650, 5, 600, 40)
    details: dict[str, Any] = {"prompt_tokens_details": {"cached_tokens": 600}}
    assert read_response({"usage": usage | details}).usage == Usage(650, 5, 600, 40)


class Broken(BaseModel):
    """An object of a library whose members raise when they are read."""

    model: str = "known"

    @property
    def choices(self) -> list[Any]:
        raise RuntimeError("not yet")

    @property
    def usage(self) -> Any:
        raise KeyError("usage")


class Untrue:
    """As arrays are: even its truth raises."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        Mock(),
        object(),
        Untrue(),
        b"bytes",
        7,
        [],
        {"choices": [None]},
        {"choices": [Untrue()], "model": 3, "id": b"x"},
        {"choices": [{"message": Untrue(), "delta": Untrue(), "index": Untrue(), "finish_reason": Untrue()}]},
        {"choices": [{"message": {"tool_calls": [None, Untrue(), {"function": {"name": 4}}]}}]},
        {"choices": [{"delta": {"tool_calls": [None]}}], "usage": "many"},
        {"output": [None, Untrue(), {"type": Untrue(), "content": 4}], "status": Untrue()},
        {"content": [None, Untrue(), {"type": "tool_use", "name": None, "input": object()}]},
        {"usage": {"prompt_tokens": -1, "completion_tokens": True}},
        {"usage": {"prompt_tokens": 10**30, "completion_tokens": 1}},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
        {"usage": {"prompt_tokens": 12}},
        {"type": "content_block_delta", "index": Untrue(), "delta": Untrue()},
        {"type": "response.output_item.added", "output_index": [], "item": Untrue()},
        {"type": "message_start", "message": {"usage": Mock()}},
        {"type": "response.completed"},
    ],
)
def test_what_is_not_told_in_a_known_shape_is_unknown(odd: object) -> None:
    answer = read_response(odd)
    assert (answer.model, answer.id, answer.text, answer.reasoning) == (None, None, None, None)
    assert (answer.finish_reason, answer.usage, answer.tool_calls) == (None, None, [])
    stream = StreamedAnswer()
    stream.add(odd)
    assert stream.answer(is_ended=True).usage is None
    assert stream.answer(is_ended=True).text is None


def test_what_an_object_does_tell_is_read_though_other_members_raise() -> None:
    assert read_response(Broken()) == Answer(model="known")
    tool = {"type": "tool_use", "id": "t", "name": "weather", "input": {"at": object()}}
    assert read_response({"content": [tool]}).tool_calls == [ToolCallAnswer("t", "weather", "")]
