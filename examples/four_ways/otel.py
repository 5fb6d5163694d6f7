"""The agent with OpenTelemetry, whose instrumentation records the calls of the client.

Needs a model server in OPENAI_BASE_URL and OPENAI_API_KEY, and the name of its model in MODEL. Spans go where
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS say, to the flow in OTEL_SERVICE_NAME.
"""

import json
import os
import sys
import time

import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

NOTES = ["The ferry to Lima leaves at nine.", "Museums in Oslo close on Mondays.", "Bread needs an hour."]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather in a city today.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": WEATHER}]
MODEL = os.environ["MODEL"]
client = openai.OpenAI(max_retries=0)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument()
span = trace.get_tracer("agent").start_as_current_span


@span("retrieve", attributes={"gen_ai.operation.name": "retrieval"})
def retrieve(question):
    words = set(question.lower().split())
    return sorted(NOTES, key=lambda note: len(words & set(note.lower().split())), reverse=True)[:2]


@span("weather", attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"})
def weather(city):
    return {"Oslo": "rain", "Lima": "sun"}.get(city, "fog")


def ask(messages):
    for pause_s in (0.1, 0.2, None):
        try:
            return client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        except openai.APIError:
            if pause_s is None:
                raise
            time.sleep(pause_s)


@span("answer", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "answer"})
def answer(question):
    system = "Answer in one sentence. What is known: " + " ".join(retrieve(question))
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    for _ in range(5):
        message = ask(messages).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)
        for call in message.tool_calls:
            result = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError("the model keeps asking for tools")


if __name__ == "__main__":
    print(answer(sys.argv[1]))
