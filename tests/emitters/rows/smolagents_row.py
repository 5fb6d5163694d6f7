import contextlib

from cases import flush, otel, run
from openinference.instrumentation import using_session
from openinference.instrumentation.smolagents import SmolagentsInstrumentor
from smolagents import OpenAIModel, ToolCallingAgent, tool

tracer = otel()
SmolagentsInstrumentor().instrument()
model = OpenAIModel("gpt-4o-mini", client_kwargs={"max_retries": 0})


@tool
def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name
    """
    return f"rain in {city}"


def agent():
    return ToolCallingAgent(tools=[weather], model=model, max_steps=4, verbosity_level=0, name="forecaster")


def chat():
    agent().run("What is the weather?")


def stream():
    for _ in model.generate_stream([{"role": "user", "content": [{"type": "text", "text": "The weather?"}]}]):
        pass


def tools():
    agent().run("The weather of Oslo and Lima? [tools]")


def error_retry():
    with tracer.start_as_current_span("answer"):
        with contextlib.suppress(Exception):
            agent().run("The weather? [fail-500]")
        agent().run("The weather? [fail-500]")


def cached():
    agent().run("Think of the weather. [cached]")


def sessions():
    for name in ("first-session", "second-session"):
        with using_session(name):
            agent().run(f"The weather, {name}?")


every = (chat, stream, tools, error_retry, cached, sessions)
run(
    {case.__name__: case for case in every},
    flush,
    libraries=["openinference-instrumentation-smolagents", "smolagents", "openai"],
    cannot={"fanout": "it has no asynchronous agents", "stream_left": "its stream has no close of its own"},
)
