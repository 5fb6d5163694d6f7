"""The cases of Pydantic AI, for every row that watches it."""

import contextlib

import openai
from cases import fanned_out, questions, weather
from opentelemetry import trace
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

LIBRARIES = ["pydantic-ai-slim", "openai", "anthropic"]


def cases():
    tracer = trace.get_tracer("program")
    provider = OpenAIProvider(openai_client=openai.AsyncOpenAI(max_retries=0))
    chats = OpenAIChatModel("gpt-5-mini", provider=provider)

    def agent(model=chats):
        return Agent(model, name="forecaster", instructions="Be brief.", tools=[weather])

    async def stream():
        async with agent().run_stream("What is the weather?") as result:
            async for _ in result.stream_text():
                pass

    async def stream_left():
        async with agent().run_stream("Tell a tale. [long]") as result:
            async for _ in result.stream_text(debounce_by=None):
                break

    def error_retry():
        with tracer.start_as_current_span("answer"):
            with contextlib.suppress(ModelHTTPError):
                agent().run_sync("The weather? [fail-500]")
            agent().run_sync("The weather? [fail-500]")

    def cached_tools_responses():
        agent(OpenAIResponsesModel("gpt-5-mini", provider=provider)).run_sync("The weather? [cached] [tools]")

    def cached_tools_anthropic():
        agent(AnthropicModel("claude-sonnet-4-5")).run_sync("The weather? [cached] [tools]")

    def sessions():
        for name in ("first-session", "second-session"):
            agent().run_sync(f"The weather, {name}?", conversation_id=name)

    chat, tools, cached = questions(lambda text: agent().run_sync(text))
    fanout = fanned_out(lambda text: agent().run(text))
    cached_tools = (cached_tools_responses, cached_tools_anthropic)
    return (chat, stream, stream_left, tools, error_retry, cached, *cached_tools, sessions, fanout)
