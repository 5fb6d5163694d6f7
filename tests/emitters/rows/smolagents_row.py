import contextlib

from cases import flush, otel, questions, run
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


def stream():
    for _ in model.generate_stream([{"role": "user", "content": [{"type": "text", "text": "The weather?"}]}]):
        pass


def error_retry():
    with tracer.start_as_current_span("answer"):
        with contextlib.suppress(Exception):
            agent().run("The weather? [fail-500]")
        agent().run("The weather? [fail-500]")


def sessions():
    for name in ("first-session", "second-session"):
        with using_session(name):
            agent().run(f"The weather, {name}?")


chat, tools, cached = questions(lambda text: agent().run(text))
cases = (chat, stream, tools, error_retry, cached, sessions)
run(
    cases,
    flush,
    libraries=["openinference-instrumentation-smolagents", "smolagents", "openai"],
    cannot={"fanout": "it has no asynchronous agents", "stream_left": "its stream has no close of its own"},
)
