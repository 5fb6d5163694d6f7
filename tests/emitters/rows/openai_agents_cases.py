"""The cases of OpenAI's Agents SDK, for every row that watches it."""

import asyncio
import contextlib

import agents
import openai
from cases import questions, weather

LIBRARIES = ["openai-agents", "openai"]

# Its own processor sends to OpenAI.
agents.set_trace_processors([])
agents.set_default_openai_client(openai.AsyncOpenAI(max_retries=0), use_for_tracing=False)

tool = agents.function_tool(weather)
agent = agents.Agent(name="forecaster", instructions="Be brief.", model="gpt-5-mini", tools=[tool])
talker = agents.Agent(
    name="talker",
    instructions="Be brief.",
    model=agents.OpenAIChatCompletionsModel("gpt-5-mini", openai.AsyncOpenAI(max_retries=0)),
    tools=[tool],
)


async def chat_completions():
    await agents.Runner.run(talker, "The weather of Oslo and Lima? [tools] [cached]")


async def stream():
    result = agents.Runner.run_streamed(agent, "What is the weather?")
    async for _ in result.stream_events():
        pass


async def stream_left():
    result = agents.Runner.run_streamed(agent, "Tell a tale. [long]")
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            break
    result.cancel()
    async for _ in result.stream_events():
        pass


async def error_retry():
    with agents.trace("answer"):
        with contextlib.suppress(openai.InternalServerError):
            await agents.Runner.run(agent, "The weather? [fail-500]")
        await agents.Runner.run(agent, "The weather? [fail-500]")


async def sessions():
    for name in ("first-session", "second-session"):
        with agents.trace("turn", group_id=name):
            await agents.Runner.run(agent, f"The weather, {name}?")


async def fanout():
    with agents.trace("fan out"):
        await asyncio.gather(*(agents.Runner.run(agent, f"Weather {number}? [tools]") for number in range(3)))


chat, tools, cached = questions(lambda text: agents.Runner.run(agent, text))


def cases():
    return chat, chat_completions, stream, stream_left, tools, error_retry, cached, sessions, fanout
