from cases import flush, otel, run
from openai_cases import openai_cases
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

tracer = otel()
OpenAIInstrumentor().instrument()
run(openai_cases(tracer), flush, libraries=["opentelemetry-instrumentation-openai-v2", "openai"])
