"""The cases of Anthropic's own client, for every row that watches it."""

import asyncio
import contextlib

import anthropic
from cases import own_session
from opentelemetry import trace

LIBRARIES = ["anthropic"]
MODEL = "claude-sonnet-4-5"
TOOLS = [
    {
        "name": "weather",
        "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
tracer = trace.get_tracer("program")
client = anthropic.Anthropic(max_retries=0)
async_client = anthropic.AsyncAnthropic(max_retries=0)


def asked(text, **more):
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    return {"model": MODEL, "max_tokens": 400, "system": "Be brief.", "messages": messages, **more}


def chat():
    client.messages.create(**asked("What is the weather?"))


def stream():
    for _ in client.messages.create(**asked("What is the weather?"), stream=True):
        pass


def stream_helper():
    with client.messages.stream(**asked("What is the weather?")) as events:
        events.get_final_message()


def stream_left():
    events = client.messages.create(**asked("Tell a tale. [long]"), stream=True)
    for event in events:
        if event.type == "content_block_delta":
            break
    events.close()


def tools():
    with tracer.start_as_current_span("answer"):
        messages = [{"role": "user", "content": "The weather of Oslo and Lima? [tools]"}]
        first = client.messages.create(**asked(messages, tools=TOOLS))
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "rain"}
            for block in first.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "assistant", "content": [block.model_dump() for block in first.content]})
        messages.append({"role": "user", "content": results})
        client.messages.create(**asked(messages, tools=TOOLS))


def error_retry():
    with tracer.start_as_current_span("answer"):
        question = asked("The weather? [fail-500] [fail-429]")
        with contextlib.suppress(anthropic.InternalServerError):
            client.messages.create(**question)
        # This time the client tries again by itself.
        client.with_options(max_retries=2).messages.create(**question)


def cached():
    client.messages.create(**asked("Think of the weather. [cached]"))


def cached_stream():
    for _ in client.messages.create(**asked("Think of the weather. [cached]"), stream=True):
        pass


async def fanout():
    with tracer.start_as_current_span("fan out"):
        await asyncio.gather(*(async_client.messages.create(**asked(f"Weather {n}?")) for n in range(4)))


def cases(session=own_session):
    def sessions():
        for name in ("first-session", "second-session"):
            with session(name):
                client.messages.create(**asked(f"The weather, {name}?"))

    calls = (chat, stream, stream_helper, stream_left, tools, error_retry, cached, cached_stream)
    return (*calls, sessions, fanout)
