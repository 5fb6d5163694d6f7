"""The providers whose answers come over httpx: how each answers, and how it is asked at a fake server."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from mistralai.client import sdkconfiguration

from tests.unit.engine.fake_provider import DONE, FakeProvider, Reply, chunk, whole_reply

KEY = "sk-the-key-of-all-providers"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "look", "arguments": '{"word":"sea"}'}}


def chat_stream(text: str, calls: bool) -> Reply:
    frames = [chunk({"role": "assistant", "content": text})]
    if calls:
        frames.append(chunk({"tool_calls": [{"index": 0, **CALL}]}))
    frames.append(chunk({}, finish="tool_calls" if calls else "stop"))
    return Reply(body=b"".join([*frames, chunk(usage=USAGE), DONE]))


def chat_whole(text: str, calls: bool) -> Reply:
    return whole_reply(
        text, usage=USAGE, tool_calls=[CALL] if calls else None, finish="tool_calls" if calls else "stop"
    )


def events(*told: dict[str, Any]) -> Reply:
    return Reply(
        body=b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in told)
    )


def in_one(value: dict[str, Any]) -> Reply:
    return Reply(body=json.dumps(value).encode(), headers={"content-type": "application/json"})


def in_one_piece(answer: Callable[[str, bool], dict[str, Any]]) -> Callable[[str, bool], Reply]:
    return lambda text, calls: in_one(answer(text, calls))


def a_response(text: str, calls: bool) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item: dict[str, Any] = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    if calls:
        item = {"id": "f1", "type": "function_call", "call_id": CALL["id"], "status": "completed"}
        item |= {"name": "look", "arguments": '{"word":"sea"}'}
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    answer: dict[str, Any] = {
        "id": "r1",
        "object": "response",
        "created_at": 1,
        "model": "gpt",
        "status": "completed",
    }
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage}
    return answer | rest | {"output": [item]}


def responses_stream(text: str, calls: bool) -> Reply:
    answer = a_response(text, calls)
    (item,) = answer["output"]
    begun: dict[str, Any] = answer | {"status": "in_progress", "output": [], "usage": None}
    told: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    added: dict[str, Any] = {"arguments": ""} if calls else {"content": []}
    added = item | added | {"status": "in_progress"}
    told.append({"type": "response.output_item.added", "output_index": 0, "item": added})
    place = {"item_id": item["id"], "output_index": 0}
    if calls:
        told.append({"type": "response.function_call_arguments.delta", "delta": item["arguments"], **place})
    else:
        told.append(
            {"type": "response.output_text.delta", "content_index": 0, "delta": text, "logprobs": [], **place}
        )
    told.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    told.append({"type": "response.completed", "response": answer})
    return events(*(each | {"sequence_number": at} for at, each in enumerate(told)))


def anthropic_answer(text: str, calls: bool) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": text}
    if calls:
        block = {"type": "tool_use", "id": CALL["id"], "name": "look", "input": {"word": "sea"}}
    return {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [block],
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }


def anthropic_stream(text: str, calls: bool) -> Reply:
    answer = anthropic_answer(text, calls)
    (block,) = answer["content"]
    begun: dict[str, Any] = {"input": {}} if calls else {"text": ""}
    delta = {"type": "text_delta", "text": text}
    if calls:
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    return events(
        {"type": "message_start", "message": answer | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": block | begun},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": answer["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    )


def google_answer(text: str, calls: bool) -> dict[str, Any]:
    part: dict[str, Any] = {"text": text}
    if calls:
        part = {"functionCall": {"id": CALL["id"], "name": "look", "args": {"word": "sea"}}}
    return {
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7},
        "modelVersion": "gemini",
        "responseId": "r1",
    }


def google_stream(text: str, calls: bool) -> Reply:
    return Reply(body=f"data: {json.dumps(google_answer(text, calls))}\n\n".encode())


class Family(NamedTuple):
    """A model, and how its provider answers with a text, or with a call of the tool `look`."""

    model: str
    stream: Callable[[str, bool], Reply]
    whole: Callable[[str, bool], Reply]


FAMILIES = {
    "openai chat": Family("openai-chat:gpt-4o-mini", chat_stream, chat_whole),
    "openai responses": Family("openai:gpt-4o-mini", responses_stream, in_one_piece(a_response)),
    "compatible": Family("local:tiny", chat_stream, chat_whole),
    "anthropic": Family("anthropic:claude-sonnet-4-6", anthropic_stream, in_one_piece(anthropic_answer)),
    "google": Family("google:gemini-2.5-flash", google_stream, in_one_piece(google_answer)),
    "mistral": Family("mistral:mistral-small-latest", chat_stream, chat_whole),
    "groq": Family("groq:openai/gpt-oss-20b", chat_stream, chat_whole),
}


def addressed(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a gateway is given so that the models of all families are asked at the server."""
    host = fake.base_url.removesuffix("/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", host)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", host)
    monkeypatch.setenv("GROQ_BASE_URL", host)
    monkeypatch.setitem(sdkconfiguration.SERVERS, sdkconfiguration.SERVER_GLOBAL, host)
    keys = dict.fromkeys(("openai", "openai-chat", "anthropic", "google", "groq", "mistral"), KEY)
    return {"providers": {"local": fake.base_url}, "provider_keys": keys}
