import asyncio
import contextlib
import threading

import litellm
from cases import flush, otel, run
from openai_cases import TOOLS
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor


class Ended(SpanProcessor):
    """Counts the library's spans, which end in threads of its own: two for each answer, one for a failure."""

    def __init__(self):
        self._spans = threading.Semaphore(0)

    def on_end(self, span):
        if span.instrumentation_scope.name == "litellm":
            self._spans.release()

    def wait(self, spans):
        for _ in range(spans):
            if not self._spans.acquire(timeout=60):
                raise TimeoutError(f"{spans} spans have not ended")


tracer = otel()
ended = Ended()
trace.get_tracer_provider().add_span_processor(ended)
litellm.callbacks = ["otel"]
MODEL = "openai/gpt-5-mini"


def asked(text, **more):
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "max_retries": 0, "num_retries": 0, **more}


def chat():
    litellm.completion(**asked("What is the weather?"))
    ended.wait(2)


def stream():
    told = {"include_usage": True}
    for _ in litellm.completion(**asked("What is the weather?", stream=True, stream_options=told)):
        pass
    ended.wait(2)


def stream_left():
    for _ in litellm.completion(**asked("Tell a tale. [long]", stream=True)):
        break


def tools():
    messages = [{"role": "user", "content": "The weather of Oslo and Lima? [tools]"}]
    message = litellm.completion(**asked(messages, tools=TOOLS)).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    litellm.completion(**asked(messages, tools=TOOLS))
    ended.wait(4)


def error_retry():
    with contextlib.suppress(litellm.InternalServerError):
        litellm.completion(**asked("The weather? [fail-500]"))
    litellm.completion(**asked("The weather? [fail-500]"))
    ended.wait(3)


def cached():
    litellm.completion(**asked("Think of the weather. [cached]"))
    ended.wait(2)


def cached_anthropic():
    litellm.completion(**asked("Think of the weather. [cached]") | {"model": "anthropic/claude-sonnet-4-5"})
    ended.wait(2)


async def fanout():
    with tracer.start_as_current_span("fan out"):
        await asyncio.gather(*(litellm.acompletion(**asked(f"Weather {number}?")) for number in range(4)))
    # Its callbacks run on this loop.
    await asyncio.to_thread(ended.wait, 8)


def embeddings():
    litellm.embedding(model="openai/text-embedding-3-small", input=["rain"])
    ended.wait(2)


cases = (chat, stream, stream_left, tools, error_retry, cached, cached_anthropic, fanout, embeddings)
run(cases, flush, libraries=["litellm", "openai"])
