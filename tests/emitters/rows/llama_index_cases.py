"""The cases of LlamaIndex, for every row that watches it."""

import asyncio
import contextlib

import openai
from cases import own_session, weather
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from opentelemetry import trace

LIBRARIES = ["llama-index-core", "llama-index-llms-openai", "openai"]
tracer = trace.get_tracer("program")
model = OpenAI(model="gpt-4o-mini", max_retries=0, additional_kwargs={"stream_options": None})
streaming = OpenAI(
    model="gpt-4o-mini", max_retries=0, additional_kwargs={"stream_options": {"include_usage": True}}
)


def user(text):
    return [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=text)]


def agent():
    return FunctionAgent(
        tools=[weather], llm=model, streaming=False, system_prompt="Be brief.", name="forecaster"
    )


def chat():
    model.chat(user("What is the weather?"))


def stream():
    for _ in streaming.stream_chat(user("What is the weather?")):
        pass


def stream_left():
    chunks = streaming.stream_chat(user("Tell a tale. [long]"))
    for chunk in chunks:
        if chunk.delta:
            break
    chunks.close()


async def tools():
    await agent().run("The weather of Oslo and Lima? [tools]")


def error_retry():
    with tracer.start_as_current_span("answer"):
        with contextlib.suppress(openai.InternalServerError):
            model.chat(user("The weather? [fail-500]"))
        model.chat(user("The weather? [fail-500]"))


def cached():
    model.chat(user("Think of the weather. [cached]"))


async def fanout():
    with tracer.start_as_current_span("fan out"):
        await asyncio.gather(*(model.achat(user(f"Weather {number}?")) for number in range(4)))


def embeddings():
    OpenAIEmbedding(model="text-embedding-3-small").get_text_embedding("rain")


def cases(session=own_session):
    def sessions():
        for name in ("first-session", "second-session"):
            with session(name):
                model.chat(user(f"The weather, {name}?"))

    return chat, stream, stream_left, tools, error_retry, cached, sessions, fanout, embeddings
