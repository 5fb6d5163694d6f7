"""The cases of LangChain and LangGraph, for every row that watches them."""

import asyncio
import contextlib

import openai
from cases import weather
from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

LIBRARIES = ["langchain", "langgraph", "langchain-openai", "openai"]


def cases():
    model = ChatOpenAI(model="gpt-5-mini", max_retries=0, stream_usage=True)
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")])
    chain = prompt | model
    agent = create_agent(model, [tool(weather)], name="forecaster")

    def chat():
        chain.invoke({"question": "What is the weather?"})

    def stream():
        for _ in chain.stream({"question": "What is the weather?"}):
            pass

    def stream_left():
        chunks = chain.stream({"question": "Tell a tale. [long]"})
        for chunk in chunks:
            if chunk.content:
                break
        chunks.close()

    def tools():
        agent.invoke({"messages": [("user", "The weather of Oslo and Lima? [tools]")]})

    def error_retry():
        with contextlib.suppress(openai.InternalServerError):
            chain.invoke({"question": "The weather? [fail-500]"})
        again = prompt | model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
        again.invoke({"question": "The weather? [fail-429]"})

    def cached():
        chain.invoke({"question": "Think of the weather. [cached]"})

    def sessions():
        for name in ("first-session", "second-session"):
            agent.invoke(
                {"messages": [("user", f"The weather, {name}?")]},
                {"configurable": {"thread_id": name}, "metadata": {"session_id": name, "thread_id": name}},
            )

    async def fanout():
        async def ask(number):
            await agent.ainvoke({"messages": [("user", f"Weather {number}? [tools]")]})

        await asyncio.gather(*(ask(number) for number in range(3)))

    async def batch():
        await chain.abatch([{"question": f"Weather {number}?"} for number in range(3)])

    return chat, stream, stream_left, tools, error_retry, cached, sessions, fanout, batch
