from anthropic_cases import anthropic_cases
from cases import flush, otel, run
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor

otel()
AnthropicInstrumentor().instrument()
run(anthropic_cases(), flush, libraries=["opentelemetry-instrumentation-genai-anthropic", "anthropic"])
