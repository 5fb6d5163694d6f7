from cases import flush, otel, run
from openai_cases import openai_cases
from openinference.instrumentation import using_session
from openinference.instrumentation.openai import OpenAIInstrumentor

tracer = otel()
OpenAIInstrumentor().instrument()
run(
    openai_cases(tracer, session=using_session),
    flush,
    libraries=["openinference-instrumentation-openai", "openai"],
)
