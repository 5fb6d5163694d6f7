import contextlib

import openai
from agent_framework import Agent
from agent_framework.observability import enable_instrumentation
from agent_framework.openai import OpenAIChatClient
from cases import fanned_out, flush, otel, questions, run, weather

tracer = otel()
enable_instrumentation(enable_sensitive_data=True)


client = OpenAIChatClient(model="gpt-5-mini", async_client=openai.AsyncOpenAI(max_retries=0))
agent = Agent(client, "Be brief.", name="forecaster", tools=[weather])


async def stream():
    async for _ in agent.run("What is the weather?", stream=True):
        pass


async def error_retry():
    with tracer.start_as_current_span("answer"):
        with contextlib.suppress(Exception):
            await agent.run("The weather? [fail-500]")
        await agent.run("The weather? [fail-500]")


chat, tools, cached = questions(agent.run)
cases = (chat, stream, tools, error_retry, cached, fanned_out(agent.run))
run(cases, flush, libraries=["agent-framework-core", "agent-framework-openai", "openai"])
