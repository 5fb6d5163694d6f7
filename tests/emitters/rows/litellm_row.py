import asyncio
import contextlib

import litellm
from cases import flush, otel, run

tracer = otel()
litellm.callbacks = ["otel"]
MODEL = "openai/gpt-5-mini"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def asked(text, **more):
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "max_retries": 0, "num_retries": 0, **more}


def chat():
    litellm.completion(**asked("What is the weather?"))


def stream():
    told = {"include_usage": True}
    for _ in litellm.completion(**asked("What is the weather?", stream=True, stream_options=told)):
        pass


def stream_left():
    for _ in litellm.completion(**asked("Tell a tale. [long]", stream=True)):
        break


def tools():
    messages = [{"role": "user", "content": "The weather of Oslo and Lima? [tools]"}]
    message = litellm.completion(**asked(messages, tools=TOOLS)).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    litellm.completion(**asked(messages, tools=TOOLS))


def error_retry():
    with contextlib.suppress(litellm.InternalServerError):
        litellm.completion(**asked("The weather? [fail-500]"))
    litellm.completion(**asked("The weather? [fail-500]"))


def cached():
    litellm.completion(**asked("Think of the weather. [cached]"))


def cached_anthropic():
    litellm.completion(**asked("Think of the weather. [cached]") | {"model": "anthropic/claude-sonnet-4-5"})


async def fanout():
    with tracer.start_as_current_span("fan out"):
        await asyncio.gather(*(litellm.acompletion(**asked(f"Weather {number}?")) for number in range(4)))
    # Its callbacks run in a worker of its own.
    await asyncio.sleep(1)


def embeddings():
    litellm.embedding(model="openai/text-embedding-3-small", input=["rain"])


def sent():
    import time

    # Its callbacks run in threads of their own, and nothing says when they have ended.
    time.sleep(1)
    flush()


every = (chat, stream, stream_left, tools, error_retry, cached, cached_anthropic, fanout, embeddings)
run({case.__name__: case for case in every}, sent, libraries=["litellm", "openai"])
