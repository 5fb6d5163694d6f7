from anthropic_cases import anthropic_cases
from cases import flush, otel, run
from openinference.instrumentation import using_session
from openinference.instrumentation.anthropic import AnthropicInstrumentor

otel()
AnthropicInstrumentor().instrument()
run(
    anthropic_cases(session=using_session),
    flush,
    libraries=["openinference-instrumentation-anthropic", "anthropic"],
)
