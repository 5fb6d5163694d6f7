"""What a model server answers, in the words of each API, whole and as a stream.

It says `texts`, or asks for tools: for those `asked`, or for those of a request whose prompt says so.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from tests.emitters.ledger import Call, Usage

TEXT = ["Bergen has ", "rain, ", "Lima has sun."]
CITIES = ["Oslo", "Lima"]
AT = 1_750_000_000


class Ask(NamedTuple):
    """What is known of a request, whatever its API."""

    api: str
    model: str
    text: str
    is_stream: bool = False


class Frame(NamedTuple):
    """An event of a stream. `told` is the usage told by it."""

    data: str
    event: str | None = None
    told: Usage | None = None


class Answer(NamedTuple):
    ask: Ask
    whole: Callable[[Call], dict[str, Any]]
    frames: Callable[[Call], Iterator[Frame]]


class Asked(NamedTuple):
    """A tool that the model wants to be called."""

    name: str
    arguments: str


def chat(body: dict[str, Any], texts: Sequence[str] = TEXT, asked: Sequence[Asked] = ()) -> Answer:
    """OpenAI's chat completions."""
    messages = body["messages"]
    ask = Ask("chat", body["model"], json.dumps(messages), bool(body.get("stream")))
    tools = [each["function"] for each in body.get("tools") or []]
    asked = asked or _tools(
        tools, "parameters", ask.text, any(each["role"] == "assistant" for each in messages)
    )
    finish = "tool_calls" if asked else "stop"

    def calls(call: Call) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{call.id}_{number}",
                "type": "function",
                "function": {"name": each.name, "arguments": each.arguments},
            }
            for number, each in enumerate(asked)
        ]

    def whole(call: Call) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None if asked else "".join(texts)}
        if asked:
            message["tool_calls"] = calls(call)
        return {
            "id": call.id,
            "object": "chat.completion",
            "created": AT,
            "model": call.model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": _chat_usage(call.usage),
        }

    def frames(call: Call) -> Iterator[Frame]:
        tells_usage = bool((body.get("stream_options") or {}).get("include_usage"))

        def chunk(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> str:
            head = {"id": call.id, "object": "chat.completion.chunk", "created": AT, "model": call.model}
            return json.dumps(head | {"choices": choices, "usage": usage})

        def delta(finish: str | None = None, **members: Any) -> str:
            return chunk([{"index": 0, "delta": members, "finish_reason": finish, "logprobs": None}])

        yield Frame(delta(role="assistant", content=None if asked else ""))
        for number, each in enumerate(calls(call)):
            yield Frame(delta(tool_calls=[each | {"index": number}]))
        for piece in [] if asked else texts:
            yield Frame(delta(content=piece))
        yield Frame(delta(finish))
        if tells_usage:
            yield Frame(chunk([], _chat_usage(call.usage)), told=call.usage)
        yield Frame("[DONE]")

    return Answer(ask, whole, frames)


def responses(body: dict[str, Any], texts: Sequence[str] = TEXT, asked: Sequence[Asked] = ()) -> Answer:
    """OpenAI's responses."""
    given = body["input"]
    ask = Ask("resp", body["model"], json.dumps(given), bool(body.get("stream")))
    has_results = not isinstance(given, str) and any(
        each.get("type") == "function_call_output" for each in given
    )
    asked = asked or _tools(body.get("tools") or [], "parameters", ask.text, has_results)

    def items(call: Call) -> list[dict[str, Any]]:
        if asked:
            return [
                {
                    "type": "function_call",
                    "id": f"fc_{call.id}_{number}",
                    "call_id": f"call_{call.id}_{number}",
                    "name": each.name,
                    "arguments": each.arguments,
                    "status": "completed",
                }
                for number, each in enumerate(asked)
            ]
        part = {"type": "output_text", "text": "".join(texts), "annotations": [], "logprobs": []}
        return [
            {
                "type": "message",
                "id": f"msg_{call.id}",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
        ]

    def response(call: Call, status: str = "completed") -> dict[str, Any]:
        usage, is_done = call.usage, status == "completed"
        return {
            "id": call.id,
            "object": "response",
            "created_at": AT,
            "status": status,
            "model": call.model,
            "output": items(call) if is_done else [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": body.get("tools") or [],
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "metadata": {},
            "temperature": 1.0,
            "top_p": 1.0,
            "usage": {
                "input_tokens": usage.input,
                "input_tokens_details": {
                    "cached_tokens": usage.cached,
                    "cache_write_tokens": usage.cache_write,
                },
                "output_tokens": usage.output,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.input + usage.output,
            }
            if is_done
            else None,
        }

    def frames(call: Call) -> Iterator[Frame]:
        number = 0

        def frame(kind: str, told: Usage | None = None, **members: Any) -> Frame:
            nonlocal number
            number += 1
            data = json.dumps({"type": kind, "sequence_number": number - 1} | members)
            return Frame(data, kind, told)

        yield frame("response.created", response=response(call, "in_progress"))
        for index, item in enumerate(items(call)):
            place = {"output_index": index, "item_id": item["id"]}
            started: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
            yield frame(
                "response.output_item.added",
                output_index=index,
                item=item | started | {"status": "in_progress"},
            )
            if asked:
                text = item["arguments"]
                yield frame("response.function_call_arguments.delta", delta=text, **place)
                yield frame(
                    "response.function_call_arguments.done", arguments=text, name=item["name"], **place
                )
            else:
                place["content_index"] = 0
                part = item["content"][0]
                yield frame("response.content_part.added", part=part | {"text": ""}, **place)
                for piece in texts:
                    yield frame("response.output_text.delta", delta=piece, logprobs=[], **place)
                yield frame("response.output_text.done", text=part["text"], logprobs=[], **place)
                yield frame("response.content_part.done", part=part, **place)
            yield frame("response.output_item.done", output_index=index, item=item)
        yield frame("response.completed", call.usage, response=response(call))

    return Answer(ask, response, frames)


def embeddings(body: dict[str, Any]) -> Answer:
    """OpenAI's embeddings, which are never streamed."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]

    def whole(call: Call) -> dict[str, Any]:
        vector: Any = [0.25, -0.5, 1.0]
        if body.get("encoding_format") == "base64":
            vector = "AACAPgAAAL8AAIA/"
        return {
            "object": "list",
            "model": call.model,
            "data": [
                {"object": "embedding", "index": each, "embedding": vector} for each in range(len(texts))
            ],
            "usage": {"prompt_tokens": call.usage.input, "total_tokens": call.usage.input},
        }

    return Answer(Ask("embeddings", body["model"], json.dumps(texts)), whole, lambda _: iter(()))


def anthropic(body: dict[str, Any], texts: Sequence[str] = TEXT, asked: Sequence[Asked] = ()) -> Answer:
    """Anthropic's messages."""
    messages = body["messages"]
    ask = Ask("msg", body["model"], json.dumps(messages), bool(body.get("stream")))
    asked = asked or _tools(body.get("tools") or [], "input_schema", ask.text, '"tool_result"' in ask.text)
    stop = "tool_use" if asked else "end_turn"

    def blocks(call: Call) -> list[dict[str, Any]]:
        if not asked:
            return [{"type": "text", "text": "".join(texts)}]
        return [
            {
                "type": "tool_use",
                "id": f"toolu_{call.id}_{number}",
                "name": each.name,
                "input": json.loads(each.arguments),
            }
            for number, each in enumerate(asked)
        ]

    def thought(usage: Usage) -> dict[str, Any]:
        return {"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else {}

    def message(call: Call, output: int, **members: Any) -> dict[str, Any]:
        usage = call.usage
        head = {
            "id": call.id,
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "stop_sequence": None,
            "usage": {
                "input_tokens": usage.input - usage.cached - usage.cache_write,
                "cache_creation_input_tokens": usage.cache_write,
                "cache_read_input_tokens": usage.cached,
                "output_tokens": output,
                **thought(usage),
            },
        }
        return head | members

    def whole(call: Call) -> dict[str, Any]:
        return message(call, call.usage.output, content=blocks(call), stop_reason=stop)

    def frames(call: Call) -> Iterator[Frame]:
        def frame(kind: str, told: Usage | None = None, **members: Any) -> Frame:
            return Frame(json.dumps({"type": kind} | members), kind, told)

        begun = replace(call.usage, output=1, reasoning=0)
        yield frame("message_start", begun, message=message(call, 1, content=[], stop_reason=None))
        for index, block in enumerate(blocks(call)):
            start, field, kind = (
                (block | {"input": {}}, "partial_json", "input_json_delta")
                if asked
                else (block | {"text": ""}, "text", "text_delta")
            )
            yield frame("content_block_start", index=index, content_block=start)
            for piece in [json.dumps(block["input"])] if asked else texts:
                yield frame("content_block_delta", index=index, delta={"type": kind, field: piece})
            yield frame("content_block_stop", index=index)
        yield frame(
            "message_delta",
            call.usage,
            delta={"stop_reason": stop, "stop_sequence": None},
            usage={"output_tokens": call.usage.output, **thought(call.usage)},
        )
        yield frame("message_stop")

    return Answer(ask, whole, frames)


def gemini(body: dict[str, Any], texts: Sequence[str] = TEXT, asked: Sequence[Asked] = ()) -> Answer:
    """Gemini's `generateContent`; `model` and `stream` are in its path."""
    ask = Ask("gemini", body["model"], json.dumps(body["contents"]), body["stream"])
    declared = [each for tool in body.get("tools") or [] for each in tool.get("functionDeclarations", [])]
    schemas = ("parametersJsonSchema", "parameters_json_schema", "parameters")
    tools = [
        {"name": each["name"], "schema": next(each[name] for name in schemas if name in each)}
        for each in declared
    ]
    asked = asked or _tools(tools, "schema", ask.text, '"functionResponse"' in ask.text)

    def chunk(call: Call, parts: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        candidate = {"index": 0, "content": {"role": "model", "parts": parts}}
        told: dict[str, Any] = {"responseId": call.id, "modelVersion": call.model, "candidates": [candidate]}
        if usage is not None:
            told["candidates"] = [candidate | {"finishReason": "STOP"}]
            told["usageMetadata"] = {
                "promptTokenCount": usage.input,
                "cachedContentTokenCount": usage.cached,
                "candidatesTokenCount": usage.output - usage.reasoning,
                "thoughtsTokenCount": usage.reasoning,
                "totalTokenCount": usage.input + usage.output,
            }
        return told

    def parts(call: Call) -> list[dict[str, Any]]:
        if not asked:
            return [{"text": text} for text in texts]
        return [
            {"functionCall": {"id": f"{call.id}-{n}", "name": each.name, "args": json.loads(each.arguments)}}
            for n, each in enumerate(asked)
        ]

    def whole(call: Call) -> dict[str, Any]:
        return chunk(call, parts(call) if asked else [{"text": "".join(texts)}], call.usage)

    def frames(call: Call) -> Iterator[Frame]:
        *before, last = parts(call)
        for part in before:
            yield Frame(json.dumps(chunk(call, [part], None)))
        yield Frame(json.dumps(chunk(call, [last], call.usage)), told=call.usage)

    return Answer(ask, whole, frames)


def _chat_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _tools(tools: list[dict[str, Any]], schema: str, text: str, has_results: bool) -> list[Asked]:
    """The tools to ask for: two at once, where the prompt says so and none has answered yet.

    An agent that wants its answer from a tool `final_answer` gets it so.
    """
    by_name = {each["name"]: each for each in tools}
    final = by_name.pop("final_answer", None)
    wanted = [*by_name.values()]
    if "[tools]" in text and wanted and not has_results:
        pairs = (
            list(zip(wanted, CITIES, strict=False))
            if len(wanted) > 1
            else [(wanted[0], city) for city in CITIES]
        )
        return [
            Asked(tool["name"], json.dumps(dict.fromkeys(tool[schema].get("properties", {}), city)))
            for tool, city in pairs
        ]
    return [Asked("final_answer", json.dumps({"answer": "".join(TEXT)}))] if final else []
