"""The cases of OpenAI's own client, for every row that watches it."""

import asyncio
import contextlib

import openai
from cases import own_session
from opentelemetry import trace

LIBRARIES = ["openai"]
MODEL = "gpt-5-mini"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather of a city.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]


TOLD = {"stream": True, "stream_options": {"include_usage": True}}
"""A stream that tells its usage."""


def user(text):
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def cases(session=own_session, client=None, async_client=None, tracer=None):
    """`session` is a context manager that says to which session the calls inside belong."""
    client = client or openai.OpenAI(max_retries=0)
    async_client = async_client or openai.AsyncOpenAI(max_retries=0)
    tracer = tracer or trace.get_tracer("program")

    def complete(text, **more):
        return client.chat.completions.create(model=MODEL, messages=user(text), **more)

    def chat():
        complete("What is the weather?", temperature=0.5, max_completion_tokens=400)

    def stream():
        for _ in complete("What is the weather?", **TOLD):
            pass

    def stream_untold():
        for _ in complete("The weather?", stream=True):
            pass

    def stream_left():
        chunks = complete("Tell a tale. [long]", **TOLD)
        for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        chunks.close()

    def tools():
        with tracer.start_as_current_span("answer"):
            messages = user("The weather of Oslo and Lima? [tools]")
            first = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
            message = first.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
            client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)

    def error_retry():
        with tracer.start_as_current_span("answer"):
            messages = user("The weather? [fail-500] [fail-429]")
            with contextlib.suppress(openai.InternalServerError):
                client.chat.completions.create(model=MODEL, messages=messages)
            # This time the client tries again by itself.
            client.with_options(max_retries=2).chat.completions.create(model=MODEL, messages=messages)

    def cached():
        complete("Think of the weather. [cached]")

    def sessions():
        for name in ("first-session", "second-session"):
            with session(name):
                complete(f"The weather, {name}?")

    async def fanout():
        with tracer.start_as_current_span("fan out"):
            await asyncio.gather(
                *(
                    async_client.chat.completions.create(model=MODEL, messages=user(f"Weather {number}?"))
                    for number in range(4)
                )
            )

    def responses():
        client.responses.create(model=MODEL, input="The weather? [cached]", instructions="Be brief.")

    def responses_stream():
        for _ in client.responses.create(model=MODEL, input="The weather?", stream=True):
            pass

    def embeddings():
        client.embeddings.create(model="text-embedding-3-small", input=["rain", "sun"])

    chats = (chat, stream, stream_untold, stream_left, tools, error_retry, cached, sessions, fanout)
    return (*chats, responses, responses_stream, embeddings)
