import contextlib

from cases import fanned_out, flush, otel, questions, run, weather
from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.runners import InMemoryRunner
from google.genai import types

tracer = otel()


agent = LlmAgent(model="gemini-2.5-flash", name="forecaster", instruction="Be brief.", tools=[weather])
runner = InMemoryRunner(agent=agent, app_name="weather")


async def ask(text, *, session=None, stream=False, leave=False):
    made = await runner.session_service.create_session(app_name="weather", user_id="ada", session_id=session)
    events = runner.run_async(
        user_id="ada",
        session_id=made.id,
        new_message=types.Content(role="user", parts=[types.Part(text=text)]),
        run_config=RunConfig(streaming_mode=StreamingMode.SSE if stream else StreamingMode.NONE),
    )
    async for event in events:
        if leave and event.content:
            break
    await events.aclose()


async def stream():
    await ask("What is the weather?", stream=True)


async def stream_left():
    await ask("Tell a tale. [long]", stream=True, leave=True)


async def error_retry():
    with tracer.start_as_current_span("answer"):
        with contextlib.suppress(Exception):
            await ask("The weather? [fail-500]")
        await ask("The weather? [fail-500]")


async def sessions():
    for name in ("first-session", "second-session"):
        await ask(f"The weather, {name}?", session=name)


chat, tools, cached = questions(ask)
cases = (chat, stream, stream_left, tools, error_retry, cached, sessions, fanned_out(ask))
run(cases, flush, libraries=["google-adk", "google-genai"])
