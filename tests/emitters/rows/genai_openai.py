from cases import flush, otel, run
from openai_cases import openai_cases
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

tracer = otel()
OpenAIInstrumentor().instrument()
run(openai_cases(tracer), flush, libraries=["opentelemetry-instrumentation-genai-openai", "openai"])
