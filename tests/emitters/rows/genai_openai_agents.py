from agents import set_trace_processors
from cases import flush, otel, run
from openai_agents_cases import CASES, LIBRARIES
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.instrumentation.genai.openai_agents import OpenAIAgentsInstrumentor

otel()
# Its own processor sends to OpenAI.
set_trace_processors([])
OpenAIAgentsInstrumentor().instrument()
# The calls of models are left to the client's own library.
OpenAIInstrumentor().instrument()
run(
    CASES,
    flush,
    libraries=[
        "opentelemetry-instrumentation-genai-openai-agents",
        "opentelemetry-instrumentation-genai-openai",
        *LIBRARIES,
    ],
)
