import contextlib
import os

from cases import fanned_out, flush, otel, questions, run, weather
from strands import Agent, tool
from strands.models.anthropic import AnthropicModel
from strands.models.openai import OpenAIModel

tracer = otel()


def agent(model=None, **attributes):
    model = model or OpenAIModel(client_args={"max_retries": 0}, model_id="gpt-5-mini")
    return Agent(
        model=model,
        tools=[tool(weather)],
        system_prompt="Be brief.",
        name="forecaster",
        callback_handler=None,
        trace_attributes=attributes,
        retry_strategy=None,
    )


def anthropic():
    args = {"max_retries": 0, "base_url": os.environ["ANTHROPIC_BASE_URL"]}
    return AnthropicModel(client_args=args, model_id="claude-sonnet-4-5", max_tokens=400)


async def stream_left():
    events = agent().stream_async("Tell a tale. [long]")
    async for event in events:
        if "data" in event:
            break
    await events.aclose()


def error_retry():
    with tracer.start_as_current_span("answer"):
        with contextlib.suppress(Exception):
            agent()("The weather? [fail-500]")
        agent()("The weather? [fail-500]")


def cached():
    agent()("Think of the weather. [cached] [tools]")


def cached_anthropic():
    agent(anthropic())("Think of the weather. [cached] [tools]")


def sessions():
    for name in ("first-session", "second-session"):
        agent(**{"session.id": name})(f"The weather, {name}?")


chat, tools, _ = questions(lambda text: agent()(text))
fanout = fanned_out(lambda text: agent().invoke_async(text))
cases = (chat, stream_left, tools, error_retry, cached, cached_anthropic, sessions, fanout)
run(
    cases,
    flush,
    libraries=["strands-agents", "openai", "anthropic"],
    cannot={"stream": "each of its calls is a stream"},
)
